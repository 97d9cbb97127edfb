/* The numbers that decide what classic zlib writes, derived from the arguments of
 * deflateInit2(). */
#ifndef FSMOUNT_KERNEL_RULES_H
#define FSMOUNT_KERNEL_RULES_H

#include "../common.h"

enum { SHORTEST_MATCH = 3, LONGEST_MATCH = 258 };

/* zlib's MIN_LOOKAHEAD: zlib keeps this many bytes of input ahead of its position in the window. So
 * no distance is greater than the size of the window minus this. */
enum { WINDOW_RESERVE = LONGEST_MATCH + SHORTEST_MATCH + 1 };

/* zlib's TOO_FAR: the lazy parser drops a match of three bytes from a greater distance, because it
 * costs more than three literals. */
enum { TOO_FAR = 4096 };

/* The values are those of zlib's Z_DEFAULT_STRATEGY to Z_FIXED. */
enum { STRATEGY_DEFAULT, STRATEGY_FILTERED, STRATEGY_HUFFMAN, STRATEGY_RLE, STRATEGY_FIXED };

typedef enum { PARSE_STORED, PARSE_FAST, PARSE_LAZY, PARSE_RLE, PARSE_HUFFMAN } ParseKind;

/* Arguments of deflateInit2(). */
typedef struct {
    int level;       /* 0..9 */
    int strategy;    /* STRATEGY_... */
    int memory;      /* memLevel, 1..9 */
    int window_bits; /* 8..15; zlib uses 9 in place of 8 */
} Params;

typedef struct {
    ParseKind kind;
    bool filtered;  /* the lazy parser drops matches shorter than 6 bytes */
    bool fixed;     /* zlib makes no dynamic Huffman codes */
    u32 good;       /* zlib's good_length: with a match this long, a search uses chain / 4 */
    u32 lazy;       /* zlib's max_lazy: with a match this long, the lazy parser does not look for
                       a better one; the fast parser does not enter the positions inside longer
                       matches */
    u32 nice;       /* zlib's nice_length: a match this long ends the search */
    u32 chain;      /* zlib's max_chain: number of candidates that a search looks at */
    u32 window;     /* size of the window in bytes */
    u32 reach;      /* largest distance of a match */
    u32 hash_bits;  /* number of bits of the three-byte hash */
    u32 hash_shift; /* number of bits by which the hash shifts for each byte */
    u32 symbols;    /* number of literals and matches in a full block */
    u32 ahead;      /* zlib refills the window when less input than this is left in it */
} Rules;

/* Returns whether each parameter is in its range. */
bool rules_valid(const Params *params);

/* Returns the rules for valid parameters. */
Rules rules_of(const Params *params);

/* Returns the position of the input byte at index 0 of zlib's window buffer, once the parser has
 * begun a step at position `step` of an input of `size` bytes. zlib must get the whole input in one
 * call. */
u64 rules_window_start(const Rules *rules, u32 size, u32 step);

#endif
