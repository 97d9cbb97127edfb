/* Gives the kernel hostile input: no input may cause a crash, an access out of bounds or an endless
 * loop.
 *
 *   stream   inflate_tokens(), inflate_bytes() and identify() get a damaged deflate stream, or
 *            bytes that are none, with the input that zlib makes of them; if both read the whole
 *            stream, they read the same
 *   tokens   deflate_delta() gets damaged or invented tokens and blocks
 *   filters  any lines, unfiltered and filtered again, give the same lines
 *
 * The program includes the Python module, because the module checks tokens. It reaches none of the
 * module's calls into Python, so it need not be linked with Python.
 *
 * This is a libFuzzer target. Without libFuzzer, standalone.c makes random inputs. See the Makefile
 * here.
 */
#include "../../fsmount/codec/kernel/module.c"

#include <stdio.h>
#include <zlib.h>

#include "../../fsmount/codec/kernel/png/filters.h"
#include "program.h"

static Params take_params(Program *program)
{
    u32 shape = take(program), more = take(program);
    Params params = {(int)(shape % 10), (int)(shape / 10 % 5), (int)(1 + more % 9),
                     more < 200 ? 15 : (int)(8 + more % 8)};
    return params;
}

/* ---- Streams ------------------------------------------------------------------------------ */

/* Returns the bytes that zlib inflates, up to its first error. Sets `whole` if zlib reads the
 * stream to its end and the body ends there. */
static u8 *inflated(const u8 *body, u32 body_size, u32 *size, bool *whole)
{
    z_stream zlib;
    memset(&zlib, 0, sizeof zlib);
    if (inflateInit2(&zlib, -15) != Z_OK)
        abort();
    u8 *room = malloc(MOST_RAW);
    zlib.next_in = (u8 *)body;
    zlib.avail_in = body_size;
    zlib.next_out = room;
    zlib.avail_out = MOST_RAW;
    *whole = inflate(&zlib, Z_FINISH) == Z_STREAM_END && !zlib.avail_in;
    *size = MOST_RAW - zlib.avail_out;
    inflateEnd(&zlib);
    u8 *raw = exact(room, *size);
    free(room);
    return raw;
}

/* Checks that inflate_tokens() agrees with zlib about the stream, and that its tokens are sound. */
static void check_seen(const u8 *body, u32 body_size, const u8 *raw, u32 size, bool whole)
{
    Seen seen;
    SeenResult result = inflate_tokens(body, body_size, raw, size, &seen);
    if (result == SEEN && !tokens_sound(seen.tokens.words, seen.tokens.count, size))
        abort();
    bool far = false; /* a distance may be too great for tokens; zlib's encoder makes none such */
    for (u32 i = 0; result != SEEN && whole && i < seen.count; i++)
        far = far || seen.blocks[i].end > 32768 - WINDOW_RESERVE;
    if (result == NOT_SEEN && whole && !far) {
        fprintf(stderr, "a sound stream of %u bytes was refused\n", size);
        abort();
    }
    seen_free(&seen);
}

/* Checks that inflate_bytes() gives the same bytes as zlib for every stream that zlib reads whole,
 * and gives no bytes that zlib does not give. */
static void check_inflated(const u8 *body, u32 body_size, const u8 *raw, u32 size, bool whole)
{
    u8 *out = malloc(size + !size);
    size_t used;
    InflateResult result = inflate_bytes(body, body_size, out, size, &used);
    if (whole && result != INFLATED)
        abort();
    if (result == INFLATED && (used > body_size || memcmp(out, raw, size) != 0))
        abort();
    free(out);
}

static void with_stream(Program *program, Program *edits)
{
    u32 options = take(program), body_size, size;
    u8 *body;
    if (options & 1) { /* a damaged stream */
        Params params = take_params(program);
        u8 *input = build(program, &size);
        Stream stream;
        if (!kernel_deflate(&params, input, size, 1, 0, &stream))
            abort();
        free(input);
        body_size = (u32)stream.body_size;
        body = exact(stream.body, body_size);
        stream_free(&stream);
        edit(edits, body, body_size);
    } else {
        body_size = (u32)(program->end - program->at);
        body = exact(program->at, body_size);
    }
    bool whole;
    u8 *raw = inflated(body, body_size, &size, &whole);
    check_seen(body, body_size, raw, size, whole);
    check_inflated(body, body_size, raw, size, whole);
    Params found[MOST_CANDIDATES];
    identify(body, body_size, raw, size, options & 2 ? LONGEST_INPUT : 4096, found);
    if (options & 4) { /* the stream of another input */
        edit(edits, raw, size);
        identify(body, body_size, raw, size, 4096, found);
    }
    free(raw);
    free(body);
}

/* ---- Tokens ------------------------------------------------------------------------------- */

/* Returns tokens in the format that Python passes. */
static Input packed(const Params *params, u32 size, const u32 *words, u32 word_count,
                    const TokenBlock *blocks, u32 block_count)
{
    TokenHead head = {TOKEN_MAGIC,        (u8)params->level,       (u8)params->strategy,
                      (u8)params->memory, (u8)params->window_bits, size,
                      word_count,         block_count,             0};
    Input input;
    memset(&input, 0, sizeof input);
    input.size = (u32)(sizeof head + word_count * sizeof(u32) + block_count * sizeof(TokenBlock));
    u8 *at = input.copy = malloc(input.size);
    input.bytes = at;
    memcpy(at, &head, sizeof head);
    if (word_count)
        memcpy(at + sizeof head, words, word_count * sizeof(u32));
    if (block_count)
        memcpy(at + sizeof head + word_count * sizeof(u32), blocks,
               block_count * sizeof(TokenBlock));
    return input;
}

static Input packed_stream(const Stream *stream)
{
    u32 count = (u32)stream->blocks.count;
    TokenBlock *blocks = malloc(count * sizeof *blocks + 1);
    for (u32 i = 0; i < count; i++) {
        const Block *block = &stream->blocks.blocks[i];
        TokenBlock record = {block->offset, block->bits, block->start, block->end,
                             (u32)block->kind, block->last};
        blocks[i] = record;
    }
    Input input = packed(&stream->params, stream->size, stream->tokens.words,
                         (u32)stream->tokens.count, blocks, count);
    free(blocks);
    return input;
}

static u32 take4(Program *program)
{
    u32 low = take2(program);
    return low | take2(program) << 16;
}

/* Makes words. With `sound` they describe `size` bytes of input, but rarely this input. */
static void make_words(Program *program, u32 size, bool sound, Tokens *tokens)
{
    u32 position = 0;
    while (program->at < program->end) {
        u32 word = take4(program);
        u32 literals = word >> 23 & 15, length = word_length(word);
        if (!sound) {
            tokens_push(tokens, word);
            continue;
        }
        if (position + literals + length > size)
            break;
        u32 distance = min32(min32(word_distance(word), NO_MATCH), position + literals);
        if (distance) {
            tokens_match(tokens, literals, length, distance);
            position += literals + length;
        }
    }
    if (sound)
        tokens_literals(tokens, size - position);
}

static void make_blocks(Program *program, u32 size, TokenBlock *blocks, u32 count)
{
    for (u32 i = 0; i < count; i++) {
        u32 kind = take(program), length = take(program);
        blocks[i].start = i ? blocks[i - 1].end : 0;
        blocks[i].end = kind & 32 ? take4(program) : min32(size, blocks[i].start + length);
        blocks[i].kind = kind & 3;
        blocks[i].last = kind >> 2 & 1;
        blocks[i].offset = kind & 8 ? take4(program) : i;
        blocks[i].bits = kind & 16 ? take4(program) : length;
    }
}

static Input made_up(Program *program, const Params *params, u32 size)
{
    TokenBlock blocks[20];
    Tokens tokens = {NULL, 0, 0, false};
    u32 options = take(program), block_count = options % 20;
    make_blocks(program, size, blocks, block_count);
    make_words(program, size, options & 32, &tokens);
    Input input = packed(params, size, tokens.words, (u32)tokens.count, blocks, block_count);
    tokens_free(&tokens);
    return input;
}

static void with_tokens(Program *program, Program *edits)
{
    u32 options = take(program), size;
    Settings settings = {take_params(program), options & 8 ? 2 : 1, options & 16 ? 1 + options : 0};
    Program first_half = {program->at, program->at + (program->end - program->at) / 2};
    program->at = first_half.end;
    u8 *reference = build(program, &size);
    u8 *raw = exact(reference, size);
    edit(edits, raw, size);
    Stream stream, result;
    if (!kernel_deflate(&settings.params, reference, size, 1, 0, &stream))
        abort();
    Input tokens;
    if (options & 1) {
        tokens = packed_stream(&stream);
        u32 blocks = (u32)(stream.blocks.count * sizeof(TokenBlock)); /* blocks come last */
        u32 part = options & 32 ? blocks : options & 64 ? min32(blocks, 24) : tokens.size;
        edit(&first_half, tokens.copy + tokens.size - part, part);
    } else {
        tokens = made_up(&first_half, &settings.params, size);
    }
    Input inputs[4];
    memset(inputs, 0, sizeof inputs);
    inputs[0].bytes = reference;
    inputs[1] = tokens;
    inputs[2].bytes = raw;
    inputs[0].size = inputs[2].size = size;
    inputs[3].bytes = NOTHING;
    if (options & 2) {
        inputs[3].bytes = stream.body;
        inputs[3].size = (u32)stream.body_size;
    }
    if (options & 4) { /* the body is shorter than the blocks say */
        inputs[3].copy = exact(inputs[3].bytes, inputs[3].size / 2);
        inputs[3].bytes = inputs[3].copy;
        inputs[3].size /= 2;
    }
    if (delta(&settings, inputs, &result) > 0)
        stream_free(&result);
    stream_free(&stream);
    free(tokens.copy);
    free(inputs[3].copy);
    free(reference);
    free(raw);
}

/* ---- Filters ------------------------------------------------------------------------------ */

static void with_filters(Program *program)
{
    static const u8 PIXELS[] = {1, 2, 3, 4, 6, 8};
    u32 pixel = PIXELS[take(program) % sizeof PIXELS];
    u32 row_bytes = pixel * (1 + take(program)), size;
    u8 *built = build(program, &size);
    u32 height = size / (row_bytes + 1);
    u8 *lines = exact(built, height * (row_bytes + 1));
    u8 *again = malloc(height * (row_bytes + 1) + !height);
    u8 *types = malloc(height + !height), *rows = malloc(height * row_bytes + !height);
    u8 *changed = malloc(height + !height);
    u32 highest = 0;
    for (u32 i = 0; i < height; i++) {
        types[i] = lines[i * (row_bytes + 1)] %= 6 - (size & 1);
        highest = max32(highest, types[i]);
    }
    Rows shape = {height, row_bytes, pixel};
    UndoResult result = filters_undo(&shape, lines, NULL, rows, changed);
    bool fine = result == UNDONE;
    if (result != (highest <= FILTER_PAETH ? UNDONE : BAD_FILTER_TYPE))
        abort();
    if (fine && (!filters_apply(&shape, 0, rows, types, again) ||
                 memcmp(again, lines, height * (row_bytes + 1)) != 0))
        abort();
    u32 alpha = size % pixel, short_bytes = row_bytes / pixel * (pixel - alpha);
    if (fine) { /* rows without alpha, with one type for each row */
        u8 *short_rows = exact(rows, height * short_bytes);
        if (!filters_apply(&shape, alpha, short_rows, types, again))
            abort();
        free(short_rows);
    }
    free(changed);
    free(rows);
    free(types);
    free(again);
    free(lines);
    free(built);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t data_size)
{
    Program program = {data, data + data_size};
    u32 what = take(&program);
    noise_state = what;
    if (what % 16 == 0) {
        with_filters(&program);
        return 0;
    }
    Program edits = take_end(&program);
    if (what & 1)
        with_stream(&program, &edits);
    else
        with_tokens(&program, &edits);
    return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    kernel_prepare(1);
    return 0;
}
