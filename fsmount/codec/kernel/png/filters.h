/* PNG scanline filters (PNG specification, third edition, section 9), and what of them a picture
 * much like another one needs. */
#ifndef FSMOUNT_KERNEL_FILTERS_H
#define FSMOUNT_KERNEL_FILTERS_H

#include "../common.h"

enum { FILTER_NONE, FILTER_SUB, FILTER_UP, FILTER_AVERAGE, FILTER_PAETH };

/* Rows of `size` bytes, a multiple of `pixel`, the bytes of a pixel: 1, 2, 3, 4, 6 or 8. */
typedef struct {
    size_t height, size, pixel;
} Rows;

/* Puts the type byte and the filtered bytes of every row into `out`. The types are 0 to 4. Of each
 * pixel in `rows` the last `alpha` bytes, less than a pixel, are not there: they are 255 (opaque).
 * False: no memory. */
bool filters_apply(const Rows *shape, size_t alpha, const u8 *rows, const u8 *types, u8 *out);

typedef enum { UNDONE, BAD_FILTER_TYPE, NOT_UNDONE, UNDO_NO_MEMORY } UndoResult;

/* Undoes the filters of `lines` into `rows`, and filters every row it makes again: NOT_UNDONE where
 * that does not give its line. With the `before` lines of the picture that `rows` holds, a row is
 * left alone where its line and the row above are as before. `changed` says for each row whether
 * it is another one now (without `before`: 1). */
UndoResult filters_undo(const Rows *shape, const u8 *lines, const u8 *before, u8 *rows,
                        u8 *changed);

/* Adler-32 (RFC 1950 section 8.2) of `size` bytes. */
u32 adler32_of(const u8 *bytes, size_t size);

#endif
