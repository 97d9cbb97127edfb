/* Compares the kernel with the zlib that this program is linked with (classic, 1.2.12 or later).
 *
 * An input is a program that builds the raw bytes and edits them (program.h). It also names the
 * parameters. The target checks:
 *   full       kernel_deflate(raw) gives zlib's stream
 *   parallel   so it does with several threads and tiny segments
 *   delta      kernel_deflate_delta(raw -> edited), with and without the old stream, gives zlib's
 *              stream of the edited bytes and the tokens of the full parse
 *   identify   some of the parameters that identify() gives for zlib's stream make that stream
 *
 * This is a libFuzzer target. Without libFuzzer, standalone.c makes random inputs. See the Makefile
 * here.
 */
#include <stdio.h>
#include <zlib.h>

#include "../../fsmount/codec/kernel/deflate/identify.h"
#include "../../fsmount/codec/kernel/deflate/kernel.h"
#include "program.h"

static void fail(const char *what, const Params *params, u32 size)
{
    fprintf(stderr, "%s: level %d strategy %d memory %d window %d, %u bytes\n", what, params->level,
            params->strategy, params->memory, params->window_bits, size);
    abort();
}

static u8 *oracle(const Params *params, const u8 *in, u32 size, size_t *body_size)
{
    z_stream zlib;
    memset(&zlib, 0, sizeof zlib);
    bool wrapped = params->window_bits == 8; /* zlib refuses 8 for raw streams */
    if (deflateInit2(&zlib, params->level, Z_DEFLATED,
                     wrapped ? params->window_bits : -params->window_bits, params->memory,
                     params->strategy) != Z_OK)
        abort();
    /* deflateBound() is too small for some parameters of old versions. */
    size_t room = size + size / 8 + 1000;
    u8 *body = malloc(room);
    zlib.next_in = (u8 *)in;
    zlib.avail_in = size;
    zlib.next_out = body;
    zlib.avail_out = (uInt)room;
    if (deflate(&zlib, Z_FINISH) != Z_STREAM_END)
        abort();
    *body_size = room - zlib.avail_out;
    deflateEnd(&zlib);
    if (wrapped) {
        *body_size -= 6;
        memmove(body, body + 2, *body_size);
    }
    return body;
}

static void check(const char *what, bool fine, const Stream *stream, const u8 *body,
                  size_t body_size)
{
    if (!fine || stream->body_size != body_size || memcmp(stream->body, body, body_size) != 0)
        fail(what, &stream->params, stream->size);
}

static void check_tokens(const char *what, const Stream *one, const Stream *other)
{
    const Tokens *a = &one->tokens, *b = &other->tokens;
    if (a->count != b->count || (a->count && memcmp(a->words, b->words, a->count * sizeof(u32)) != 0))
        fail(what, &one->params, one->size);
}

static void check_identify(const Params *params, const u8 *raw, u32 size, const u8 *body,
                           size_t body_size)
{
    Params found[MOST_CANDIDATES];
    int count = identify(body, body_size, raw, size, LONGEST_INPUT, found);
    bool made = false;
    for (int i = 0; i < count && !made; i++) {
        Stream stream;
        if (!kernel_deflate(&found[i], raw, size, 1, 0, &stream))
            abort();
        made = stream.body_size == body_size && memcmp(stream.body, body, body_size) == 0;
        stream_free(&stream);
    }
    /* Stored blocks hide tokens, so there may be more candidates than fit into the list. */
    if (!made && count < MOST_CANDIDATES)
        fail("identify", params, size);
}

static Params take_params(Program *program, u32 *options)
{
    u32 shape = take(program), more = take(program);
    Params params = {(int)(shape % 10), (int)(more % 5), (int)(1 + take(program) % 9), 15};
    if (more & 128)
        params.strategy = more & 64 ? STRATEGY_FILTERED : STRATEGY_DEFAULT;
    if (shape >= 200)
        params.window_bits = 8 + more % 8;
    *options = shape << 8 | more;
    return params;
}

static void check_full(const Params *params, const u8 *raw, u32 size, u32 options, Stream *full)
{
    Stream other;
    size_t body_size;
    u8 *body = oracle(params, raw, size, &body_size);
    bool fine = kernel_deflate(params, raw, size, 1, 0, full);
    check("full", fine, full, body, body_size);
    fine = kernel_deflate(params, raw, size, 2, options & 32 ? 1 + (options & 255) * 7 : 0, &other);
    check("parallel", fine, &other, body, body_size);
    check_tokens("parallel tokens", full, &other);
    stream_free(&other);
    if (options & 8)
        check_identify(params, raw, size, body, body_size);
    free(body);
}

static void check_delta(const u8 *raw, const u8 *edited, u32 size, u32 options, const Stream *full)
{
    Stream other, delta;
    size_t body_size;
    u8 *body = oracle(&full->params, edited, size, &body_size);
    bool fine = kernel_deflate(&full->params, edited, size, 1, 0, &other);
    check("edited", fine, &other, body, body_size);
    Reference reference = {raw, size, full->tokens.words, full->tokens.count, {NULL, 0, NULL, 0}};
    if (options & 256) {
        OldStream old = {full->body, full->body_size, full->blocks.blocks, full->blocks.count};
        reference.stream = old;
    }
    int threads = options & 512 ? 2 : 1;
    fine = kernel_deflate_delta(&full->params, &reference, edited, size, threads, 0, &delta);
    check("delta", fine, &delta, body, body_size);
    check_tokens("delta tokens", &other, &delta);
    stream_free(&delta);
    stream_free(&other);
    free(body);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t data_size)
{
    Program program = {data, data + data_size}, edits;
    u32 options, size;
    Params params = take_params(&program, &options);
    noise_state = take2(&program);
    edits = take_end(&program);
    u8 *raw = build(&program, &size);
    u8 *edited = exact(raw, size);
    edit(&edits, edited, size);
    Stream full;
    check_full(&params, raw, size, options, &full);
    check_delta(raw, edited, size, options, &full);
    stream_free(&full);
    free(raw);
    free(edited);
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    kernel_prepare(1);
    return 0;
}
