/* Builds Huffman codes exactly as zlib does (trees.c of zlib). RFC 1951 section 3.2.2 leaves the
 * choice of code lengths to the encoder, so any tie that is broken differently gives other
 * bytes. */
#ifndef FSMOUNT_KERNEL_TREES_H
#define FSMOUNT_KERNEL_TREES_H

#include "../common.h"

enum {
    LITERAL_CODES = 286,    /* 256 bytes, end of block, 29 lengths */
    DISTANCE_CODES = 30,
    RUN_CODES = 19,         /* symbols of the run code, which is the code of the code lengths */
    END_OF_BLOCK = 256,
    FIXED_LITERAL_CODES = 288, /* the fixed code has two symbols that no block uses */
};

/* By code: the number of extra bits, and the first length or distance (RFC 1951 section 3.2.5). By
 * symbol of the run code: the number of extra bits. RUN_ORDER: the order of the lengths of the run
 * code in a header (section 3.2.7). */
extern const u8 LENGTH_EXTRA[29], DISTANCE_EXTRA[30], RUN_EXTRA[19], RUN_ORDER[19];
extern const u16 LENGTH_FIRST[29], DISTANCE_FIRST[30];

/* The number of times that a block has each symbol. */
typedef struct {
    u32 literals[FIXED_LITERAL_CODES];
    u32 distances[DISTANCE_CODES];
} Frequencies;

u32 length_code(u32 length);     /* returns 0..28 for lengths 3..258 */
u32 distance_code(u32 distance); /* returns 0..29 for distances 1..32768 */

/* Writes code lengths for `count` symbols (2 to LITERAL_CODES) with these frequencies to `lengths`,
 * as zlib's build_tree() does. A length is at most `longest` (up to 15); 0 means that the symbol
 * has no code. The sum of the frequencies must be at most 65535. Returns the number of the last
 * symbol that has a code. */
int tree_lengths(const u32 *frequency, int count, u32 longest, u8 *lengths);

/* Writes the canonical codes of these lengths (RFC 1951 section 3.2.2; zlib's gen_codes()). The
 * bits of a code are reversed, because a writer writes the lowest bit first. Does not write the
 * codes of symbols with length 0. */
void tree_codes(const u8 *lengths, int count, u16 *codes);

/* The two codes of a dynamic block, and the run code of their lengths. */
typedef struct {
    u8 literal[LITERAL_CODES + 1];
    u8 distance[DISTANCE_CODES + 1];
    int last_literal, last_distance;
    u8 run[RUN_CODES];
    u32 run_count;     /* number of run code lengths in the header, in the order of RUN_ORDER */
    u32 header_bits;   /* length of the header in bits, without the three bits that begin a block */
} DynamicCodes;

/* Fills `codes` from the frequencies of the symbols of a block (fields of Frequencies). */
void dynamic_codes(const u32 *literals, const u32 *distances, DynamicCodes *codes);

/* Appends the lowest `bits` bits of `value` to the caller's writer. */
typedef void PutBits(void *writer, u32 value, u32 bits);

/* Writes the header of a dynamic block by calls of `put` (zlib's send_all_trees()), without the
 * three bits that begin a block. */
void dynamic_header(const DynamicCodes *codes, PutBits *put, void *writer);

#endif
