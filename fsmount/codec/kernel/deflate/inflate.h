/* Reads deflate streams (RFC 1951): to tokens if the input is known, else to the input. */
#ifndef FSMOUNT_KERNEL_INFLATE_H
#define FSMOUNT_KERNEL_INFLATE_H

#include "../common.h"
#include "emit.h"
#include "tokens.h"

/* A block of a stream that inflate_tokens() has read. */
typedef struct {
    u32 start, end; /* the input that it covers, as positions */
    u32 symbols;    /* number of literals and matches; 0 for a stored block */
    BlockKind kind;
    bool last;
} SeenBlock;

typedef struct {
    Tokens tokens;  /* the bytes of stored blocks are literals */
    SeenBlock *blocks;
    size_t count, room;
} Seen;

typedef enum { SEEN, NOT_SEEN, SEEN_NO_MEMORY } SeenResult;

/* Reads the tokens and blocks of the stream `body` of the input `raw`. Returns NOT_SEEN if `body`
 * is not a stream of exactly this input, if bytes follow the stream, or if a match reaches back
 * farther than zlib's do (32768 - WINDOW_RESERVE bytes). The caller calls seen_free() in any
 * case. */
SeenResult inflate_tokens(const u8 *body, size_t body_size, const u8 *raw, u32 size, Seen *seen);

/* Frees the tokens and blocks. */
void seen_free(Seen *seen);

/* INFLATE_DAMAGED: no deflate stream. INFLATE_TOO_MUCH: the stream holds more than `size` bytes.
 * INFLATE_TRUNCATED: the stream ends too early, or holds fewer than `size` bytes. */
typedef enum { INFLATED, INFLATE_DAMAGED, INFLATE_TOO_MUCH, INFLATE_TRUNCATED } InflateResult;

/* Inflates the stream at the start of `body` into `out`. It must hold exactly `size` bytes. On
 * INFLATED sets `used` to the length of the stream in bytes, which may be less than `body_size`.
 * Otherwise `out` and `used` hold no meaningful values. */
InflateResult inflate_bytes(const u8 *body, size_t body_size, u8 *out, u32 size, size_t *used);

#endif
