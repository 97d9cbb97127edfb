/* Predicts the next token of an encoder.
 *
 * Deflate encoders that look for matches in hash chains are similar. They differ in a few numbers:
 * how many bytes they hash, how far they walk a chain, which match is good enough, and whether they
 * look at the next position before they take a match. A model is a set of these numbers. With the
 * numbers of the encoder nearly every guess is right. With similar numbers most guesses are right,
 * and a record lists the wrong ones (correct.h). So a model need not be exact. But guesses must
 * never change: a change of any guess makes existing records unreadable.
 *
 * The numbers come from the sources of the encoders: zlib, miniz and miniz_oxide, zlib-ng.
 */
#ifndef FSMOUNT_KERNEL_MODEL_H
#define FSMOUNT_KERNEL_MODEL_H

#include "../common.h"
#include "rules.h"

typedef enum {
    /* The encoder takes a match, unless it is shorter than `lazy` and the next position has a
     * longer one. zlib from level 4 on, miniz. With a `lazy` of 0 this is a greedy parser. */
    GUESS_LAZY,
    /* The encoder takes a match, but it may move the start of the following match back over it,
     * until at most one byte of the first match is left. zlib-ng at levels 5 and 6. */
    GUESS_MEDIUM,
    GUESSES
} GuessKind;

/* The fields are in the order of the numbers in a record. */
typedef struct {
    u16 kind;
    u16 hashed;    /* number of bytes that are hashed: 3 by zlib's hash, 4 by a multiplication */
    u16 hash_bits;
    u16 least;     /* shortest match that the encoder takes */
    u16 chain;     /* number of candidates (1 to 4096) that a search looks at, ... */
    u16 good;      /* but with a match of at least this length at the position before, ... */
    u16 good_chain; /* this number */
    u16 group;     /* this many candidates count as one if their end does not match (miniz: 3) */
    u16 lazy;      /* with a match this long the encoder does not search the next position */
    u16 nice;      /* a match this long ends the search */
    u16 far;       /* the encoder drops a match of three bytes from a greater distance */
    u16 reach;     /* largest distance */
    u16 insert;    /* the encoder does not enter the positions inside longer matches, ... */
    u16 insert_end; /* except this number of positions at their end */
    u16 unseen;    /* positions that end a chain: 0 none, 1 position 0, 2 multiples of 65536 */
    u16 heap;      /* how it makes code lengths: 1 with zlib's heap, 0 from a sorted list */
    u16 joined;    /* 1: a run of code lengths may go from the first code into the second */
} Model;

enum { MODEL_NUMBERS = sizeof(Model) / sizeof(u16) };

/* Returns whether all numbers are in the ranges that the functions here accept. */
bool model_valid(const Model *model);

/* A guessed or found token. */
typedef struct {
    u32 length;   /* 0: no match, a literal */
    u32 distance;
} Match;

/* The state of a model at a position of an input: its hash chains, and a search ahead. */
typedef struct {
    const u8 *in;
    u32 size;
    Model model;
    u32 filled;      /* positions before this one are in the chains, or skipped */
    u32 *heads;      /* newest position with each hash, plus 1; 0: none */
    u32 *links;      /* ring: the position before with the same hash, plus 1; 0: none */
    u64 steps;       /* number of candidates that all searches have looked at */
    u32 ahead;       /* a guess has already searched at this position (NOWHERE: none) ... */
    Match found;     /* and found this match */
} Guesser;

/* Prepares guesses for the `size` bytes of `in`, which must outlive the guesser. The model must be
 * valid. Returns false if there is no memory. The caller calls guesser_close() in any case. */
bool guesser_open(Guesser *guesser, const Model *model, const u8 *in, u32 size);

/* Frees the chains. */
void guesser_close(Guesser *guesser);

/* Returns the guess for the token at `position`. Sets `deferred` if the guess is a literal only
 * because the next position has a better match. */
Match guess(Guesser *guesser, u32 position, bool *deferred);

/* Tells the guesser the real token at `position`: it takes `length` bytes (1: a literal). The
 * caller tells it all tokens in order. */
void guess_learn(Guesser *guesser, u32 position, u32 length);

/* Returns the next candidate in the chain of `position`: the newest position before `candidate`
 * with the same hash, or NOWHERE at the end of the chain. The first call passes `position` itself
 * as `candidate`. `position` must be in the chains. */
u32 guess_candidate(const Guesser *guesser, u32 position, u32 candidate);

#endif
