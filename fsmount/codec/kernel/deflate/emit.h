/* Turns tokens into bits: decides where blocks end and which kind each block is, and writes
 * them. */
#ifndef FSMOUNT_KERNEL_EMIT_H
#define FSMOUNT_KERNEL_EMIT_H

#include "../common.h"
#include "rules.h"

/* The values are those of BTYPE (RFC 1951 section 3.2.3). */
typedef enum { BLOCK_STORED, BLOCK_FIXED, BLOCK_DYNAMIC } BlockKind;

/* One block of the stream. Its symbols begin in the token word number `token`. The first `skip`
 * literals of that word belong to earlier blocks. */
typedef struct {
    size_t token;
    u32 skip;
    u32 start, end;  /* the input that it covers, as positions */
    u32 step;        /* position at which the parser's step began that closed the block */
    bool last;
    BlockKind kind;
    u64 bits;        /* length in bits, without the padding of a stored block */
    u64 offset;      /* position of its first bit in the stream, in bits */
} Block;

typedef struct {
    Block *blocks;
    size_t count;
} Blocks;

/* Appends the blocks that zlib would make of these `count` token words to `blocks`, which must be
 * zeros. `size` is the length of the input. Does not set `kind`, `bits` and `offset`. Returns false
 * if there is no memory. The caller frees `blocks->blocks` in any case. */
bool blocks_split(const Rules *rules, const u32 *words, size_t count, u32 size, Blocks *blocks);

/* A finished stream. emit() copies unchanged blocks from it. */
typedef struct {
    const u8 *body;
    u64 size; /* of the body, in bytes */
    const Block *blocks;
    size_t count; /* of the blocks */
} OldStream;

/* What emit() needs: the input, its tokens and blocks, and maybe an old stream. */
typedef struct {
    const Rules *rules;
    const u8 *in;
    u32 size;
    const u32 *words;
    Blocks blocks;
    const OldStream *old;  /* NULL, or the stream of the reference */
    const u32 *kept;       /* pairs (start, end): positions with the reference's tokens and bytes */
    size_t kept_count;     /* of the pairs */
    int threads;           /* 1 to MOST_THREADS */
} EmitJob;

/* Fills the tables that all calls share. Call it once, before any other function of this file. */
void emit_prepare(void);

/* Writes the stream of the job's tokens, and sets `kind`, `bits` and `offset` of its blocks. On
 * success sets `body` and `body_size` (bytes) and returns true; the caller frees `body`. Returns
 * false if there is no memory. */
bool emit(EmitJob *job, u8 **body, size_t *body_size);

/* Writes the stream of level 0: stored blocks of 65535 bytes and the rest. zlib's deflate_stored()
 * writes these when one deflate() call gets all the input and enough space for all the output. On
 * success sets `body` and `body_size` (bytes) and returns true; the caller frees `body`. Returns
 * false if there is no memory. */
bool emit_stored(const u8 *in, u32 size, u8 **body, size_t *body_size);

#endif
