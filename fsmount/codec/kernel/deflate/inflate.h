/* A deflate stream back to its tokens (RFC 1951) where its input is known, or else to its input. */
#ifndef FSMOUNT_KERNEL_INFLATE_H
#define FSMOUNT_KERNEL_INFLATE_H

#include "../common.h"
#include "emit.h"
#include "tokens.h"

typedef struct {
    u32 start, end; /* the input it covers */
    u32 symbols;    /* literals and matches; 0 for a stored block */
    BlockKind kind;
    bool last;
} SeenBlock;

typedef struct {
    Tokens tokens;  /* stored blocks count as literals */
    SeenBlock *blocks;
    size_t count, room;
} Seen;

typedef enum { SEEN, NOT_SEEN, SEEN_NO_MEMORY } SeenResult;

/* Reads the stream `body` of the input `raw`. NOT_SEEN when it is none, is longer or shorter, or
 * reaches back farther than zlib does. `seen` is to be freed in any case. */
SeenResult inflate_tokens(const u8 *body, size_t body_size, const u8 *raw, u32 size, Seen *seen);
void seen_free(Seen *seen);

typedef enum { INFLATED, INFLATE_DAMAGED, INFLATE_TOO_MUCH, INFLATE_TRUNCATED } InflateResult;

/* Inflates the stream at the start of `body` into exactly `size` bytes at `out`; `used` says where
 * it ends. INFLATE_TOO_MUCH: it holds more. */
InflateResult inflate_bytes(const u8 *body, size_t body_size, u8 *out, u32 size, size_t *used);

#endif
