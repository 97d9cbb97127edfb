/* PNG scanline filters (PNG specification, third edition, section 9), rows without their alpha, and
 * Adler-32.
 *
 * A line is what the PNG stores of a row: one byte for the filter type, then the filtered bytes of
 * the row. A row is the unfiltered bytes. */
#ifndef FSMOUNT_KERNEL_FILTERS_H
#define FSMOUNT_KERNEL_FILTERS_H

#include "../common.h"

enum { FILTER_NONE, FILTER_SUB, FILTER_UP, FILTER_AVERAGE, FILTER_PAETH };

/* The shape of a picture: `height` rows of `size` bytes. A pixel has `pixel` bytes: 1, 2, 3, 4, 6
 * or 8. `size` is a multiple of `pixel`. */
typedef struct {
    size_t height, size, pixel;
} Rows;

/* Filters `rows` and writes height * (1 + size) bytes to `out`: for each row the filter type, then
 * the filtered bytes. `types` has one filter type (0 to 4) for each row; the caller has checked
 * them. `alpha` is the number of bytes (0 to pixel - 1) that `rows` leaves out at the end of each
 * pixel; the filter sees 255 (opaque) there. Returns false if there is no memory. */
bool filters_apply(const Rows *shape, size_t alpha, const u8 *rows, const u8 *types, u8 *out);

/* UNDONE: success. BAD_FILTER_TYPE: a line has a filter type above 4. NOT_UNDONE: a row, filtered
 * again, did not give its line. */
typedef enum { UNDONE, BAD_FILTER_TYPE, NOT_UNDONE, UNDO_NO_MEMORY } UndoResult;

/* Undoes the filters of the `height` lines in `lines` and writes height * size bytes to `rows`. It
 * filters every row that it makes again and compares the result with the line.
 *
 * `before` may be NULL. Otherwise `rows` holds a similar picture, and `before` has the lines of
 * that picture. The function then leaves a row as it is if neither its line nor the row above
 * changed. It sets `changed[y]` to 1 if row y now has other bytes, else 0. Without `before` it sets
 * 1.
 *
 * The function stops at the first line that fails, and `rows` and `changed` are then incomplete. */
UndoResult filters_undo(const Rows *shape, const u8 *lines, const u8 *before, u8 *rows,
                        u8 *changed);

/* Writes `rows` without the last byte of each pixel, its alpha, to `out`. A pixel has 2 or 4 bytes.
 * Returns false if an alpha is not 255; `out` is then incomplete. `before` may be NULL. Otherwise it
 * is what the function wrote for a similar picture, and the function copies from it the rows y whose
 * `changed[y]` is 0. */
bool drop_alpha(const Rows *shape, const u8 *rows, const u8 *changed, const u8 *before, u8 *out);

/* Returns the Adler-32 checksum (RFC 1950 section 8.2; zlib's adler32()) of `size` bytes. */
u32 adler32_of(const u8 *bytes, size_t size);

#endif
