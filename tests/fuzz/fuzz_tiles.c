/* Tests tiles and windows with frames of every shape: no access out of bounds, and the results of a
 * plain loop.
 *
 *   tiles    tiles cut out and painted again give the frame; invented places are refused or in
 *            bounds; tiles_flat() finds the flat tiles; equal tiles have equal hashes
 *   windows  each hash is the sum that windows.h defines; windows_find() counts and places those
 *            that a plain loop finds
 *
 * This is a libFuzzer target. Without libFuzzer, standalone.c makes random inputs. See the Makefile
 * here. */
#include "../../fsmount/codec/kernel/png/tiles.h"
#include "../../fsmount/codec/kernel/png/windows.h"
#include "program.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static void check(bool fine)
{
    if (!fine)
        abort();
}

/* ---- Tiles -------------------------------------------------------------------------------- */

/* Copies tile `i` of the frame to `out`, with zeros for the part outside of the frame. */
static void tile_at(const Grid *grid, const u8 *frame, size_t i, u8 *out)
{
    size_t top = i / grid_columns(grid) * TILE_ROWS, left = i % grid_columns(grid) * grid->tile;
    memset(out, 0, TILE_ROWS * grid->tile);
    for (size_t y = 0; y < TILE_ROWS && top + y < grid->height; y++)
        for (size_t x = 0; x < grid->tile && left + x < grid->row; x++)
            out[y * grid->tile + x] = frame[(top + y) * grid->row + left + x];
}

static void cut_and_paint(const Grid *grid, const u8 *frame)
{
    size_t tiles = grid_tiles(grid), tile = TILE_ROWS * grid->tile, bytes = grid->height * grid->row;
    int32_t *index = malloc(tiles * sizeof *index + 1);
    u8 *pixels = calloc(tiles * tile + 1, 1), *one = malloc(tile), *again = malloc(bytes + 1);
    for (size_t i = 0; i < tiles; i++)
        index[i] = (int32_t)(tiles - 1 - i);
    check(tiles_cut(grid, frame, index, pixels, tiles));
    for (size_t i = 0; i < tiles; i++) {
        tile_at(grid, frame, i, one);
        check(memcmp(pixels + (tiles - 1 - i) * tile, one, tile) == 0);
    }
    memset(again, 0xa5, bytes);
    check(tiles_paint(grid, again, index, pixels, tiles));
    check(memcmp(again, frame, bytes) == 0);
    free(again), free(one), free(pixels), free(index);
}

static void made_up_places(Program *program, const Grid *grid, u8 *frame)
{
    size_t tiles = grid_tiles(grid), count = take(program) % 9;
    int32_t *index = malloc(tiles * sizeof *index + 1);
    u8 *pixels = calloc(count * TILE_ROWS * grid->tile + 1, 1);
    bool fits = true;
    for (size_t i = 0; i < tiles; i++) {
        u32 value = take(program);
        index[i] = value < 200 ? (int32_t)(value % 10) - 1 : (int32_t)(value << 24);
        fits = fits && (index[i] < 0 || (size_t)index[i] < count);
    }
    check(tiles_cut(grid, frame, index, pixels, count) == fits);
    check(tiles_paint(grid, frame, index, pixels, count) == fits);
    free(pixels), free(index);
}

static void hashes_and_flats(const Grid *grid, size_t pixel, const u8 *frame)
{
    size_t tiles = grid_tiles(grid), tile = TILE_ROWS * grid->tile;
    u8 *keys = malloc(tile), *hashes = malloc(tiles * 8 + 1), *flat = malloc(tiles + 1);
    u8 *one = malloc(tile), *other = malloc(tile);
    for (size_t i = 0; i < tile; i++)
        keys[i] = noise() | (i % 8 == 0);
    tiles_hash(grid, frame, keys, hashes);
    tiles_flat(grid, frame, flat);
    for (size_t i = 0; i < tiles; i++) {
        size_t top = i / grid_columns(grid) * TILE_ROWS, left = i % grid_columns(grid) * grid->tile;
        const u8 *first = frame + top * grid->row + left;
        bool same = true;
        for (size_t y = top; y < top + TILE_ROWS && y < grid->height; y++)
            for (size_t x = left; x < left + grid->tile && x < grid->row; x += pixel)
                same = same && memcmp(first, frame + y * grid->row + x, pixel) == 0;
        check(flat[i] == same);
        tile_at(grid, frame, i, one);
        tile_at(grid, frame, 0, other);
        check(i == 0 || memcmp(one, other, tile) != 0 || memcmp(hashes, hashes + 8 * i, 8) == 0 ||
              (grid->height - top < TILE_ROWS || grid->row - left < grid->tile));
    }
    free(other), free(one), free(flat), free(hashes), free(keys);
}

/* ---- Windows ------------------------------------------------------------------------------ */

static u32 mixed_pixel(const Pixels *shape, const u8 *at)
{
    u64 packed = 0;
    for (size_t i = 0; i < shape->channels; i++, at += shape->sample) {
        u16 wide = *at;
        if (shape->sample == 2)
            memcpy(&wide, at, 2);
        packed = packed << 8 * shape->sample | wide;
    }
    packed = (packed + 1) * UINT64_C(0xd6e8feb86659fd93);
    packed = (packed ^ packed >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return (u32)(packed >> 32);
}

static int by_number(const void *one, const void *two)
{
    u32 a = *(const u32 *)one, b = *(const u32 *)two;
    return a < b ? -1 : a > b;
}

/* Chooses hashes to look for, some of them of windows; returns their number. At most 40. */
static size_t choose(Program *program, const Windows *windows, u32 *wanted)
{
    size_t count = take(program) % 41, kept = 0;
    for (size_t i = 0; i < count; i++) {
        u32 hash = windows->hashes[take2(program) % (windows->height * windows->width)];
        u32 change = take(program);
        wanted[i] = change < 160 ? hash : change < 200 ? hash ^ change : hash ^ change << 16;
    }
    qsort(wanted, count, sizeof *wanted, by_number);
    for (size_t i = 0; i < count; i++)
        if (!kept || wanted[kept - 1] != wanted[i])
            wanted[kept++] = wanted[i];
    return kept;
}

static void find(Program *program, const Windows *windows)
{
    size_t rows = (windows->height + 2 * WINDOW - 2) / WINDOW;
    size_t columns = (windows->width + 2 * WINDOW - 2) / WINDOW;
    u32 chosen[40];
    size_t count = choose(program, windows, chosen), most = 1 + take(program) % 5;
    u32 *wanted = malloc(count * sizeof *wanted + !count);
    u32 *counts = calloc(count + !count, sizeof *counts);
    u32 *places = calloc(count * most + !count, sizeof *places);
    u8 *coded = malloc(rows * columns);
    memcpy(wanted, chosen, count * sizeof *wanted);
    u32 few = take(program);
    for (size_t i = 0; i < rows * columns; i++)
        coded[i] = noise() >= few;
    Windows all = {windows->hashes, windows->height, windows->width, coded};
    windows_find(&all, wanted, count, most, counts, places);
    for (size_t i = 0; i < count; i++) {
        u32 seen = 0;
        for (size_t y = 0; y < all.height; y++)
            for (size_t x = 0; x < all.width; x++) {
                bool counts_here = all.hashes[y * all.width + x] == wanted[i];
                for (size_t down = 0; down < WINDOW; down += WINDOW - 1)
                    for (size_t right = 0; right < WINDOW; right += WINDOW - 1)
                        counts_here = counts_here && coded[(y + down) / WINDOW * columns +
                                                           (x + right) / WINDOW];
                if (counts_here && seen++ < most)
                    check(places[i * most + seen - 1] == y * all.width + x);
            }
        check(counts[i] == seen);
    }
    free(coded), free(places), free(counts), free(wanted);
}

static void windows(Program *program, const Pixels *shape, const u8 *pixels)
{
    size_t columns = shape->width - WINDOW + 1, rows = shape->height - WINDOW + 1;
    size_t pixel = shape->channels * shape->sample;
    u32 *hashes = malloc(rows * columns * sizeof *hashes);
    check(windows_hash(shape, pixels, hashes));
    for (size_t at = 0; at < rows * columns; at++) {
        u32 sum = 0;
        for (size_t y = WINDOW; y-- > 0;) {
            u32 line = 0;
            for (size_t x = WINDOW; x-- > 0;) {
                size_t place = (at / columns + y) * shape->width + at % columns + x;
                line = line * 0x9e3779b1u + mixed_pixel(shape, pixels + place * pixel);
            }
            sum = sum * 0xd192ed03u + line;
        }
        check(hashes[at] == sum);
    }
    find(program, &(Windows){hashes, rows, columns, NULL});
    free(hashes);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    Program program = {data, data + size}, places = take_end(&program);
    noise_state = (u32)size;
    size_t sample = 1 + take(&program) % 2, channels = 1 + take(&program) % 4;
    size_t pixel = sample * channels, width = 1 + take(&program) % 80;
    size_t height = 1 + take(&program) % 80, bytes = height * width * pixel;
    u8 *room = malloc(bytes);
    u32 built = build_into(&program, room, (u32)bytes);
    for (size_t i = built; i < bytes; i++)
        room[i] = built ? room[i - built] : 0;
    u8 *frame = exact(room, bytes);
    free(room);
    Grid grid = {height, width * pixel, TILE_ROWS * pixel};
    Pixels shape = {height, width, channels, sample};
    cut_and_paint(&grid, frame);
    hashes_and_flats(&grid, pixel, frame);
    if (width >= WINDOW && height >= WINDOW)
        windows(&places, &shape, frame);
    made_up_places(&places, &grid, frame);
    free(frame);
    return 0;
}
