/* The numbers that decide what classic zlib writes, derived from deflateInit2's arguments. */
#ifndef FSMOUNT_KERNEL_RULES_H
#define FSMOUNT_KERNEL_RULES_H

#include "../common.h"

enum { SHORTEST_MATCH = 3, LONGEST_MATCH = 258 };

/* zlib keeps this much input in its window ahead of the position it works at, and so never looks
 * back farther than the window less as much. */
enum { WINDOW_RESERVE = LONGEST_MATCH + SHORTEST_MATCH + 1 };

/* A match of three bytes from farther away costs more than three literals; the lazy parser drops
 * it. */
enum { TOO_FAR = 4096 };

enum { STRATEGY_DEFAULT, STRATEGY_FILTERED, STRATEGY_HUFFMAN, STRATEGY_RLE, STRATEGY_FIXED };

typedef enum { PARSE_STORED, PARSE_FAST, PARSE_LAZY, PARSE_RLE, PARSE_HUFFMAN } ParseKind;

typedef struct {
    int level;       /* 0..9 */
    int strategy;    /* STRATEGY_... */
    int memory;      /* memLevel, 1..9 */
    int window_bits; /* 8..15; zlib compresses with 9 when it is asked for 8 */
} Params;

typedef struct {
    ParseKind kind;
    bool filtered;  /* the lazy parser drops matches shorter than 6 */
    bool fixed;     /* no dynamic Huffman codes */
    u32 good;       /* holding a match this long, only a quarter of the chain is searched */
    u32 lazy;       /* holding a match this long, no better one is sought; for the fast parser:
                       the insides of longer matches do not enter the chains */
    u32 nice;       /* a match this long ends the search */
    u32 chain;      /* candidates looked at in a search */
    u32 window;     /* bytes */
    u32 reach;      /* the farthest distance of a match */
    u32 hash_bits;  /* of the three-byte hash */
    u32 hash_shift;
    u32 symbols;    /* literals and matches in a full block */
    u32 ahead;      /* the window is refilled when less input than this is left in it */
} Rules;

bool rules_valid(const Params *params);
Rules rules_of(const Params *params);

/* Where zlib's window begins (its first byte is at index 0 of zlib's buffer) once the parser has
 * begun a step at position `step`, with an input of `size` bytes. */
u64 rules_window_start(const Rules *rules, u32 size, u32 step);

#endif
