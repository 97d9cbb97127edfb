#include "tiles.h"

/* The part of a tile that lies inside its frame: the offset `at` of its first byte in the frame,
 * its height in rows and its width in bytes. */
typedef struct {
    size_t at, rows, width;
} Place;

static Place place_of(const Grid *grid, size_t down, size_t across)
{
    size_t top = down * TILE_ROWS, left = across * grid->tile;
    Place place = {top * grid->row + left, grid->height - top, grid->row - left};
    if (place.rows > TILE_ROWS)
        place.rows = TILE_ROWS;
    if (place.width > grid->tile)
        place.width = grid->tile;
    return place;
}

static void paint(const Grid *grid, Place place, u8 *frame, const u8 *from)
{
    u8 *to = frame + place.at;
    for (size_t y = 0; y < place.rows; y++, to += grid->row, from += grid->tile) {
        if (place.width == 48) /* RGB: a constant size, which the compiler turns into three moves */
            memcpy(to, from, 48);
        else
            memcpy(to, from, place.width);
    }
}

bool tiles_paint(const Grid *grid, u8 *frame, const int32_t *index, const u8 *pixels, size_t count)
{
    size_t columns = grid_columns(grid), tiles = grid_tiles(grid);
    for (size_t i = 0; i < tiles; i++) {
        int32_t wanted = index[i];
        if (wanted < 0)
            continue;
        if ((size_t)wanted >= count)
            return false;
        paint(grid, place_of(grid, i / columns, i % columns), frame,
              pixels + (size_t)wanted * TILE_ROWS * grid->tile);
    }
    return true;
}

bool tiles_cut(const Grid *grid, const u8 *frame, const int32_t *index, u8 *pixels, size_t count)
{
    size_t columns = grid_columns(grid), tiles = grid_tiles(grid);
    for (size_t i = 0; i < tiles; i++) {
        int32_t wanted = index[i];
        if (wanted < 0)
            continue;
        if ((size_t)wanted >= count)
            return false;
        Place place = place_of(grid, i / columns, i % columns);
        const u8 *from = frame + place.at;
        u8 *to = pixels + (size_t)wanted * TILE_ROWS * grid->tile;
        for (size_t y = 0; y < place.rows; y++, from += grid->row, to += grid->tile)
            memcpy(to, from, place.width);
    }
    return true;
}

/* Hash of eight bytes of a tile. The hash of a tile is the sum of these, folded once. */
static inline u64 mixed(u64 word, u64 key)
{
    word ^= word >> 32;
    word *= 0x9e3779b97f4a7c15u;
    return (word ^ word >> 29) * key;
}

static u64 hash(const Grid *grid, Place place, const u8 *frame, const u8 *keys)
{
    const u8 *row = frame + place.at;
    u64 total = 0, word, key;
    for (size_t y = 0; y < place.rows; y++, row += grid->row) {
        const u8 *row_keys = keys + y * grid->tile;
        for (size_t x = 0; x < place.width; x += sizeof word) {
            size_t rest = place.width - x;
            word = 0;
            memcpy(&word, row + x, rest < sizeof word ? rest : sizeof word);
            memcpy(&key, row_keys + x, sizeof key);
            total += mixed(word, key);
        }
    }
    return total ^ total >> 32;
}

void tiles_hash(const Grid *grid, const u8 *frame, const u8 *keys, u8 *hashes)
{
    size_t columns = grid_columns(grid), tiles = grid_tiles(grid);
    for (size_t i = 0; i < tiles; i++) {
        u64 found = hash(grid, place_of(grid, i / columns, i % columns), frame, keys);
        memcpy(hashes + i * sizeof found, &found, sizeof found);
    }
}

void tiles_flat(const Grid *grid, const u8 *frame, u8 *flat)
{
    size_t columns = grid_columns(grid), tiles = grid_tiles(grid), pixel = grid->tile / TILE_ROWS;
    for (size_t i = 0; i < tiles; i++) {
        Place place = place_of(grid, i / columns, i % columns);
        const u8 *first = frame + place.at;
        /* All pixels of the first row are equal if the row equals itself shifted by one pixel.
         * Every other row must equal the first. */
        bool same = memcmp(first, first + pixel, place.width - pixel) == 0;
        for (size_t y = 1; y < place.rows && same; y++)
            same = memcmp(first, first + y * grid->row, place.width) == 0;
        flat[i] = same;
    }
}
