/* Python functions for PNG image data.
 *
 * The functions read and write buffers in place, without the GIL. If another thread writes to a
 * buffer meanwhile, the result has wrong bytes, but no function reads or writes outside of the
 * buffers. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "deflate/inflate.h"
#include "module_png.h"
#include "png/filters.h"
#include "png/tiles.h"
#include "png/windows.h"

const char inflate_doc[] =
    "inflate(stream, size)\n--\n\n"
    "The `size` bytes of the raw deflate stream that `stream` begins with, and its length:\n"
    "(bytes, int). ValueError where it is none, or holds fewer or more bytes.";

static const char *const INFLATE_ERRORS[] = {"", "deflate stream", "more image data than pixels",
                                             "truncated"};

PyObject *py_inflate(PyObject *module, PyObject *args)
{
    Py_buffer stream;
    Py_ssize_t size;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*n:inflate", &stream, &size))
        return NULL;
    PyObject *out = NULL, *pair = NULL;
    if (size < 0 || size > LONGEST_INPUT || stream.len > LONGEST_INPUT)
        PyErr_SetString(PyExc_ValueError, "size must be 0 to 2 GiB");
    else
        out = PyBytes_FromStringAndSize(NULL, size);
    if (out) {
        InflateResult result;
        size_t used;
        u8 *at = (u8 *)PyBytes_AsString(out);
        Py_BEGIN_ALLOW_THREADS
        result = inflate_bytes(stream.buf, (size_t)stream.len, at, (u32)size, &used);
        Py_END_ALLOW_THREADS
        if (result == INFLATED)
            pair = Py_BuildValue("On", out, (Py_ssize_t)used);
        else
            PyErr_SetString(PyExc_ValueError, INFLATE_ERRORS[result]);
        Py_DECREF(out);
    }
    PyBuffer_Release(&stream);
    return pair;
}

static bool is_pixel(Py_ssize_t pixel)
{
    return (pixel >= 1 && pixel <= 4) || pixel == 6 || pixel == 8;
}

/* Sets `shape` to bytes / line rows of `size` bytes with pixels of `pixel` bytes. Returns false
 * with an exception set if the sizes do not fit. */
static bool shape_of(Py_ssize_t bytes, Py_ssize_t line, Py_ssize_t size, Py_ssize_t pixel,
                     Rows *shape)
{
    if (size < 1 || size > LONGEST_INPUT || !is_pixel(pixel) || size % pixel || line < 1 ||
        bytes % line) {
        PyErr_SetString(PyExc_ValueError, "these are no rows of such pixels");
        return false;
    }
    shape->height = (size_t)(bytes / line);
    shape->size = (size_t)size;
    shape->pixel = (size_t)pixel;
    return true;
}

const char apply_filters_doc[] =
    "apply_filters(rows, types, row_bytes, pixel_bytes, alpha_bytes=0)\n--\n\n"
    "Scanlines of `rows`: before each row its filter type, a byte of `types`, and the row\n"
    "filtered. The last `alpha_bytes` of each pixel are not in `rows`: they are 255. ValueError\n"
    "for types above 4 and for sizes that do not fit.";

static PyObject *apply_filters(const Py_buffer *rows, const Py_buffer *types, const Rows *shape,
                               size_t alpha)
{
    const u8 *kinds = types->buf;
    if ((size_t)types->len != shape->height)
        return PyErr_Format(PyExc_ValueError, "not one filter type for each row");
    for (size_t y = 0; y < shape->height; y++)
        if (kinds[y] > FILTER_PAETH)
            return PyErr_Format(PyExc_ValueError, "filter type above 4");
    Py_ssize_t size = (Py_ssize_t)(shape->height * (shape->size + 1));
    PyObject *out = PyBytes_FromStringAndSize(NULL, size);
    if (!out)
        return NULL;
    bool fine;
    u8 *at = (u8 *)PyBytes_AsString(out);
    Py_BEGIN_ALLOW_THREADS
    fine = filters_apply(shape, alpha, rows->buf, kinds, at);
    Py_END_ALLOW_THREADS
    if (fine)
        return out;
    Py_DECREF(out);
    return PyErr_NoMemory();
}

PyObject *py_apply_filters(PyObject *module, PyObject *args)
{
    Py_buffer rows, types;
    Py_ssize_t size, pixel, alpha = 0;
    Rows shape;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*nn|n:apply_filters", &rows, &types, &size, &pixel, &alpha))
        return NULL;
    PyObject *out = NULL;
    bool sensible = size > 0 && pixel > 0 && alpha >= 0 && alpha < pixel;
    Py_ssize_t line = sensible ? size / pixel * (pixel - alpha) : 0;
    if (shape_of(rows.len, line, size, pixel, &shape))
        out = apply_filters(&rows, &types, &shape, (size_t)alpha);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&types);
    return out;
}

const char undo_filters_doc[] =
    "undo_filters(lines, before, rows, row_bytes, pixel_bytes)\n--\n\n"
    "Undo the filters of the scanlines `lines` into the writable buffer `rows`; a byte for each\n"
    "row: 1 where it is another one now. With `before`, the scanlines that gave what `rows`\n"
    "holds (None: unknown), only rows are made anew whose line or row above differs. Every row\n"
    "made is filtered again and compared with its line. ValueError for filter types above 4 and\n"
    "for sizes that do not fit.";

static PyObject *undo_filters(const Py_buffer *lines, const u8 *before, u8 *rows, const Rows *shape)
{
    PyObject *changed = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)shape->height);
    if (!changed)
        return NULL;
    UndoResult result;
    u8 *flags = (u8 *)PyBytes_AsString(changed);
    Py_BEGIN_ALLOW_THREADS
    result = filters_undo(shape, lines->buf, before, rows, flags);
    Py_END_ALLOW_THREADS
    if (result == UNDONE)
        return changed;
    Py_DECREF(changed);
    if (result == UNDO_NO_MEMORY)
        return PyErr_NoMemory();
    if (result == BAD_FILTER_TYPE)
        return PyErr_Format(PyExc_ValueError, "filter type above 4");
    return PyErr_Format(PyExc_RuntimeError, "a row does not give back its line");
}

PyObject *py_undo_filters(PyObject *module, PyObject *args)
{
    Py_buffer lines, before, rows;
    Py_ssize_t size, pixel;
    Rows shape;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*z*w*nn:undo_filters", &lines, &before, &rows, &size, &pixel))
        return NULL;
    PyObject *changed = NULL;
    if (shape_of(lines.len, size + 1, size, pixel, &shape)) {
        if ((u64)rows.len != (u64)shape.height * shape.size ||
            (before.buf && before.len != lines.len))
            PyErr_SetString(PyExc_ValueError, "these are no rows of such pixels");
        else
            changed = undo_filters(&lines, before.buf, rows.buf, &shape);
    }
    PyBuffer_Release(&lines);
    PyBuffer_Release(&before);
    PyBuffer_Release(&rows);
    return changed;
}

const char drop_alpha_doc[] =
    "drop_alpha(rows, pixel_bytes, changed, before, out)\n--\n\n"
    "Copy `rows` without the last byte of each pixel, its alpha, into the writable buffer `out`.\n"
    "False where an alpha is not 255: `out` is then incomplete. `changed` has a byte for each\n"
    "row. With `before`, what an earlier call wrote (None: nothing), rows whose byte is 0 are\n"
    "copied from there. ValueError unless pixels have 2 or 4 bytes, and for sizes that do not fit.";

PyObject *py_drop_alpha(PyObject *module, PyObject *args)
{
    Py_buffer rows, changed, before, out;
    Py_ssize_t pixel;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*ny*z*w*:drop_alpha", &rows, &pixel, &changed, &before, &out))
        return NULL;
    Py_ssize_t count = changed.len, size = count ? rows.len / count : 0;
    bool fits = count && (pixel == 2 || pixel == 4) && rows.len % count == 0 && size % pixel == 0 &&
                out.len == rows.len / pixel * (pixel - 1) && (!before.buf || before.len == out.len);
    if (fits) {
        Rows shape = {(size_t)count, (size_t)size, (size_t)pixel};
        bool opaque;
        Py_BEGIN_ALLOW_THREADS
        opaque = drop_alpha(&shape, rows.buf, changed.buf, before.buf, out.buf);
        Py_END_ALLOW_THREADS
        result = PyBool_FromLong(opaque);
    } else {
        PyErr_SetString(PyExc_ValueError, "these are no rows of such pixels");
    }
    PyBuffer_Release(&rows);
    PyBuffer_Release(&changed);
    PyBuffer_Release(&before);
    PyBuffer_Release(&out);
    return result;
}

const char differing_rows_doc[] =
    "differing_rows(one, other, row_bytes)\n--\n\n"
    "A byte for each row of `row_bytes` bytes: 1 where the two buffers differ.";

PyObject *py_differing_rows(PyObject *module, PyObject *args)
{
    Py_buffer one, other;
    Py_ssize_t size;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*n:differing_rows", &one, &other, &size))
        return NULL;
    PyObject *found = NULL;
    if (size < 1 || one.len != other.len || one.len % size)
        PyErr_SetString(PyExc_ValueError, "these are no rows of that size");
    else
        found = PyBytes_FromStringAndSize(NULL, one.len / size);
    if (found) {
        char *flags = PyBytes_AsString(found);
        Py_ssize_t count = one.len / size;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t y = 0; y < count; y++)
            flags[y] = memcmp((u8 *)one.buf + y * size, (u8 *)other.buf + y * size,
                              (size_t)size) != 0;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&one);
    PyBuffer_Release(&other);
    return found;
}

const char paint_tiles_doc[] =
    "paint_tiles(frame, row_bytes, tile_bytes, index, pixels)\n--\n\n"
    "Copy tiles into a writable frame of rows of `row_bytes` bytes. `index`, int32, says for each\n"
    "tile of the frame, row by row, which tile of `pixels` stands there, -1: none. Tiles have 16\n"
    "rows of `tile_bytes` bytes; what hangs over at the right and lower edge is left out.\n"
    "ValueError for sizes that do not fit and tiles that are not there.";

/* Sets `grid` to the tiles of a frame of `bytes` bytes. Returns false, without an exception, if the
 * sizes do not fit. */
static bool grid_of(Py_ssize_t bytes, Py_ssize_t row, Py_ssize_t tile, Grid *grid)
{
    if (row < 1 || tile < 8 || row > LONGEST_INPUT || tile > LONGEST_INPUT / TILE_ROWS ||
        tile % 8 || bytes % row)
        return false;
    Grid found = {(size_t)(bytes / row), (size_t)row, (size_t)tile};
    *grid = found;
    return true;
}

const char cut_tiles_doc[] =
    "cut_tiles(frame, row_bytes, tile_bytes, index, pixels)\n--\n\n"
    "The way back: copy the tiles of a frame to where `index` says in `pixels`, which is writable\n"
    "and stays as it is where a tile hangs over.";

static PyObject *move_tiles(PyObject *args, bool paint)
{
    Py_buffer frame, index, pixels;
    Py_ssize_t row, tile;
    Grid grid;
    const char *format = paint ? "w*nny*y*:paint_tiles" : "y*nny*w*:cut_tiles";
    if (!PyArg_ParseTuple(args, format, &frame, &row, &tile, &index, &pixels))
        return NULL;
    bool fine = grid_of(frame.len, row, tile, &grid) && pixels.len % (tile * TILE_ROWS) == 0 &&
                (size_t)index.len == grid_tiles(&grid) * sizeof(int32_t);
    if (fine) {
        size_t count = (size_t)(pixels.len / (tile * TILE_ROWS));
        Py_BEGIN_ALLOW_THREADS
        fine = (paint ? tiles_paint(&grid, frame.buf, index.buf, pixels.buf, count)
                      : tiles_cut(&grid, frame.buf, index.buf, pixels.buf, count));
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&frame);
    PyBuffer_Release(&index);
    PyBuffer_Release(&pixels);
    if (!fine)
        return PyErr_Format(PyExc_ValueError, "these tiles do not fit the frame");
    Py_RETURN_NONE;
}

PyObject *py_paint_tiles(PyObject *module, PyObject *args)
{
    (void)module;
    return move_tiles(args, true);
}

PyObject *py_cut_tiles(PyObject *module, PyObject *args)
{
    (void)module;
    return move_tiles(args, false);
}

const char hash_tiles_doc[] =
    "hash_tiles(frame, row_bytes, tile_bytes, keys)\n--\n\n"
    "A 64-bit hash of each tile of a frame, as `fsmount.codec.delta.delta.signatures` defines it, in\n"
    "the machine's byte order. `keys` has an odd number of 64 bits for each eight bytes of a tile.";

PyObject *py_hash_tiles(PyObject *module, PyObject *args)
{
    Py_buffer frame, keys;
    Py_ssize_t row, tile;
    Grid grid;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*nny*:hash_tiles", &frame, &row, &tile, &keys))
        return NULL;
    PyObject *out = NULL;
    if (!grid_of(frame.len, row, tile, &grid) || keys.len != tile * TILE_ROWS)
        PyErr_SetString(PyExc_ValueError, "these tiles do not fit the frame");
    else
        out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(grid_tiles(&grid) * sizeof(u64)));
    if (out) {
        u8 *at = (u8 *)PyBytes_AsString(out);
        Py_BEGIN_ALLOW_THREADS
        tiles_hash(&grid, frame.buf, keys.buf, at);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&frame);
    PyBuffer_Release(&keys);
    return out;
}

const char flat_tiles_doc[] =
    "flat_tiles(frame, row_bytes, tile_bytes)\n--\n\n"
    "A byte for each tile of a frame: 1 where all its pixels, a 16th of `tile_bytes` each, are\n"
    "alike.";

PyObject *py_flat_tiles(PyObject *module, PyObject *args)
{
    Py_buffer frame;
    Py_ssize_t row, tile;
    Grid grid;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*nn:flat_tiles", &frame, &row, &tile))
        return NULL;
    PyObject *out = NULL;
    if (!grid_of(frame.len, row, tile, &grid) || tile % TILE_ROWS || row % (tile / TILE_ROWS))
        PyErr_SetString(PyExc_ValueError, "these tiles do not fit the frame");
    else
        out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)grid_tiles(&grid));
    if (out) {
        u8 *at = (u8 *)PyBytes_AsString(out);
        Py_BEGIN_ALLOW_THREADS
        tiles_flat(&grid, frame.buf, at);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&frame);
    return out;
}

const char hash_windows_doc[] =
    "hash_windows(pixels, row_bytes, channels, sample_bytes)\n--\n\n"
    "A 32-bit hash of the 16 x 16 pixels at each place of a frame, as `fsmount.codec.delta.moves` defines\n"
    "it, in the machine's byte order: 15 rows and columns less than the frame has.";

PyObject *py_hash_windows(PyObject *module, PyObject *args)
{
    Py_buffer pixels;
    Py_ssize_t row, channels, sample;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*nnn:hash_windows", &pixels, &row, &channels, &sample))
        return NULL;
    PyObject *out = NULL;
    bool fine = row > 0 && row <= LONGEST_INPUT && (sample == 1 || sample == 2) && channels >= 1 &&
                channels <= 4 && row % (channels * sample) == 0 && pixels.len % row == 0;
    Pixels shape = {0, 0, (size_t)channels, (size_t)sample};
    if (fine) {
        shape.height = (size_t)(pixels.len / row);
        shape.width = (size_t)(row / (channels * sample));
        fine = shape.height >= WINDOW && shape.width >= WINDOW;
    }
    if (!fine) {
        PyErr_SetString(PyExc_ValueError, "no window fits into these pixels");
    } else {
        size_t windows = (shape.height - WINDOW + 1) * (shape.width - WINDOW + 1);
        out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(windows * sizeof(u32)));
    }
    if (out) {
        u32 *at = (u32 *)(void *)PyBytes_AsString(out);
        Py_BEGIN_ALLOW_THREADS
        fine = windows_hash(&shape, pixels.buf, at);
        Py_END_ALLOW_THREADS
        if (!fine) {
            Py_DECREF(out);
            out = PyErr_NoMemory();
        }
    }
    PyBuffer_Release(&pixels);
    return out;
}

const char find_windows_doc[] =
    "find_windows(hashes, width, coded, wanted, most)\n--\n\n"
    "Return (counts, places): how many windows have each of the hashes `wanted`, and where the first\n"
    "`most` of each are, all as 32-bit numbers in the machine's byte order. A place is row * `width`\n"
    "+ column; `width` is the number of windows in a row. `hashes` come from `hash_windows`. `coded`\n"
    "has a byte for each tile of 16 x 16 pixels; only windows whose tiles are all coded (not 0)\n"
    "count. `wanted` is in ascending order without repetition.";

/* Returns whether the arguments of find_windows() fit together, and describes the windows. */
static bool windows_of(const Py_buffer *hashes, Py_ssize_t width, const Py_buffer *coded,
                       Windows *windows)
{
    size_t count = (size_t)hashes->len / sizeof(u32);
    if (width <= 0 || !count || count > UINT32_MAX || (size_t)hashes->len % sizeof(u32) ||
        count % (size_t)width)
        return false;
    *windows = (Windows){hashes->buf, count / (size_t)width, (size_t)width, coded->buf};
    size_t rows = (windows->height + 2 * WINDOW - 2) / WINDOW;
    size_t columns = (windows->width + 2 * WINDOW - 2) / WINDOW;
    return (size_t)coded->len == rows * columns;
}

/* Returns whether numbers ascend without repetition. */
static bool ascends(const u32 *numbers, size_t count)
{
    for (size_t i = 1; i < count; i++)
        if (numbers[i - 1] >= numbers[i])
            return false;
    return true;
}

PyObject *py_find_windows(PyObject *module, PyObject *args)
{
    Py_buffer hashes, coded, wanted;
    Py_ssize_t width, most;
    Windows windows;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*ny*y*n:find_windows", &hashes, &width, &coded, &wanted, &most))
        return NULL;
    size_t count = (size_t)wanted.len / sizeof(u32);
    PyObject *counts = NULL, *places = NULL, *out = NULL;
    if (!windows_of(&hashes, width, &coded, &windows) || wanted.len % (Py_ssize_t)sizeof(u32) ||
        !ascends(wanted.buf, count) || most < 1 || most > 256) {
        PyErr_SetString(PyExc_ValueError, "these windows, tiles and hashes do not fit");
    } else {
        Py_ssize_t size = (Py_ssize_t)(count * sizeof(u32));
        counts = PyBytes_FromStringAndSize(NULL, size);
        places = counts ? PyBytes_FromStringAndSize(NULL, size * most) : NULL;
    }
    if (places) {
        u32 *of_each = (u32 *)(void *)PyBytes_AsString(counts);
        u32 *at = (u32 *)(void *)PyBytes_AsString(places);
        Py_BEGIN_ALLOW_THREADS
        memset(of_each, 0, count * sizeof *of_each);
        memset(at, 0, count * (size_t)most * sizeof *at);
        windows_find(&windows, wanted.buf, count, (size_t)most, of_each, at);
        Py_END_ALLOW_THREADS
        out = Py_BuildValue("(OO)", counts, places);
    }
    Py_XDECREF(counts);
    Py_XDECREF(places);
    PyBuffer_Release(&hashes);
    PyBuffer_Release(&coded);
    PyBuffer_Release(&wanted);
    return out;
}

const char adler32_doc[] = "adler32(data)\n--\n\nThe Adler-32 of `data`, as zlib computes it.";

PyObject *py_adler32(PyObject *module, PyObject *args)
{
    Py_buffer data;
    u32 sum;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*:adler32", &data))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    sum = adler32_of(data.buf, (size_t)data.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(sum);
}
