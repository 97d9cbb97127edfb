/* Tests correction records.
 *
 *   exact     zlib makes a stream with flushes and changes of parameters; its record gives the
 *             stream back, with any model and with the fitted one
 *   damaged   if correct_make() accepts a damaged stream, the record gives that stream back
 *   hostile   a damaged or invented record gives an error or some stream, and does no harm
 *
 * This is a libFuzzer target. Without libFuzzer, standalone.c makes random inputs. See the Makefile
 * here.
 */
#include <stdio.h>
#include <zlib.h>

#include "../../fsmount/codec/kernel/deflate/coder.h"
#include "../../fsmount/codec/kernel/deflate/correct.h"
#include "../../fsmount/codec/kernel/deflate/fit.h"
#include "program.h"

/* Returns zlib's stream of `raw`, with the flushes and changes that the program names. */
static u8 *stream_of(Program *program, const u8 *raw, u32 size, size_t *body_size)
{
    static const int FLUSHES[] = {Z_NO_FLUSH, Z_PARTIAL_FLUSH, Z_SYNC_FLUSH, Z_FULL_FLUSH, Z_BLOCK};
    u32 shape = take(program), more = take(program);
    z_stream zlib;
    memset(&zlib, 0, sizeof zlib);
    if (deflateInit2(&zlib, (int)(shape % 10), Z_DEFLATED, more < 200 ? -15 : -(int)(9 + more % 7),
                     (int)(1 + more % 9), (int)(shape / 10 % 5)) != Z_OK)
        abort();
    size_t room = size + size / 4 + 100000;
    u8 *body = malloc(room);
    zlib.next_in = (u8 *)raw;
    zlib.next_out = body;
    zlib.avail_out = (uInt)room;
    for (u32 cuts = take(program) % 8, left = size; cuts--;) {
        u32 some = min32(left, take2(program));
        u32 how = take(program);
        zlib.avail_in = some;
        deflate(&zlib, FLUSHES[how % 5]);
        if (how & 64)
            deflateParams(&zlib, (int)(how % 10), (int)(how / 10 % 5));
        left -= some - zlib.avail_in;
    }
    zlib.avail_in = (uInt)(raw + size - zlib.next_in);
    if (deflate(&zlib, Z_FINISH) != Z_STREAM_END)
        abort();
    *body_size = room - zlib.avail_out;
    deflateEnd(&zlib);
    return body;
}

static Model model_of(Program *program)
{
    Model model = {(u16)(take(program) % GUESSES), (u16)(3 + take(program) % 2),
                   (u16)(8 + take(program) % 17), (u16)(3 + take(program) % 5),
                   (u16)(1 + take2(program) % 300), (u16)(take2(program) % 300),
                   1, (u16)(1 + take(program) % 8), (u16)(take2(program) % 300),
                   (u16)(take2(program) % 300), (u16)take2(program),
                   (u16)(take2(program) % 32769), (u16)(take2(program) % 300),
                   (u16)(take(program) % 3), (u16)(take(program) % 3), (u16)(take(program) % 2),
                   (u16)(take(program) % 2)};
    model.good_chain = (u16)(1 + take2(program) % model.chain);
    return model;
}

static void check(const Model *model, const u8 *body, size_t body_size, const u8 *raw, u32 size,
                  bool wanted, Program *edits)
{
    u8 *record, *again;
    size_t record_size, again_size;
    CorrectResult made = correct_make(model, body, body_size, raw, size, &record, &record_size);
    if (wanted && made != CORRECT_DONE) {
        fprintf(stderr, "a stream of %u bytes is not taken: %d\n", size, (int)made);
        abort();
    }
    if (made != CORRECT_DONE)
        return;
    u8 *whole = exact(record, record_size);
    free(record);
    if (correct_apply(whole, record_size, raw, size, &again, &again_size) != CORRECT_DONE ||
        again_size != body_size || memcmp(again, body, body_size) != 0) {
        fprintf(stderr, "another stream comes back, %u bytes\n", size);
        abort();
    }
    free(again);
    edit(edits, whole, (u32)record_size);
    if (correct_apply(whole, record_size, raw, size, &again, &again_size) == CORRECT_DONE)
        free(again);
    free(whole);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    coder_prepare();
    return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerTestOneInput(const u8 *data, size_t data_size)
{
    Program program = {data, data + data_size}, end = take_end(&program);
    Fitted fitted;
    u32 size;
    size_t body_size;
    noise_state = (u32)data_size;
    u32 what = take(&program);
    Model model = model_of(&program);
    Program shape = program;
    u8 *made_up = exact(program.at, (size_t)(program.end - program.at));
    u32 made_up_size = (u32)(program.end - program.at);
    u8 *raw = build(&program, &size), *again;
    size_t again_size;
    if (!model_valid(&model))
        abort();
    u8 *room = stream_of(&shape, raw, size, &body_size), *body = exact(room, body_size);
    free(room);
    check(&model, body, body_size, raw, size, true, &end);
    if (what % 16 == 0 && fit_model(body, body_size, raw, size, NULL, 0, &fitted))
        check(&fitted.model, body, body_size, raw, size, true, &end);
    edit(&end, body, (u32)body_size);
    check(&model, body, body_size, raw, size, false, &end);
    if (correct_apply(made_up, made_up_size, raw, size, &again, &again_size) == CORRECT_DONE)
        free(again);
    free(made_up);
    free(body);
    free(raw);
    return 0;
}
