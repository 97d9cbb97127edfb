/* Corrections: what a model of an encoder (model.h) does not say about a stream.
 *
 * A record holds the model's numbers and, range-coded (coder.h), for each block: its kind, where
 * it ends, every token that is not the one guessed, and what in the Huffman header is not as
 * expected. With the input it gives back every bit of the stream.
 */
#ifndef FSMOUNT_KERNEL_CORRECT_H
#define FSMOUNT_KERNEL_CORRECT_H

#include "model.h"

typedef enum { CORRECT_DONE, CORRECT_NOT, CORRECT_NO_MEMORY } CorrectResult;

/* The record of the stream `body` of the input `raw`; to be freed. CORRECT_NOT: it is no stream of
 * this input, or one that nobody writes. */
CorrectResult correct_make(const Model *model, const u8 *body, size_t body_size, const u8 *raw,
                           u32 size, u8 **record, size_t *record_size);

/* The stream again. CORRECT_NOT: the record is damaged, or of another input; then, and only then
 * may there also be a wrong stream. */
CorrectResult correct_apply(const u8 *record, size_t record_size, const u8 *raw, u32 size, u8 **body,
                            size_t *body_size);

/* How long the record of the beginning of the stream, some `tokens` tokens, would be in bytes.
 * 0: not to be told. The candidates that were looked at are added to `steps`. */
size_t correct_cost(const Model *model, const u8 *body, size_t body_size, const u8 *raw, u32 size,
                    u32 tokens, u64 *steps);

#endif
