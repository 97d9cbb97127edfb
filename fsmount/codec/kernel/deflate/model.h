/* A guess at what some encoder does next.
 *
 * All deflate encoders that look for matches in hash chains are much alike: how many bytes are
 * hashed, how far a chain is walked, when a match is good enough, whether the next position is
 * looked at before a match is taken. A model is these numbers. Where the numbers are those of the
 * encoder, nearly every token is guessed; where they are only near, most are, and the others are
 * written down (correct.h). A model therefore need not be right, but it has to be the same for
 * ever: a change of any guess makes records written before unreadable.
 *
 * What encoders do is known from their sources: zlib, miniz and miniz_oxide, zlib-ng.
 */
#ifndef FSMOUNT_KERNEL_MODEL_H
#define FSMOUNT_KERNEL_MODEL_H

#include "../common.h"
#include "rules.h"

typedef enum {
    /* A match is taken, unless it is shorter than `lazy` and there is a longer one at the next
     * position. zlib from level 4 on, miniz; with a `lazy` of 0 the greedy parsers. */
    GUESS_LAZY,
    /* A match is taken, but the one that follows it may reach back and swallow it up to one byte:
     * zlib-ng at levels 5 and 6. */
    GUESS_MEDIUM,
    GUESSES
} GuessKind;

/* In the order of the bytes in a record. */
typedef struct {
    u16 kind;
    u16 hashed;    /* bytes that are hashed: 3, as zlib does it; 4, multiplied */
    u16 hash_bits;
    u16 least;     /* shortest match that is taken */
    u16 chain;     /* how far a chain is walked; 4096 at most */
    u16 good;      /* holding a match this long, only ... */
    u16 good_chain;
    u16 group;     /* so many candidates count as one if their end does not fit (miniz: 3) */
    u16 lazy;
    u16 nice;      /* a match this long ends the walk */
    u16 far;       /* a match of three bytes from farther away is dropped */
    u16 reach;     /* the farthest distance */
    u16 insert;    /* the insides of longer matches are not found later, */
    u16 insert_end; /* but for as many positions at their end */
    u16 unseen;    /* positions that end a chain: 0 none, 1 position 0, 2 multiples of 65536 */
    u16 heap;      /* code lengths: 1 by zlib's heap, 0 from a sorted list */
    u16 joined;    /* runs of code lengths may go from one code into the other */
} Model;

enum { MODEL_NUMBERS = sizeof(Model) / sizeof(u16) };

/* Whether all numbers are ones that guessing can work with. */
bool model_valid(const Model *model);

typedef struct {
    u32 length;   /* 0: a literal */
    u32 distance;
} Match;

typedef struct {
    const u8 *in;
    u32 size;
    Model model;
    u32 filled;      /* positions before are in the chains, or left out of them */
    u32 *heads;      /* newest position + 1 with each hash */
    u32 *links;      /* ring: position + 1 of the one before */
    u64 steps;       /* candidates looked at so far: what guessing costs */
    u32 ahead;       /* a match has been looked for there already: */
    Match found;
} Guesser;

bool guesser_open(Guesser *guesser, const Model *model, const u8 *in, u32 size);
void guesser_close(Guesser *guesser);

/* The guess at `position`. `deferred`: a literal because the next position has a better match. */
Match guess(Guesser *guesser, u32 position, bool *deferred);

/* What really stands at `position`: `length` bytes (1: a literal) taken at once. */
void guess_learn(Guesser *guesser, u32 position, u32 length);

/* Earlier positions with the hash of `position` (all of them before it in the chains), newest
 * first: the one before `candidate`, or NOWHERE. Start with `position` itself. */
u32 guess_candidate(const Guesser *guesser, u32 position, u32 candidate);

#endif
