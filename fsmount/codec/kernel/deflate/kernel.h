/* Compresses data to exactly the bytes that classic zlib (1.2.12 and later) gives, without zlib. */
#ifndef FSMOUNT_KERNEL_KERNEL_H
#define FSMOUNT_KERNEL_KERNEL_H

#include "emit.h"
#include "rules.h"
#include "tokens.h"

/* A finished raw deflate stream, its parameters, tokens and blocks. Level 0 has no tokens and
 * blocks. */
typedef struct {
    Params params;
    u32 size;       /* of the input, in bytes */
    u8 *body;
    size_t body_size;
    Tokens tokens;
    Blocks blocks;
} Stream;

/* An earlier stream as a reference: its input, its tokens (`count` words), and maybe the stream. */
typedef struct {
    const u8 *in;
    u32 size;
    const u32 *words;
    size_t count;
    OldStream stream; /* `body` is NULL if the caller does not have the stream */
} Reference;

/* Prepares the tables of the kernel. Call it once, before any other function here. `seed` is any
 * number, preferably one that an attacker cannot guess (finder.h). It does not change any
 * result. */
void kernel_prepare(u64 seed);

/* Frees what the stream holds. */
void stream_free(Stream *stream);

/* Compresses the `size` bytes of `in` (at most LONGEST_INPUT) as zlib's deflate() does when it gets
 * all input in one call. The parameters must be valid (rules_valid()). `threads` is 1 to
 * MOST_THREADS. `row` is the length of a row in bytes (0: unknown); the function cuts the input for
 * the threads at the start of rows. The result does not depend on `threads` and `row`. Returns
 * false if there is no memory. The caller calls stream_free() in any case. */
bool kernel_deflate(const Params *params, const u8 *in, u32 size, int threads, u32 row,
                    Stream *stream);

/* Gives the same stream as kernel_deflate(), but faster if `in` is similar to the input of the
 * reference. The reference must have been made with the same parameters, and its tokens must be
 * sound (tokens_sound()) and belong to its input; otherwise the stream is wrong. The function calls
 * kernel_deflate() if the levels are not 4 to 9, the strategy has no lazy parser, or the inputs
 * differ in size. Returns false if there is no memory. The caller calls stream_free() in any
 * case. */
bool kernel_deflate_delta(const Params *params, const Reference *reference, const u8 *in, u32 size,
                          int threads, u32 row, Stream *stream);

#endif
