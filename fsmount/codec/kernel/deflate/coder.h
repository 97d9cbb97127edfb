/* An adaptive binary range coder. Correction records (correct.h) are written with it.
 *
 * The coder codes each bit in a context. The context holds the probability of a 1, estimated from
 * the bits coded in it before. The same functions encode and decode: code_bit() writes its argument
 * when it encodes, and ignores the argument and returns the bit that it reads when it decodes. A
 * format built on it therefore needs one function for both directions.
 *
 * The arithmetic is that of LZMA's coder: a 32-bit range and a 33-bit low end with carry. The
 * probabilities are finer than LZMA's, because nearly all bits here say "as predicted" and must
 * cost nearly nothing.
 */
#ifndef FSMOUNT_KERNEL_CODER_H
#define FSMOUNT_KERNEL_CODER_H

#include "../common.h"

/* A context: the probability of a 1 in units of 2^-22, and the number of bits coded in it so far
 * (at most 255). */
typedef struct {
    u32 one;
    u32 seen;
} Chance;

/* The state of an encoder or decoder. */
typedef struct {
    bool decoding, failed; /* failed: no memory when encoding, damaged record when decoding */
    u32 range;
    u64 low;               /* encoding only */
    u32 code;              /* decoding only */
    u8 cache;              /* encoding: the first of the bytes held back */
    u64 pending;           /* encoding: bytes that a carry may still change: `cache`, then 0xff */
    u8 *out;               /* encoding: `size` bytes written, `room` allocated */
    size_t size, room;
    const u8 *at, *end;    /* decoding: the bytes that are not read yet */
    u32 missing;           /* decoding: number of bytes read past the end */
} Coder;

/* Fills the table of rates. Call it once, before any other function of the kernel. */
void coder_prepare(void);

/* Starts a new record. */
void coder_encode(Coder *coder);

/* Starts to read the `size` bytes of a record. The record must outlive the coder. */
void coder_decode(Coder *coder, const u8 *record, size_t size);

/* Ends encoding and writes the bytes that are still held. Afterwards `out` holds the `size` bytes
 * of the record; the caller frees `out`. If `failed` is set, the record is incomplete. */
void coder_finish(Coder *coder);

/* The code_...() functions return the coded value: the argument when encoding, the decoded value
 * when decoding. From a damaged record they return any value within the range they name. They set
 * `failed` if there is no memory or the record ends too early. */

/* Codes one bit (0 or 1) in the context `chance` and adapts the context. */
u32 code_bit(Coder *coder, Chance *chance, u32 bit);

/* Codes the lowest `bits` bits (0 to 31) of a number without contexts; all values cost the same. */
u32 code_flat(Coder *coder, u32 value, u32 bits);

/* Codes a number of `bits` bits (0 to 31), highest first, each in a context that the bits before
 * choose. `tree` has 1 << bits contexts. */
u32 code_tree(Coder *coder, Chance *tree, u32 value, u32 bits);

/* Contexts of code_number(): the number of bits of value + 1, and the two bits behind its first. */
typedef struct {
    Chance length[32];
    Chance first[32][4];
} NumberChances;

/* Codes a number below 2^31; small numbers cost less. It codes the number of bits of value + 1,
 * then the bits (Elias gamma code). The first two bits behind the leading 1 have contexts. */
u32 code_number(Coder *coder, NumberChances *chances, u32 value);

/* Sets all contexts in `chances` to equal probabilities. `chances` is an array or a struct of
 * contexts only; `bytes` is its size. */
void chances_reset(void *chances, size_t bytes);

#endif
