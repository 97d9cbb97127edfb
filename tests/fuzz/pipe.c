/* Runs the kernel behind a pipe. With it, the Python of this machine (edges.py) tests a kernel that
 * is built for another machine and runs in an emulator.
 *
 * A request is nine little-endian numbers of 32 bits and two pieces of data:
 *     what, level, strategy, memLevel, windowBits, threads, bytes of a row, size 1, size 2
 *     0: deflate 2 · 1: deflate 2 from reference 1 · 2: identify stream 1 of 2
 *     3: correction record of stream 1 of 2 · 4: the stream of 2 from record 1
 * An answer is a size and as many bytes: the stream, four bytes for each candidate, or the record.
 * The record is empty if there is none.
 */
#include <stdio.h>

#include "../../fsmount/codec/kernel/deflate/coder.h"
#include "../../fsmount/codec/kernel/deflate/correct.h"
#include "../../fsmount/codec/kernel/deflate/fit.h"
#include "../../fsmount/codec/kernel/deflate/identify.h"
#include "../../fsmount/codec/kernel/deflate/kernel.h"

enum { WHAT, LEVEL, STRATEGY, MEMORY, WINDOW_BITS, THREADS, ROW, SIZE_1, SIZE_2, FIELDS };

static u8 *receive(u32 size)
{
    u8 *bytes = malloc(size + !size);
    if (!bytes || fread(bytes, 1, size, stdin) != size)
        abort();
    return bytes;
}

static void answer(const u8 *bytes, u32 size)
{
    u8 head[4] = {(u8)size, (u8)(size >> 8), (u8)(size >> 16), (u8)(size >> 24)};
    if (fwrite(head, 1, 4, stdout) != 4 || fwrite(bytes, 1, size, stdout) != size ||
        fflush(stdout) != 0)
        abort();
}

static void answer_stream(bool fine, Stream *stream)
{
    if (!fine)
        abort();
    answer(stream->body, (u32)stream->body_size);
    stream_free(stream);
}

static void from_reference(const u32 *fields, const Params *params, const u8 *reference,
                           const u8 *raw)
{
    Stream old, stream;
    if (!kernel_deflate(params, reference, fields[SIZE_1], 1, 0, &old))
        abort();
    Reference from = {reference, fields[SIZE_1], old.tokens.words, old.tokens.count,
                      {old.body, old.body_size, old.blocks.blocks, old.blocks.count}};
    answer_stream(kernel_deflate_delta(params, &from, raw, fields[SIZE_2], (int)fields[THREADS],
                                       fields[ROW], &stream),
                  &stream);
    stream_free(&old);
}

static void identified(const u32 *fields, const u8 *body, const u8 *raw)
{
    Params found[MOST_CANDIDATES];
    u8 list[4 * MOST_CANDIDATES];
    int count = identify(body, fields[SIZE_1], raw, fields[SIZE_2], 1 << 20, found);
    if (count < 0)
        abort();
    for (int i = 0; i < count; i++) {
        list[4 * i] = (u8)found[i].level;
        list[4 * i + 1] = (u8)found[i].strategy;
        list[4 * i + 2] = (u8)found[i].memory;
        list[4 * i + 3] = (u8)found[i].window_bits;
    }
    answer(list, 4 * (u32)count);
}

static void record_of(const u32 *fields, const u8 *body, const u8 *raw)
{
    Fitted fitted;
    u8 *record;
    size_t size;
    if (!fit_model(body, fields[SIZE_1], raw, fields[SIZE_2], NULL, 0, &fitted) ||
        correct_make(&fitted.model, body, fields[SIZE_1], raw, fields[SIZE_2], &record, &size) !=
            CORRECT_DONE) {
        answer(raw, 0);
        return;
    }
    answer(record, (u32)size);
    free(record);
}

static void applied(const u32 *fields, const u8 *record, const u8 *raw)
{
    u8 *body;
    size_t size;
    if (correct_apply(record, fields[SIZE_1], raw, fields[SIZE_2], &body, &size) != CORRECT_DONE)
        abort();
    answer(body, (u32)size);
    free(body);
}

int main(void)
{
    u8 head[4 * FIELDS];
    coder_prepare();
    kernel_prepare(1);
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        u32 fields[FIELDS];
        for (int i = 0; i < FIELDS; i++)
            fields[i] = load32(head + 4 * i);
        Params params = {(int)fields[LEVEL], (int)fields[STRATEGY], (int)fields[MEMORY],
                         (int)fields[WINDOW_BITS]};
        u8 *first = receive(fields[SIZE_1]), *raw = receive(fields[SIZE_2]);
        Stream stream;
        if (fields[WHAT] == 0)
            answer_stream(kernel_deflate(&params, raw, fields[SIZE_2], (int)fields[THREADS],
                                         fields[ROW], &stream),
                          &stream);
        else if (fields[WHAT] == 1)
            from_reference(fields, &params, first, raw);
        else if (fields[WHAT] == 2)
            identified(fields, first, raw);
        else if (fields[WHAT] == 3)
            record_of(fields, first, raw);
        else
            applied(fields, first, raw);
        free(first);
        free(raw);
    }
    return 0;
}
