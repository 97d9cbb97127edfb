/* From tokens to bits: where blocks end, which kind each becomes, and writing them. */
#ifndef FSMOUNT_KERNEL_EMIT_H
#define FSMOUNT_KERNEL_EMIT_H

#include "../common.h"
#include "rules.h"

typedef enum { BLOCK_STORED, BLOCK_FIXED, BLOCK_DYNAMIC } BlockKind;

/* One block of the stream. Its symbols begin in the word `token`, of whose literals the first
 * `skip` belong to earlier blocks. */
typedef struct {
    size_t token;
    u32 skip;
    u32 start, end;  /* the input it covers */
    u32 step;        /* where the parser's step began that closed it */
    bool last;
    BlockKind kind;
    u64 bits;        /* length without the padding of a stored block */
    u64 offset;      /* where in the stream it begins, in bits */
} Block;

typedef struct {
    Block *blocks;
    size_t count;
} Blocks;

/* The blocks zlib would make of these tokens; `kind` and after are left open. False: no memory. */
bool blocks_split(const Rules *rules, const u32 *words, size_t count, u32 size, Blocks *blocks);

/* A finished stream that may lend its bits to unchanged blocks. */
typedef struct {
    const u8 *body;
    u64 size; /* bytes */
    const Block *blocks;
    size_t count;
} OldStream;

typedef struct {
    const Rules *rules;
    const u8 *in;
    u32 size;
    const u32 *words;
    Blocks blocks;
    const OldStream *old;  /* NULL, or the reference's stream */
    const u32 *kept;       /* pairs (start, end): input whose tokens and bytes are the old ones */
    size_t kept_count;
    int threads;
} EmitJob;

/* Fills the tables that all calls share; to be called once, before anything else. */
void emit_prepare(void);

/* Writes the stream. On success sets `body` (to be freed) and its size in bytes. */
bool emit(EmitJob *job, u8 **body, size_t *body_size);

/* Level 0: stored blocks as large as they can be, what deflate() writes when it gets all input and
 * all the room for output at once. */
bool emit_stored(const u8 *in, u32 size, u8 **body, size_t *body_size);

#endif
