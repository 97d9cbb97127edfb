/* Finds the deflateInit2() parameters that made a stream, from its tokens and blocks. */
#ifndef FSMOUNT_KERNEL_IDENTIFY_H
#define FSMOUNT_KERNEL_IDENTIFY_H

#include "inflate.h"
#include "rules.h"

enum { MOST_CANDIDATES = 32 };

/* Writes to `found` the parameters that predict the tokens of `body` within the first `limit` bytes
 * of its input `raw` and that allow its blocks, likeliest first. Returns their number: 0 also if
 * `body` is not a stream of `raw`; -1 if there is no memory. Only kernel_deflate() can tell whether
 * parameters make the whole stream. Where several parameters give the same result (the level with
 * Z_RLE, a window larger than the input), `found` has only one of them. */
int identify(const u8 *body, size_t body_size, const u8 *raw, u32 size, u32 limit,
             Params found[MOST_CANDIDATES]);

#endif
