/* Correction records: the differences between a deflate stream and what a model of an encoder
 * (model.h) predicts.
 *
 * The range coder (coder.h) writes a record: the numbers of the model, then for each block its
 * kind, its end, every token that the model guessed wrong, and every difference of the Huffman
 * header from the expected one (header.h). The record and the input together give back every bit of
 * the stream.
 *
 * A stream is raw deflate data (RFC 1951). `raw` is its input, `size` bytes, at most LONGEST_INPUT.
 */
#ifndef FSMOUNT_KERNEL_CORRECT_H
#define FSMOUNT_KERNEL_CORRECT_H

#include "model.h"

/* CORRECT_DONE: success. CORRECT_NOT: each function says what it means. */
typedef enum { CORRECT_DONE, CORRECT_NOT, CORRECT_NO_MEMORY } CorrectResult;

/* Makes the record of the stream `body` of the input `raw`. On CORRECT_DONE sets `record` and
 * `record_size` (bytes); the caller frees the record. CORRECT_NOT: `body` is not exactly a stream
 * of this input, or it has a form that no known encoder writes and that a record cannot hold (the
 * other code for a match of 258 bytes, or very many blocks). */
CorrectResult correct_make(const Model *model, const u8 *body, size_t body_size, const u8 *raw,
                           u32 size, u8 **record, size_t *record_size);

/* Makes the stream again from its record and its input. On CORRECT_DONE sets `body` and `body_size`
 * (bytes); the caller frees the body. CORRECT_NOT: the record is damaged or belongs to another
 * input. Such a record can also give CORRECT_DONE and a wrong stream, so the caller must compare a
 * checksum. A good record with its own input always gives the right stream. */
CorrectResult correct_apply(const u8 *record, size_t record_size, const u8 *raw, u32 size, u8 **body,
                            size_t *body_size);

/* Returns the size in bytes of the record of the first `tokens` tokens (1 or more) of the stream.
 * Returns 0 if the stream cannot be read or there is no memory. Adds the number of candidates that
 * the model looked at to `steps`. */
size_t correct_cost(const Model *model, const u8 *body, size_t body_size, const u8 *raw, u32 size,
                    u32 tokens, u64 *steps);

#endif
