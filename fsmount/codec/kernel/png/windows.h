/* Hashes of all 16 x 16 pixel windows of a frame. fsmount/codec/delta/moves.py uses them to find
 * areas that moved between two frames. */
#ifndef FSMOUNT_KERNEL_WINDOWS_H
#define FSMOUNT_KERNEL_WINDOWS_H

#include "../common.h"

enum { WINDOW = 16 };

/* `height` rows of `width` pixels without gaps. A pixel has `channels` samples (1 to 4) of `sample`
 * bytes (1 or 2). */
typedef struct {
    size_t height, width, channels, sample;
} Pixels;

/* Writes the hash of every window that fits into the frame to `hashes`: (height - 15) rows of
 * (width - 15) numbers. Height and width must be at least 16.
 *
 * The hash is a sum over the pixels of the window, modulo 2^32. Each pixel is mixed to a 32-bit
 * number and multiplied by DOWN to the power of its row and by RIGHT to the power of its column
 * (windows.c). Returns false if there is no memory. */
bool windows_hash(const Pixels *shape, const u8 *pixels, u32 *hashes);

/* Hashes of the windows of a frame as windows_hash() writes them, and the tiles of 16 x 16 pixels
 * that count: `coded` has a byte for each tile that touches the frame, in rows. */
typedef struct {
    const u32 *hashes;
    size_t height, width; /* numbers of windows */
    const u8 *coded;
} Windows;

/* Looks for `count` hashes, `wanted`, in ascending order without repetition. Only windows whose
 * tiles are all coded count. Adds the number of windows with each hash to `counts`, which holds
 * zeros, and writes the places (row * width + column) of the first `most` of each to `places`:
 * `count` rows of `most` numbers. */
void windows_find(const Windows *windows, const u32 *wanted, size_t count, size_t most, u32 *counts,
                  u32 *places);

#endif
