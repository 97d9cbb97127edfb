#include "windows.h"

/* Factors for one row down and one column to the right. Both are odd and so have inverses modulo
 * 2^32. The code uses these to compute the sum of a window from that of its neighbour. */
static const u32 DOWN = 0xd192ed03, RIGHT = 0x9e3779b1;
static const u64 MIX = 0xd6e8feb86659fd93;

/* Returns the inverse of an odd number modulo 2^32 (Newton's method). */
static u32 inverse(u32 odd)
{
    u32 found = odd; /* its lowest 3 bits are right; each step doubles the number of right bits */
    for (int i = 0; i < 4; i++)
        found *= 2 - odd * found;
    return found;
}

static u32 power(u32 factor, unsigned exponent)
{
    u32 value = 1;
    while (exponent--)
        value *= factor;
    return value;
}

static u32 mixed(u64 packed)
{
    packed = (packed + 1) * MIX;
    packed = (packed ^ packed >> 32) * MIX;
    return (u32)(packed >> 32);
}

/* Does what mix_row() says. For a call with constants as `channels` and `sample` the compiler makes
 * a loop for that kind of pixel alone. */
static inline void mix_pixels(const u8 *row, size_t width, size_t channels, size_t sample,
                              u32 *numbers)
{
    for (size_t x = 0; x < width; x++) {
        u64 packed = 0;
        for (size_t i = 0; i < channels; i++, row += sample) {
            u16 wide = *row;
            if (sample == 2)
                memcpy(&wide, row, sizeof wide);
            packed = packed << 8 * sample | wide;
        }
        numbers[x] = mixed(packed);
    }
}

/* Computes a 32-bit number for each pixel of a row: joins the samples of the pixel and mixes
 * them. */
static void mix_row(const Pixels *shape, const u8 *row, u32 *numbers)
{
    if (shape->channels == 3 && shape->sample == 1)
        mix_pixels(row, shape->width, 3, 1, numbers);
    else if (shape->channels == 4 && shape->sample == 1)
        mix_pixels(row, shape->width, 4, 1, numbers);
    else
        mix_pixels(row, shape->width, shape->channels, shape->sample, numbers);
}

/* Computes `count` sums. Each adds up WINDOW neighbouring numbers times powers of RIGHT. */
static void along(const u32 *numbers, size_t count, u32 *sums)
{
    u32 back = inverse(RIGHT), last = power(RIGHT, WINDOW - 1), sum = 0;
    for (unsigned i = WINDOW; i-- > 0;)
        sum = sum * RIGHT + numbers[i];
    sums[0] = sum;
    for (size_t x = 1; x < count; x++) {
        sum = (sum - numbers[x - 1]) * back + numbers[x + WINDOW - 1] * last;
        sums[x] = sum;
    }
}

bool windows_hash(const Pixels *shape, const u8 *pixels, u32 *hashes)
{
    size_t count = shape->width - WINDOW + 1;
    size_t row_bytes = shape->width * shape->channels * shape->sample;
    /* Three parts: the sums along the row for the newest WINDOW rows (`memory`, a ring), the sums
     * of the windows (`windows`), and the numbers of the pixels of one row (`numbers`). */
    u32 *memory = calloc((WINDOW + 1) * count + shape->width, sizeof *memory);
    if (!memory)
        return false;
    u32 *windows = memory + WINDOW * count, *numbers = windows + count;
    u32 back = inverse(DOWN), last = power(DOWN, WINDOW - 1);
    for (size_t y = 0; y < shape->height; y++) {
        /* `line` still holds row y - WINDOW, which leaves the windows now. It holds zeros for the
         * first WINDOW rows. */
        u32 *line = memory + y % WINDOW * count;
        for (size_t x = 0; x < count; x++)
            windows[x] = (windows[x] - line[x]) * back;
        mix_row(shape, pixels + y * row_bytes, numbers);
        along(numbers, count, line);
        for (size_t x = 0; x < count; x++)
            windows[x] += line[x] * last;
        if (y + 1 >= WINDOW)
            memcpy(hashes + (y + 1 - WINDOW) * count, windows, count * sizeof *windows);
    }
    free(memory);
    return true;
}

/* Returns the place of a hash in `wanted`, or `count` if it is not there. */
static size_t place_of(u32 hash, const u32 *wanted, size_t count)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (wanted[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && wanted[low] == hash ? low : count;
}

/* Returns whether all tiles that the window at (y, x) touches are coded. */
static bool is_coded(const Windows *windows, size_t y, size_t x)
{
    size_t columns = (windows->width + 2 * WINDOW - 2) / WINDOW;
    size_t right = (x + WINDOW - 1) / WINDOW;
    const u8 *upper = windows->coded + y / WINDOW * columns;
    const u8 *lower = windows->coded + (y + WINDOW - 1) / WINDOW * columns;
    return upper[x / WINDOW] && upper[right] && lower[x / WINDOW] && lower[right];
}

void windows_find(const Windows *windows, const u32 *wanted, size_t count, size_t most, u32 *counts,
                  u32 *places)
{
    /* A bit for each upper half of a wanted hash. Most windows are not wanted, and this shows it
     * without a search. */
    u32 halves[(1 << 16) / 32] = {0};
    for (size_t i = 0; i < count; i++)
        halves[wanted[i] >> 21] |= (u32)1 << (wanted[i] >> 16 & 31);
    for (size_t y = 0; y < windows->height; y++) {
        const u32 *line = windows->hashes + y * windows->width;
        for (size_t x = 0; x < windows->width; x++) {
            u32 hash = line[x];
            if (!(halves[hash >> 21] >> (hash >> 16 & 31) & 1))
                continue;
            size_t found = place_of(hash, wanted, count);
            if (found == count || !is_coded(windows, y, x))
                continue;
            u32 before = counts[found]++;
            if (before < most)
                places[found * most + before] = (u32)(y * windows->width + x);
        }
    }
}
