/* An adaptive binary range coder: the way corrections are written down.
 *
 * A bit is coded with the probability its context has seen so far. Encoder and decoder are one
 * coder that goes the same way over the same contexts: code_bit() takes the bit when it encodes,
 * and gives it when it decodes, so whatever is built on it needs to be written once.
 *
 * The arithmetic is that of LZMA's coder (32-bit range, 33-bit low end with carry), with finer
 * probabilities: nearly all bits here are "as predicted" and should cost nearly nothing.
 */
#ifndef FSMOUNT_KERNEL_CODER_H
#define FSMOUNT_KERNEL_CODER_H

#include "../common.h"

/* How probable a 1 is, in 2^-22, and how many bits the context has seen (up to a limit). */
typedef struct {
    u32 one;
    u32 seen;
} Chance;

typedef struct {
    bool decoding, failed; /* failed: out of memory, or the record is damaged */
    u32 range;
    u64 low;               /* encoding */
    u32 code;              /* decoding */
    u8 cache;
    u64 pending;           /* bytes held back for a carry: the cache, and 0xff behind it */
    u8 *out;
    size_t size, room;
    const u8 *at, *end;
    u32 missing;           /* bytes read past the end */
} Coder;

/* Fills the table of rates; to be called once, before anything else. */
void coder_prepare(void);

void coder_encode(Coder *coder);
void coder_decode(Coder *coder, const u8 *record, size_t size);

/* Writes out what is left. `out` and `size` hold the record, to be freed. */
void coder_finish(Coder *coder);

u32 code_bit(Coder *coder, Chance *chance, u32 bit);

/* The lowest `bits` bits of a number, all values equally probable. */
u32 code_flat(Coder *coder, u32 value, u32 bits);

/* A number of `bits` bits, highest first; `tree` has 1 << bits contexts. */
u32 code_tree(Coder *coder, Chance *tree, u32 value, u32 bits);

/* Any number below 2^31, small ones cheap: how many bits it has, then the bits, the first few of
 * them in contexts. */
typedef struct {
    Chance length[32];
    Chance first[32][4];
} NumberChances;

u32 code_number(Coder *coder, NumberChances *chances, u32 value);

/* Sets every chance in `chances` (an array or a struct of nothing else) to even. */
void chances_reset(void *chances, size_t bytes);

#endif
