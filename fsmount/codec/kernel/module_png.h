/* The Python functions for PNG image data, and their rows in the module's method table. A file
 * includes Python.h before this header. module_png.c has the documentation of each function. */
#ifndef FSMOUNT_KERNEL_MODULE_PNG_H
#define FSMOUNT_KERNEL_MODULE_PNG_H

PyObject *py_inflate(PyObject *module, PyObject *args);
PyObject *py_apply_filters(PyObject *module, PyObject *args);
PyObject *py_undo_filters(PyObject *module, PyObject *args);
PyObject *py_drop_alpha(PyObject *module, PyObject *args);
PyObject *py_differing_rows(PyObject *module, PyObject *args);
PyObject *py_paint_tiles(PyObject *module, PyObject *args);
PyObject *py_cut_tiles(PyObject *module, PyObject *args);
PyObject *py_hash_tiles(PyObject *module, PyObject *args);
PyObject *py_flat_tiles(PyObject *module, PyObject *args);
PyObject *py_hash_windows(PyObject *module, PyObject *args);
PyObject *py_find_windows(PyObject *module, PyObject *args);
PyObject *py_adler32(PyObject *module, PyObject *args);

extern const char inflate_doc[], apply_filters_doc[], undo_filters_doc[], drop_alpha_doc[],
    differing_rows_doc[], paint_tiles_doc[], cut_tiles_doc[], hash_tiles_doc[], flat_tiles_doc[],
    hash_windows_doc[], find_windows_doc[], adler32_doc[];

#define PNG_METHODS                                                                            \
    {"inflate", py_inflate, METH_VARARGS, inflate_doc},                                           \
    {"apply_filters", py_apply_filters, METH_VARARGS, apply_filters_doc},                         \
    {"undo_filters", py_undo_filters, METH_VARARGS, undo_filters_doc},                            \
    {"drop_alpha", py_drop_alpha, METH_VARARGS, drop_alpha_doc},                                  \
    {"differing_rows", py_differing_rows, METH_VARARGS, differing_rows_doc},                      \
    {"paint_tiles", py_paint_tiles, METH_VARARGS, paint_tiles_doc},                               \
    {"cut_tiles", py_cut_tiles, METH_VARARGS, cut_tiles_doc},                                     \
    {"hash_tiles", py_hash_tiles, METH_VARARGS, hash_tiles_doc},                                  \
    {"flat_tiles", py_flat_tiles, METH_VARARGS, flat_tiles_doc},                                  \
    {"hash_windows", py_hash_windows, METH_VARARGS, hash_windows_doc},                            \
    {"find_windows", py_find_windows, METH_VARARGS, find_windows_doc},                            \
    {"adler32", py_adler32, METH_VARARGS, adler32_doc}

#endif
