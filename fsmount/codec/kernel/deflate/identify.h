/* Which parameters made a stream, told from its tokens. */
#ifndef FSMOUNT_KERNEL_IDENTIFY_H
#define FSMOUNT_KERNEL_IDENTIFY_H

#include "inflate.h"
#include "rules.h"

enum { MOST_CANDIDATES = 32 };

/* Parameters that predict the tokens of `body` within the first `limit` bytes of its input `raw`,
 * and fit its blocks; likeliest first. Whether they make the whole stream only kernel_deflate()
 * can tell. Returns their number, -1: no memory. Of parameters that cannot make a difference (the
 * level of Z_RLE, a window larger than the input) one stands for all. */
int identify(const u8 *body, size_t body_size, const u8 *raw, u32 size, u32 limit,
             Params found[MOST_CANDIDATES]);

#endif
