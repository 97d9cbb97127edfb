/* Huffman codes, built exactly as zlib builds them (RFC 1951 section 3.2.2 leaves the choice of
 * code lengths to the encoder; every tie broken differently would give other bytes). */
#ifndef FSMOUNT_KERNEL_TREES_H
#define FSMOUNT_KERNEL_TREES_H

#include "../common.h"

enum {
    LITERAL_CODES = 286,    /* 256 bytes, end of block, 29 lengths */
    DISTANCE_CODES = 30,
    RUN_CODES = 19,         /* the code of the code lengths */
    END_OF_BLOCK = 256,
    FIXED_LITERAL_CODES = 288, /* the fixed code has two that are never used */
};

extern const u8 LENGTH_EXTRA[29], DISTANCE_EXTRA[30], RUN_EXTRA[19], RUN_ORDER[19];
extern const u16 LENGTH_FIRST[29], DISTANCE_FIRST[30];

/* How often symbols are in a block. */
typedef struct {
    u32 literals[FIXED_LITERAL_CODES];
    u32 distances[DISTANCE_CODES];
} Frequencies;

u32 length_code(u32 length);     /* 0..28 for lengths 3..258 */
u32 distance_code(u32 distance); /* 0..29 for distances 1..32768 */

/* Code lengths (0: not used) for `count` symbols of the given frequencies, none above `longest`.
 * Frequencies add up to at most 65535. Returns the number of the last symbol that has a code. */
int tree_lengths(const u32 *frequency, int count, u32 longest, u8 *lengths);

/* The canonical codes of these lengths, bit-reversed: ready to be written lowest bit first. */
void tree_codes(const u8 *lengths, int count, u16 *codes);

/* The two codes in front of a dynamic block. */
typedef struct {
    u8 literal[LITERAL_CODES + 1];
    u8 distance[DISTANCE_CODES + 1];
    int last_literal, last_distance;
    u8 run[RUN_CODES];
    u32 run_count;     /* of the lengths of the run code, in their odd order, written out */
    u32 header_bits;   /* the header without the three bits that begin every block */
} DynamicCodes;

/* Fills `codes` from the frequencies of a block's symbols. */
void dynamic_codes(const u32 *literals, const u32 *distances, DynamicCodes *codes);

typedef void PutBits(void *writer, u32 value, u32 bits);
void dynamic_header(const DynamicCodes *codes, PutBits *put, void *writer);

#endif
