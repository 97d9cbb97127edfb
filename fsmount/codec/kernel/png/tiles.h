/* Cuts frames into tiles of 16 x 16 pixels and puts them together again. Tiles at the right and
 * lower edge may be smaller. */
#ifndef FSMOUNT_KERNEL_TILES_H
#define FSMOUNT_KERNEL_TILES_H

#include "../common.h"

enum { TILE_ROWS = 16 };

/* A frame of `height` rows of `row` bytes. Its tiles are TILE_ROWS rows high and `tile` bytes wide,
 * a multiple of 8. In buffers of tiles, each tile takes TILE_ROWS * tile bytes, also at the edges.
 * Tiles are numbered row by row from the upper left. */
typedef struct {
    size_t height, row, tile;
} Grid;

/* Returns the number of tiles in a row of tiles. */
static inline size_t grid_columns(const Grid *grid)
{
    return (grid->row + grid->tile - 1) / grid->tile;
}

/* Returns the number of tiles in the frame. */
static inline size_t grid_tiles(const Grid *grid)
{
    return (grid->height + TILE_ROWS - 1) / TILE_ROWS * grid_columns(grid);
}

/* Copies tiles from `pixels` into the frame. `pixels` has `count` tiles. `index` has grid_tiles()
 * entries: which tile of `pixels` goes to that place of the frame; negative: leave the place as it
 * is. Returns false at the first entry that is `count` or more; the frame is then incomplete. */
bool tiles_paint(const Grid *grid, u8 *frame, const int32_t *index, const u8 *pixels, size_t count);

/* The reverse of tiles_paint(): copies each place of the frame to the tile of `pixels` that `index`
 * names; negative: skip the place. It does not write the part of a tile that lies outside of the
 * frame, so the caller fills `pixels` with zeros first. Returns false at the first entry that is
 * `count` or more; `pixels` is then incomplete. */
bool tiles_cut(const Grid *grid, const u8 *frame, const int32_t *index, u8 *pixels, size_t count);

/* Writes a 64-bit hash of each tile to `hashes` (8 bytes a tile, in the machine's byte order).
 * `keys` has TILE_ROWS * tile bytes: a 64-bit key for each eight bytes of a tile. Python defines
 * the hash (fsmount/codec/delta/delta.py, signatures). */
void tiles_hash(const Grid *grid, const u8 *frame, const u8 *keys, u8 *hashes);

/* Sets `flat[i]` to 1 if all pixels of tile i are equal, else to 0. A pixel has tile / TILE_ROWS
 * bytes, and `row` must be a multiple of that. */
void tiles_flat(const Grid *grid, const u8 *frame, u8 *flat);

#endif
