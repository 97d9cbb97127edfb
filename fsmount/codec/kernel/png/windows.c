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

/* Computes a 32-bit number for each pixel of a row: joins the samples of the pixel and mixes
 * them. */
static void mix_row(const Pixels *shape, const u8 *row, u32 *numbers)
{
    for (size_t x = 0; x < shape->width; x++) {
        u64 packed = 0;
        for (size_t i = 0; i < shape->channels; i++, row += shape->sample) {
            u16 wide = *row;
            if (shape->sample == 2)
                memcpy(&wide, row, sizeof wide);
            packed = packed << 8 * shape->sample | wide;
        }
        numbers[x] = mixed(packed);
    }
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
