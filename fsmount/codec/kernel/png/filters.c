#include "filters.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Names are those of the specification: x is the byte, a the same byte of the pixel to the left, b
 * that of the pixel above, c that of the pixel above left. Bytes outside of the picture count as 0.
 * The first row therefore has a row of zeros above it, and loops treat the first pixel of a row
 * separately. */

static inline u8 average(u8 a, u8 b) { return (u8)((a + b) >> 1); }

/* The Paeth predictor (PNG specification section 9.4), computed without absolute values so that
 * compilers make vector code of it. Let t = 3c - a - b. The result is
 *     the smaller of a and b   if the larger one is at most t
 *     the larger of a and b    if the smaller one is at least t
 *     c                        otherwise. */
static inline u8 paeth(u8 a, u8 b, u8 c)
{
    int16_t low = a < b ? a : b, high = a < b ? b : a, t = (int16_t)(3 * c - a - b);
    int16_t choice = t <= low ? high : c;
    return (u8)(high <= t ? low : choice);
}

/* ---- Applying ---------------------------------------------------------------------------- */

/* Filters one row of `size` bytes into `out`. Behind the first pixel every byte has all three
 * neighbours, and no loop writes to memory that it reads (`restrict`), so the compiler makes vector
 * code of these loops. */
static void filter_row(u32 type, const u8 *restrict row, const u8 *restrict above, size_t size,
                       size_t pixel, u8 *restrict out)
{
    size_t first = min32((u32)pixel, (u32)size);
    switch (type) {
    case FILTER_NONE:
        memcpy(out, row, size);
        break;
    case FILTER_SUB:
        memcpy(out, row, first);
        for (size_t i = first; i < size; i++)
            out[i] = (u8)(row[i] - row[i - pixel]);
        break;
    case FILTER_UP:
        for (size_t i = 0; i < size; i++)
            out[i] = (u8)(row[i] - above[i]);
        break;
    case FILTER_AVERAGE:
        for (size_t i = 0; i < first; i++)
            out[i] = (u8)(row[i] - average(0, above[i]));
        for (size_t i = first; i < size; i++)
            out[i] = (u8)(row[i] - average(row[i - pixel], above[i]));
        break;
    default:
        for (size_t i = 0; i < first; i++)
            out[i] = (u8)(row[i] - above[i]);
        for (size_t i = first; i < size; i++)
            out[i] = (u8)(row[i] - paeth(row[i - pixel], above[i], above[i - pixel]));
    }
}

/* Writes the `size` bytes of a row with its alpha to `out`. `row` lacks the alpha bytes. Callers
 * pass constants for the first two arguments where speed matters, and the compiler inlines the
 * call. */
static inline void put_opaque(size_t pixel, size_t alpha, const u8 *row, size_t size, u8 *out)
{
    for (size_t i = 0; i + pixel <= size; i += pixel, row += pixel - alpha) {
        for (size_t k = 0; k < pixel - alpha; k++)
            out[i + k] = row[k];
        for (size_t k = pixel - alpha; k < pixel; k++)
            out[i + k] = 255;
    }
}

static void opaque_row(size_t pixel, size_t alpha, const u8 *row, size_t size, u8 *out)
{
    if (pixel == 4 && alpha == 1)
        put_opaque(4, 1, row, size, out);
    else
        put_opaque(pixel, alpha, row, size, out);
}

bool filters_apply(const Rows *shape, size_t alpha, const u8 *rows, const u8 *types, u8 *out)
{
    /* `spare` is the row of zeros above the first row. With `alpha`, two rows in it alternate as
     * the row with alpha and the row above. */
    size_t size = shape->size, step = size / shape->pixel * (shape->pixel - alpha);
    u8 *spare = calloc(alpha ? 2 : 1, size);
    const u8 *above = spare;
    if (!spare)
        return false;
    for (size_t y = 0; y < shape->height; y++) {
        const u8 *row = rows + y * step;
        if (alpha) {
            u8 *whole = spare + (y & 1 ? 0 : size);
            opaque_row(shape->pixel, alpha, row, size, whole);
            row = whole;
        }
        *out = types[y];
        filter_row(types[y], row, above, size, shape->pixel, out + 1);
        out += 1 + size;
        above = row;
    }
    free(spare);
    return true;
}

/* ---- Undoing ----------------------------------------------------------------------------- */

static inline void undo_sub(const u8 *line, u8 *row, size_t size, size_t pixel)
{
    memcpy(row, line, min32((u32)pixel, (u32)size));
    for (size_t i = pixel; i < size; i++)
        row[i] = (u8)(line[i] + row[i - pixel]);
}

static inline void undo_average(const u8 *line, const u8 *above, u8 *row, size_t size, size_t pixel)
{
    u8 left[8] = {0};
    for (size_t i = 0; i + pixel <= size; i += pixel)
        for (size_t k = 0; k < pixel; k++)
            row[i + k] = left[k] = (u8)(line[i + k] + average(left[k], above[i + k]));
}

/* Undoes Paeth for pixels of three and four bytes, all bytes of a pixel at once: each is a lane of 16
 * bits. A pixel of three bytes comes with the first byte of the next one, in a lane that affects no
 * other; what it gives is overwritten. Stops where less than four bytes are left. Returns the number
 * of bytes undone. Other processors undo nothing here. */
#if defined(__SSE2__)
static inline __m128i four_lanes(const u8 *at)
{
    int bytes;
    memcpy(&bytes, at, sizeof bytes);
    return _mm_unpacklo_epi8(_mm_cvtsi32_si128(bytes), _mm_setzero_si128());
}

static inline size_t undo_paeth_lanes(const u8 *line, const u8 *above, u8 *row, size_t size,
                                      size_t pixel)
{
    __m128i a = _mm_setzero_si128(), c = a;
    size_t i = 0;
    for (; i + 4 <= size; i += pixel) {
        __m128i b = four_lanes(above + i);
        __m128i low = _mm_min_epi16(a, b), high = _mm_max_epi16(a, b);
        __m128i t = _mm_sub_epi16(_mm_sub_epi16(_mm_add_epi16(c, _mm_add_epi16(c, c)), b), a);
        /* The rule of paeth(). Where both conditions are true, a, b and c are equal. */
        __m128i to_low = _mm_andnot_si128(_mm_cmpgt_epi16(high, t), _mm_xor_si128(c, low));
        __m128i to_high = _mm_andnot_si128(_mm_cmpgt_epi16(t, low), _mm_xor_si128(c, high));
        __m128i choice = _mm_xor_si128(c, _mm_xor_si128(to_low, to_high));
        a = _mm_add_epi8(choice, four_lanes(line + i));
        c = b;
        int bytes = _mm_cvtsi128_si32(_mm_packus_epi16(a, a));
        memcpy(row + i, &bytes, sizeof bytes);
    }
    return i;
}
#else
static inline size_t undo_paeth_lanes(const u8 *line, const u8 *above, u8 *row, size_t size,
                                      size_t pixel)
{
    (void)line, (void)above, (void)row, (void)size, (void)pixel;
    return 0;
}
#endif

static inline void undo_paeth(const u8 *line, const u8 *above, u8 *row, size_t size, size_t pixel)
{
    u8 left[8] = {0}, corner[8] = {0};
    size_t i = pixel == 3 || pixel == 4 ? undo_paeth_lanes(line, above, row, size, pixel) : 0;
    if (i) {
        memcpy(left, row + i - pixel, pixel);
        memcpy(corner, above + i - pixel, pixel);
    }
    for (; i + pixel <= size; i += pixel)
        for (size_t k = 0; k < pixel; k++) {
            u8 b = above[i + k];
            row[i + k] = left[k] = (u8)(line[i + k] + paeth(left[k], b, corner[k]));
            corner[k] = b;
        }
}

static inline void undo_row(u32 type, const u8 *line, const u8 *above, u8 *row, size_t size,
                            size_t pixel)
{
    switch (type) {
    case FILTER_NONE:
        memcpy(row, line, size);
        break;
    case FILTER_SUB:
        undo_sub(line, row, size, pixel);
        break;
    case FILTER_UP:
        for (size_t i = 0; i < size; i++)
            row[i] = (u8)(line[i] + above[i]);
        break;
    case FILTER_AVERAGE:
        undo_average(line, above, row, size, pixel);
        break;
    default:
        undo_paeth(line, above, row, size, pixel);
    }
}

/* Calls undo_row() with a constant pixel size, so that the compiler makes a version for each. */
static void undo_row_of(const Rows *shape, u32 type, const u8 *line, const u8 *above, u8 *row)
{
    switch (shape->pixel) {
    case 1:
        undo_row(type, line, above, row, shape->size, 1);
        break;
    case 2:
        undo_row(type, line, above, row, shape->size, 2);
        break;
    case 3:
        undo_row(type, line, above, row, shape->size, 3);
        break;
    case 4:
        undo_row(type, line, above, row, shape->size, 4);
        break;
    case 6:
        undo_row(type, line, above, row, shape->size, 6);
        break;
    default:
        undo_row(type, line, above, row, shape->size, 8);
    }
}

static UndoResult undo_rows(const Rows *shape, const u8 *lines, const u8 *before, u8 *rows,
                            u8 *changed, const u8 *zeros, u8 *scratch)
{
    size_t size = shape->size;
    const u8 *above = zeros;
    bool above_changed = false;
    for (size_t y = 0; y < shape->height; y++, lines += 1 + size, above = rows, rows += size) {
        const u8 *old = before ? before + y * (1 + size) : NULL;
        changed[y] = 0;
        if (old && !above_changed && memcmp(lines, old, 1 + size) == 0)
            continue;
        if (lines[0] > FILTER_PAETH)
            return BAD_FILTER_TYPE;
        if (old)
            memcpy(scratch, rows, size);
        undo_row_of(shape, lines[0], lines + 1, above, rows);
        changed[y] = above_changed = !old || memcmp(scratch, rows, size) != 0;
        filter_row(lines[0], rows, above, size, shape->pixel, scratch);
        if (memcmp(scratch, lines + 1, size) != 0)
            return NOT_UNDONE;
    }
    return UNDONE;
}

UndoResult filters_undo(const Rows *shape, const u8 *lines, const u8 *before, u8 *rows,
                        u8 *changed)
{
    u8 *spare = calloc(2, shape->size + 1); /* a row of zeros, then a scratch row */
    if (!spare)
        return UNDO_NO_MEMORY;
    UndoResult result =
        undo_rows(shape, lines, before, rows, changed, spare, spare + shape->size);
    free(spare);
    return result;
}

/* ---- Alpha ------------------------------------------------------------------------------- */

/* Copies a row of pixels with `pixel` bytes, the last of which is alpha. Returns whether all of them
 * are opaque. */
static inline bool drop_row(const u8 *row, size_t size, size_t pixel, u8 *out)
{
    size_t i = 0;
    u64 all = ~(u64)0;
    if (pixel == 4) /* two pixels at once: eight bytes in, six out and two that come to nothing */
        for (; i + 12 <= size; i += 8, out += 6) {
            u64 both = load64(row + i);
            all &= both;
            store64(out, (both & 0xffffff) | (both >> 8 & ((u64)0xffffff << 24)));
        }
    bool opaque = (all & all >> 32) >> 24 == 255;
    for (; i < size; i += pixel) {
        for (size_t k = 0; k + 1 < pixel; k++)
            *out++ = row[i + k];
        opaque = opaque && row[i + pixel - 1] == 255;
    }
    return opaque;
}

bool drop_alpha(const Rows *shape, const u8 *rows, const u8 *changed, const u8 *before, u8 *out)
{
    size_t step = shape->size / shape->pixel * (shape->pixel - 1);
    for (size_t y = 0; y < shape->height; y++, rows += shape->size, out += step) {
        bool opaque = true;
        if (before && !changed[y])
            memcpy(out, before + y * step, step);
        else if (shape->pixel == 4)
            opaque = drop_row(rows, shape->size, 4, out);
        else
            opaque = drop_row(rows, shape->size, 2, out);
        if (!opaque)
            return false;
    }
    return true;
}

/* ---- Adler-32 ---------------------------------------------------------------------------- */

/* The loop sums LANES columns of bytes at once, which compilers turn into vector code. It combines
 * the columns after at most STRETCH rows, before any column sum can overflow. */
enum { LANES = 32, STRETCH = 128, ADLER_MODULUS = 65521 };

u32 adler32_of(const u8 *bytes, size_t size)
{
    u64 a = 1, b = 0;
    while (size >= LANES) {
        u16 column[LANES] = {0};
        u32 weighted[LANES] = {0}; /* each column's running sum, added up over the rows */
        size_t rows = size / LANES < STRETCH ? size / LANES : STRETCH;
        for (size_t i = 0; i < rows; i++)
            for (size_t k = 0; k < LANES; k++) {
                weighted[k] += column[k];
                column[k] = (u16)(column[k] + bytes[i * LANES + k]);
            }
        b += a * rows * LANES;
        for (size_t k = 0; k < LANES; k++) {
            a += column[k];
            b += (u64)weighted[k] * LANES + (u64)column[k] * (LANES - k);
        }
        a %= ADLER_MODULUS;
        b %= ADLER_MODULUS;
        bytes += rows * LANES;
        size -= rows * LANES;
    }
    for (size_t i = 0; i < size; i++) {
        a += bytes[i];
        b += a;
    }
    return (u32)(b % ADLER_MODULUS << 16 | a % ADLER_MODULUS);
}
