/* The Python module fsmount.codec._kernel (limited API, Python 3.11 and later). */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <time.h>

#include "deflate/coder.h"
#include "deflate/correct.h"
#include "deflate/fit.h"
#include "deflate/identify.h"
#include "deflate/kernel.h"
#include "module_png.h"
#include "threads.h"

/* ---- Input ------------------------------------------------------------------------------- */

/* The bytes of a Python object. The kernel works without the GIL, and it computes the size of a
 * block before it writes the block. So nobody may change the bytes meanwhile, and writable buffers
 * are copied (`copy`). */
typedef struct {
    Py_buffer view;
    u8 *copy;
    const u8 *bytes;
    u32 size;
} Input;

static void input_release(Input *input)
{
    free(input->copy);
    if (input->view.obj)
        PyBuffer_Release(&input->view);
    memset(input, 0, sizeof *input);
}

/* An empty input points here, because the kernel needs a valid address. */
static const u8 NOTHING[1] = {0};

/* Takes the bytes of `object`. Returns false with an exception set if it has no buffer, is too
 * large or there is no memory. */

static bool input_get(PyObject *object, Input *input)
{
    memset(input, 0, sizeof *input);
    if (PyObject_GetBuffer(object, &input->view, PyBUF_SIMPLE) < 0)
        return false;
    if ((u64)input->view.len > LONGEST_INPUT) {
        PyErr_SetString(PyExc_ValueError, "too large: the kernel takes less than 2 GiB");
        input_release(input);
        return false;
    }
    input->size = (u32)input->view.len;
    input->bytes = input->size ? input->view.buf : NOTHING;
    if (input->size && !input->view.readonly) {
        input->copy = malloc(input->size);
        if (!input->copy) {
            PyErr_NoMemory();
            input_release(input);
            return false;
        }
        memcpy(input->copy, input->bytes, input->size);
        input->bytes = input->copy;
    }
    return true;
}

/* ---- Tokens as Python sees them ---------------------------------------------------------- */

/* Python gets the tokens as one bytes object: head, words, blocks, in the machine's byte order. It
 * is for this process and its children; it is not a file format. */
typedef struct {
    u32 magic;
    u8 level, strategy, memory, window_bits;
    u32 size, words, blocks, reserved;
} TokenHead;

typedef struct {
    u64 offset, bits;
    u32 start, end;
    u32 kind, last;
} TokenBlock;

#define TOKEN_MAGIC 0x4b544f31u

static PyObject *tokens_dump(const Stream *stream)
{
    const Tokens *tokens = &stream->tokens;
    const Blocks *blocks = &stream->blocks;
    TokenHead head = {TOKEN_MAGIC, (u8)stream->params.level, (u8)stream->params.strategy,
                      (u8)stream->params.memory, (u8)stream->params.window_bits, stream->size,
                      (u32)tokens->count, (u32)blocks->count, 0};
    size_t words = tokens->count * sizeof(u32);
    size_t size = sizeof head + words + blocks->count * sizeof(TokenBlock);
    PyObject *object = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!object)
        return NULL;
    char *at = PyBytes_AsString(object);
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    if (words)
        memcpy(at, tokens->words, words);
    at += words;
    for (size_t i = 0; i < blocks->count; i++, at += sizeof(TokenBlock)) {
        const Block *block = &blocks->blocks[i];
        TokenBlock record = {block->offset, block->bits, block->start, block->end,
                             (u32)block->kind, block->last};
        memcpy(at, &record, sizeof record);
    }
    return object;
}

/* A reference, read from the objects that Python passes. The code checks everything in them. */
typedef struct {
    Params params;
    Reference reference;
    u32 *words;
    Block *blocks;
} Loaded;

static void loaded_free(Loaded *loaded)
{
    free(loaded->words);
    free(loaded->blocks);
}

/* Returns false if a block does not fit a body of `body_bits` bits. */
static bool load_blocks(Loaded *loaded, const u8 *at, u32 count, u64 body_bits)
{
    for (u32 i = 0; i < count; i++, at += sizeof(TokenBlock)) {
        TokenBlock record;
        memcpy(&record, at, sizeof record);
        if (record.offset > body_bits || record.bits > body_bits - record.offset ||
            record.start > record.end || record.kind > BLOCK_DYNAMIC || record.last > 1)
            return false;
        Block *block = &loaded->blocks[i];
        memset(block, 0, sizeof *block);
        block->offset = record.offset;
        block->bits = record.bits;
        block->start = record.start;
        block->end = record.end;
        block->kind = (BlockKind)record.kind;
        block->last = record.last;
    }
    return true;
}

/* Reads a reference. Returns 1 on success, 0 if these are not tokens of an input of this size, -1
 * if there is no memory. Runs without the GIL, so it sets no exception. The caller calls
 * loaded_free() in any case. */
static int tokens_load(const Input *tokens, const Input *raw, const Input *body, Loaded *loaded)
{
    TokenHead head;
    memset(loaded, 0, sizeof *loaded);
    if (tokens->size < sizeof head)
        return 0;
    memcpy(&head, tokens->bytes, sizeof head);
    u64 size = sizeof head + (u64)head.words * sizeof(u32) + (u64)head.blocks * sizeof(TokenBlock);
    if (head.magic != TOKEN_MAGIC || head.size != raw->size || size != tokens->size)
        return 0;
    loaded->params.level = head.level;
    loaded->params.strategy = head.strategy;
    loaded->params.memory = head.memory;
    loaded->params.window_bits = head.window_bits;
    loaded->words = malloc((size_t)head.words * sizeof(u32) + 1);
    loaded->blocks = malloc((size_t)head.blocks * sizeof(Block) + 1);
    if (!loaded->words || !loaded->blocks)
        return -1;
    const u8 *at = tokens->bytes + sizeof head;
    memcpy(loaded->words, at, (size_t)head.words * sizeof(u32));
    at += (size_t)head.words * sizeof(u32);
    Reference *reference = &loaded->reference;
    reference->in = raw->bytes;
    reference->size = raw->size;
    reference->words = loaded->words;
    reference->count = head.words;
    bool none = head.level == 0 && head.words == 0; /* level 0 has no tokens */
    if (!rules_valid(&loaded->params) ||
        !(none || tokens_sound(loaded->words, head.words, raw->size)))
        return 0;
    if (body->size) {
        if (!load_blocks(loaded, at, head.blocks, (u64)body->size * 8))
            return 0;
        OldStream old = {body->bytes, body->size, loaded->blocks, head.blocks};
        reference->stream = old;
    }
    return 1;
}

/* ---- Calls ------------------------------------------------------------------------------- */

typedef struct {
    Params params;
    int threads;
    Py_ssize_t row;
} Settings;

/* Returns false with an exception set if a setting is out of its range. */
static bool settings_check(const Settings *settings)
{
    if (!rules_valid(&settings->params))
        PyErr_SetString(PyExc_ValueError, "no such deflate parameters");
    else if (settings->threads < 1 || settings->threads > MOST_THREADS)
        PyErr_SetString(PyExc_ValueError, "threads must be 1 to 64");
    else if (settings->row < 0 || (u64)settings->row > LONGEST_INPUT)
        PyErr_SetString(PyExc_ValueError, "row_bytes must be 0 to 2 GiB");
    else
        return true;
    return false;
}

/* Returns the pair (body, tokens), or NULL with an exception set. Frees the stream. */
static PyObject *stream_result(bool fine, Stream *stream)
{
    PyObject *result = NULL;
    if (!fine) {
        PyErr_NoMemory();
    } else {
        PyObject *body =
            PyBytes_FromStringAndSize((const char *)stream->body, (Py_ssize_t)stream->body_size);
        PyObject *tokens = body ? tokens_dump(stream) : NULL;
        if (tokens)
            result = PyTuple_Pack(2, body, tokens);
        Py_XDECREF(body);
        Py_XDECREF(tokens);
    }
    stream_free(stream);
    return result;
}

PyDoc_STRVAR(deflate_doc,
             "deflate(raw, level, strategy, mem_level, window_bits, threads=1, row_bytes=0)\n--\n\n"
             "Return (stream, tokens): the raw deflate stream (RFC 1951) that classic zlib makes\n"
             "of `raw`, and the tokens of the stream. Both are bytes. Tokens are opaque: pass\n"
             "them to deflate_delta() as the tokens of this `raw`.");

static PyObject *py_deflate(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"raw",         "level",   "strategy",  "mem_level",
                            "window_bits", "threads", "row_bytes", NULL};
    PyObject *raw;
    Settings settings = {{0, 0, 0, 0}, 1, 0};
    Params *params = &settings.params;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oiiii|in:deflate", names, &raw, &params->level,
                                     &params->strategy, &params->memory, &params->window_bits,
                                     &settings.threads, &settings.row) ||
        !settings_check(&settings))
        return NULL;
    Input input;
    if (!input_get(raw, &input))
        return NULL;
    Stream stream;
    bool fine;
    Py_BEGIN_ALLOW_THREADS
    fine = kernel_deflate(params, input.bytes, input.size, settings.threads, (u32)settings.row,
                          &stream);
    Py_END_ALLOW_THREADS
    input_release(&input);
    return stream_result(fine, &stream);
}

PyDoc_STRVAR(delta_doc,
             "deflate_delta(reference_raw, reference_tokens, raw, level, strategy, mem_level,\n"
             "              window_bits, threads=1, row_bytes=0, reference_body=None)\n--\n\n"
             "Return the same as deflate(raw, ...). It is faster if `raw` is similar to\n"
             "`reference_raw`. It copies unchanged blocks from `reference_body`, the stream of\n"
             "the reference, if that is given. It ignores tokens of other parameters, and of a\n"
             "reference of another size. Tokens of another reference of the same size give a\n"
             "wrong stream. Raises ValueError if `reference_tokens` are damaged.");

/* Makes the stream of deflate_delta() without the GIL. `inputs` are in the order of
 * py_deflate_delta(). Returns as tokens_load() does; `stream` holds a stream only after 1. */
static int delta(const Settings *settings, Input inputs[4], Stream *stream)
{
    Loaded loaded;
    const Params *params = &settings->params;
    const Input *raw = &inputs[2];
    int found = tokens_load(&inputs[1], &inputs[0], &inputs[3], &loaded);
    if (found > 0) {
        const Params *other = &loaded.params;
        bool same = other->level == params->level && other->strategy == params->strategy &&
                    other->memory == params->memory && other->window_bits == params->window_bits;
        u32 row = (u32)settings->row;
        bool fine = same ? kernel_deflate_delta(params, &loaded.reference, raw->bytes, raw->size,
                                                settings->threads, row, stream)
                         : kernel_deflate(params, raw->bytes, raw->size, settings->threads, row,
                                          stream);
        if (!fine) {
            stream_free(stream);
            found = -1;
        }
    }
    loaded_free(&loaded);
    return found;
}

static PyObject *py_deflate_delta(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"reference_raw", "reference_tokens", "raw",     "level",
                            "strategy",      "mem_level",        "window_bits", "threads",
                            "row_bytes",     "reference_body",   NULL};
    PyObject *objects[4] = {NULL, NULL, NULL, Py_None};
    Settings settings = {{0, 0, 0, 0}, 1, 0};
    Params *params = &settings.params;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOiiii|inO:deflate_delta", names, &objects[0],
                                     &objects[1], &objects[2], &params->level, &params->strategy,
                                     &params->memory, &params->window_bits, &settings.threads,
                                     &settings.row, &objects[3]) ||
        !settings_check(&settings))
        return NULL;
    Input inputs[4];
    Stream stream;
    int found = -2; /* stays if input_get() failed, which has set the exception */
    memset(inputs, 0, sizeof inputs);
    bool got = true;
    for (int i = 0; i < 4 && got; i++)
        got = (i == 3 && objects[i] == Py_None) || input_get(objects[i], &inputs[i]);
    if (got) {
        Py_BEGIN_ALLOW_THREADS
        found = delta(&settings, inputs, &stream);
        Py_END_ALLOW_THREADS
    }
    for (int i = 0; i < 4; i++)
        input_release(&inputs[i]);
    if (found == 0)
        PyErr_SetString(PyExc_ValueError, "not the tokens of the reference");
    else if (found == -1)
        PyErr_NoMemory();
    return found > 0 ? stream_result(true, &stream) : NULL;
}

PyDoc_STRVAR(identify_doc,
             "identify(body, raw, limit=1048576)\n--\n\n"
             "Return the parameters (level, strategy, mem_level, window_bits) with which classic\n"
             "zlib may have made `body`, a raw deflate stream of `raw`: a list of at most 32,\n"
             "likeliest first. The list is empty if no parameters fit, or if `body` is not a\n"
             "stream of `raw`. The function reads the first `limit` bytes of `raw`. deflate()\n"
             "shows which parameters are right.");

static PyObject *candidate_list(const Params *found, int count)
{
    PyObject *list = PyList_New(count);
    for (int i = 0; list && i < count; i++) {
        PyObject *item = Py_BuildValue("(iiii)", found[i].level, found[i].strategy,
                                       found[i].memory, found[i].window_bits);
        if (!item || PyList_SetItem(list, i, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *py_identify(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"body", "raw", "limit", NULL};
    PyObject *body_object, *raw_object;
    Py_ssize_t limit = 1 << 20;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|n:identify", names, &body_object,
                                     &raw_object, &limit))
        return NULL;
    if (limit < 0 || (u64)limit > LONGEST_INPUT)
        limit = LONGEST_INPUT;
    Input body, raw;
    if (!input_get(body_object, &body))
        return NULL;
    if (!input_get(raw_object, &raw)) {
        input_release(&body);
        return NULL;
    }
    Params found[MOST_CANDIDATES];
    int count;
    Py_BEGIN_ALLOW_THREADS
    count = identify(body.bytes, body.size, raw.bytes, raw.size, (u32)limit, found);
    Py_END_ALLOW_THREADS
    input_release(&body);
    input_release(&raw);
    return count < 0 ? PyErr_NoMemory() : candidate_list(found, count);
}

PyDoc_STRVAR(correct_doc,
             "correct(body, raw, models=b'')\n--\n\n"
             "Return (record, model) for `body`, any deflate stream of `raw`; None if there is\n"
             "no record. apply(record, raw) returns `body`. The model describes the encoder of\n"
             "`body`; it is opaque bytes. `models` are up to four models of earlier calls,\n"
             "joined. If one of them fits, the call takes less time.");

typedef struct {
    u8 *record;
    size_t size;
    Fitted fitted;
} Correction;

static CorrectResult correct(const Input *body, const Input *raw, const Fitted *models,
                             size_t count, Correction *made)
{
    if (!fit_model(body->bytes, body->size, raw->bytes, raw->size, models, count, &made->fitted))
        return CORRECT_NOT;
    return correct_make(&made->fitted.model, body->bytes, body->size, raw->bytes, raw->size,
                        &made->record, &made->size);
}

static PyObject *py_correct(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"body", "raw", "models", NULL};
    PyObject *body_object, *raw_object;
    const char *given = NULL;
    Py_ssize_t given_size = 0;
    Fitted models[4];
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|y#:correct", names, &body_object,
                                     &raw_object, &given, &given_size))
        return NULL;
    size_t count = (size_t)given_size / sizeof *models;
    if (count > 4 || (size_t)given_size % sizeof *models) {
        PyErr_SetString(PyExc_ValueError, "not models");
        return NULL;
    }
    if (count)
        memcpy(models, given, (size_t)given_size);
    Input body, raw;
    if (!input_get(body_object, &body))
        return NULL;
    if (!input_get(raw_object, &raw)) {
        input_release(&body);
        return NULL;
    }
    Correction made;
    memset(&made, 0, sizeof made);
    CorrectResult result;
    Py_BEGIN_ALLOW_THREADS
    result = correct(&body, &raw, models, count, &made);
    Py_END_ALLOW_THREADS
    input_release(&body);
    input_release(&raw);
    if (result == CORRECT_NO_MEMORY)
        return PyErr_NoMemory();
    if (result == CORRECT_NOT)
        Py_RETURN_NONE;
    PyObject *pair =
        Py_BuildValue("(y#y#)", (const char *)made.record, (Py_ssize_t)made.size,
                      (const char *)&made.fitted, (Py_ssize_t)sizeof made.fitted);
    free(made.record);
    return pair;
}

PyDoc_STRVAR(apply_doc,
             "apply(record, raw)\n--\n\n"
             "Return the deflate stream of `raw` that `record` was made of. Raises ValueError if\n"
             "the record is visibly damaged. Other damage gives a wrong stream, so check the\n"
             "result.");

static PyObject *py_apply(PyObject *module, PyObject *args)
{
    PyObject *record_object, *raw_object;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO:apply", &record_object, &raw_object))
        return NULL;
    Input record, raw;
    if (!input_get(record_object, &record))
        return NULL;
    if (!input_get(raw_object, &raw)) {
        input_release(&record);
        return NULL;
    }
    u8 *body = NULL;
    size_t size = 0;
    CorrectResult result;
    Py_BEGIN_ALLOW_THREADS
    result = correct_apply(record.bytes, record.size, raw.bytes, raw.size, &body, &size);
    Py_END_ALLOW_THREADS
    input_release(&record);
    input_release(&raw);
    if (result == CORRECT_NO_MEMORY)
        return PyErr_NoMemory();
    if (result == CORRECT_NOT) {
        PyErr_SetString(PyExc_ValueError, "damaged correction record");
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)body, (Py_ssize_t)size);
    free(body);
    return bytes;
}

static PyMethodDef METHODS[] = {
    {"deflate", (PyCFunction)(void (*)(void))py_deflate, METH_VARARGS | METH_KEYWORDS, deflate_doc},
    {"deflate_delta", (PyCFunction)(void (*)(void))py_deflate_delta, METH_VARARGS | METH_KEYWORDS,
     delta_doc},
    {"identify", (PyCFunction)(void (*)(void))py_identify, METH_VARARGS | METH_KEYWORDS,
     identify_doc},
    {"correct", (PyCFunction)(void (*)(void))py_correct, METH_VARARGS | METH_KEYWORDS, correct_doc},
    {"apply", py_apply, METH_VARARGS, apply_doc},
    PNG_METHODS,
    {NULL, NULL, 0, NULL},
};

static int module_start(PyObject *module)
{
    (void)module;
    coder_prepare();
    kernel_prepare((u64)time(NULL) << 20 ^ (u64)clock() ^ (u64)(uintptr_t)&module);
    return 0;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, (void *)module_start}, {0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    "fsmount.codec._kernel",
    "Exact deflate: the bytes of classic zlib, from 1.2.12 on, without zlib.",
    0,
    METHODS,
    SLOTS,
    NULL,
    NULL,
    NULL,
};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&MODULE); }
