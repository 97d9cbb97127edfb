/* The kernel's calls: exactly the bytes of classic zlib (1.2.12 and later), without zlib. */
#ifndef FSMOUNT_KERNEL_KERNEL_H
#define FSMOUNT_KERNEL_KERNEL_H

#include "emit.h"
#include "rules.h"
#include "tokens.h"

/* A finished stream and what made it. */
typedef struct {
    Params params;
    u32 size;       /* of the input */
    u8 *body;
    size_t body_size;
    Tokens tokens;
    Blocks blocks;
} Stream;

/* A stream as reference: its input, and what was kept of the rest. */
typedef struct {
    const u8 *in;
    u32 size;
    const u32 *words;
    size_t count;
    OldStream stream; /* `body` NULL: not at hand */
} Reference;

/* To be called once, before anything else. `seed`: any number, best one nobody can guess; it does
 * not change a byte of any result. */
void kernel_prepare(u64 seed);

void stream_free(Stream *stream);

/* Compresses `in`. Rows of `row` bytes (0: unknown) are where it is cut for `threads`. False: no
 * memory. */
bool kernel_deflate(const Params *params, const u8 *in, u32 size, int threads, u32 row,
                    Stream *stream);

/* The same stream, made from a reference with the same parameters. Falls back to kernel_deflate()
 * where parameters or sizes do not allow it. */
bool kernel_deflate_delta(const Params *params, const Reference *reference, const u8 *in, u32 size,
                          int threads, u32 row, Stream *stream);

#endif
