/* Hashes of all 16 x 16 windows of a frame, for finding what has moved (fsmount/codec/delta/moves.py). */
#ifndef FSMOUNT_KERNEL_WINDOWS_H
#define FSMOUNT_KERNEL_WINDOWS_H

#include "../common.h"

enum { WINDOW = 16 };

/* Rows of pixels of `channels` samples of `sample` bytes (1 or 2), without gaps. */
typedef struct {
    size_t height, width, channels, sample;
} Pixels;

/* The hash of the window at each place where one fits: (height - 15) rows of (width - 15).
 *
 * It is the sum of the window's pixels, each mixed to 32 bits, times one number to the power of its
 * row and another to that of its column, mod 2^32. False: no memory. */
bool windows_hash(const Pixels *shape, const u8 *pixels, u32 *hashes);

#endif
