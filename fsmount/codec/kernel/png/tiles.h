/* Frames as tiles of 16 x 16 pixels, less at the right and lower edge. */
#ifndef FSMOUNT_KERNEL_TILES_H
#define FSMOUNT_KERNEL_TILES_H

#include "../common.h"

enum { TILE_ROWS = 16 };

/* A frame of `height` rows of `row` bytes, in tiles `tile` bytes wide, a multiple of 8. */
typedef struct {
    size_t height, row, tile;
} Grid;

static inline size_t grid_columns(const Grid *grid)
{
    return (grid->row + grid->tile - 1) / grid->tile;
}

static inline size_t grid_tiles(const Grid *grid)
{
    return (grid->height + TILE_ROWS - 1) / TILE_ROWS * grid_columns(grid);
}

/* Copies tile `index` of the `count` in `pixels` to each place of the frame, none where it is
 * negative. False: there is no such tile. */
bool tiles_paint(const Grid *grid, u8 *frame, const int32_t *index, const u8 *pixels, size_t count);

/* The way back: copies each place of the frame to tile `index` of the `count` in `pixels`, which are
 * zeros beforehand. False: there is no such tile. */
bool tiles_cut(const Grid *grid, const u8 *frame, const int32_t *index, u8 *pixels, size_t count);

/* A 64-bit hash of each tile, in the machine's byte order; a key for each eight bytes of a tile. */
void tiles_hash(const Grid *grid, const u8 *frame, const u8 *keys, u8 *hashes);

/* 1 for each tile whose pixels are all alike. */
void tiles_flat(const Grid *grid, const u8 *frame, u8 *flat);

#endif
