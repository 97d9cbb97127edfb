/* Differential fuzzing of the kernel against the zlib it is linked with (classic, 1.2.12 or later).
 *
 * An input of the fuzzer is a program that builds the raw bytes (literal bytes, runs, repeats of
 * what is there, noise), followed by edits that make a second version of them. Checked for random
 * parameters:
 *   full       kernel_deflate(raw) is zlib's stream
 *   parallel   the same with several threads and tiny segments
 *   delta      kernel_deflate_delta(raw -> edited), with and without the old stream at hand, is
 *              zlib's stream of the edited bytes, and its tokens are those of the full parse
 *   identify   some parameters it names for zlib's stream make that stream
 *   hostile    a damaged stream, tokens and blocks of another input: any answer, no crash
 * Inputs are exact-size heap blocks, so that the address sanitizer sees any read behind them.
 *
 * Built with -DSTANDALONE it makes its own inputs: fuzz_deflate [seconds [seed]]. Otherwise it is
 * a libFuzzer target. See the Makefile here.
 */
#include <stdio.h>
#include <time.h>
#include <zlib.h>

#include "../../fsmount/codec/kernel/identify.h"
#include "../../fsmount/codec/kernel/kernel.h"

enum { MOST_RAW = 700000 };

typedef struct {
    const u8 *at, *end;
} Program;

static u32 take(Program *program) { return program->at < program->end ? *program->at++ : 0; }
static u32 take2(Program *program)
{
    u32 low = take(program);
    return low | take(program) << 8;
}

static u32 noise_state;
static u8 noise(void)
{
    noise_state = noise_state * 1664525u + 1013904223u;
    return (u8)(noise_state >> 24);
}

/* How many bytes an instruction makes: mostly few, sometimes many. */
static u32 amount(Program *program)
{
    u32 value = take(program);
    if (value < 160)
        return 1 + value % 20;
    if (value < 220)
        return 1 + take(program);
    if (value < 248)
        return 200 + take2(program) % 2000;
    return take2(program) + 1;
}

static u32 build(Program *program, u8 *raw, u32 most)
{
    u32 size = 0;
    while (program->at < program->end && size < most) {
        u32 what = take(program), count = min32(amount(program), most - size);
        u32 distance;
        switch (what % 9) {
        case 0: /* bytes of the program */
            for (u32 i = 0; i < min32(count, 40); i++)
                raw[size++] = (u8)take(program);
            break;
        case 1:
        case 2: /* run, mostly of zeros */
            memset(raw + size, what & 64 ? take(program) : 0, count);
            size += count;
            break;
        case 3:
        case 4:
        case 5: /* repeat, the last byte often changed */
            distance = take2(program);
            if (what & 64)
                distance &= 15;
            if (what & 128)
                distance &= 1023;
            distance = min32(distance + 1, size);
            if (distance) {
                for (u32 i = 0; i < count; i++)
                    raw[size + i] = raw[size + i - distance];
                if (what & 32)
                    raw[size + count - 1] ^= (u8)(1u << (what & 7));
            }
            size += distance ? count : 0;
            break;
        case 6: /* few letters */
            for (u32 letters = 2 + take(program) % 7, i = 0; i < count; i++)
                raw[size++] = noise() % letters;
            break;
        case 7: /* noise */
            for (u32 i = 0; i < count; i++)
                raw[size++] = noise();
            break;
        default: /* a change in what is there */
            if (size)
                raw[((take2(program) << 8) + take(program)) % size] ^= (u8)count;
        }
    }
    return size;
}

static void edit(Program *program, u8 *raw, u32 size)
{
    u32 edits = size ? take(program) % 6 : 0;
    while (edits--) {
        u32 at = ((take2(program) << 8) + take(program)) % size;
        u32 how = take(program), count = min32(amount(program), size - at);
        if (how & 128)
            at = how & 64 ? size - count : 0;
        if (how & 1)
            for (u32 i = 0; i < count; i++)
                raw[at + i] = noise();
        else if (how & 2)
            memset(raw + at, (int)take(program), count);
        else
            memmove(raw + at, raw + at / 2, count);
    }
}

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
    bool wrapped = params->window_bits == 8; /* raw streams refuse 8 */
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
    /* Where stored blocks leave the tokens open, there may be more candidates than fit. */
    if (!made && count < MOST_CANDIDATES)
        fail("identify", params, size);
}

/* A reference that is nobody's: sound words and blocks, but of an input that has been changed. */
static void check_hostile(const Params *params, u8 *raw, u32 size, const Stream *full, u32 salt)
{
    Params found[MOST_CANDIDATES];
    u8 *body = malloc(full->body_size);
    memcpy(body, full->body, full->body_size);
    body[salt % full->body_size] ^= (u8)(1 << (salt & 7));
    identify(body, full->body_size - salt % 3 % full->body_size, raw, size, 4096, found);
    free(body);
    u32 *words = malloc(full->tokens.count * sizeof(u32) + 1);
    if (full->tokens.count)
        memcpy(words, full->tokens.words, full->tokens.count * sizeof(u32));
    for (u32 i = 0; full->tokens.count && i < 3; i++)
        words[(salt * (i + 7) >> 3) % full->tokens.count] ^= 1u << (salt >> i & 31);
    Block *blocks = malloc(full->blocks.count * sizeof *blocks + 1);
    if (full->blocks.count)
        memcpy(blocks, full->blocks.blocks, full->blocks.count * sizeof *blocks);
    for (size_t i = 0; i < full->blocks.count; i++)
        blocks[i].offset = salt % 5 * blocks[i].offset / 4;
    bool sound = tokens_sound(words, full->tokens.count, size);
    for (size_t i = 0; i < full->blocks.count; i++)
        sound = sound && blocks[i].offset + blocks[i].bits <= full->body_size * 8;
    if (sound) {
        Reference reference = {raw, size, words, full->tokens.count,
                               {full->body, full->body_size, blocks, full->blocks.count}};
        u8 *other = malloc(size + !size);
        memcpy(other, raw, size);
        if (size)
            other[salt % size] ^= 1;
        Stream stream;
        if (!kernel_deflate_delta(params, &reference, other, size, 1, 0, &stream))
            abort();
        stream_free(&stream);
        free(other);
    }
    free(words);
    free(blocks);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t data_size)
{
    Program program = {data, data + data_size};
    u32 shape = take(&program), more = take(&program);
    Params params = {(int)(shape % 10), (int)(more % 5), (int)(1 + take(&program) % 9), 15};
    if (more & 128)
        params.strategy = more & 64;
    params.strategy = params.strategy == 64 ? STRATEGY_FILTERED : params.strategy;
    if (shape >= 200)
        params.window_bits = 8 + more % 8;
    noise_state = take2(&program);
    u8 *room = malloc(MOST_RAW);
    u32 size = build(&program, room, MOST_RAW);
    u8 *raw = malloc(size + !size), *edited = malloc(size + !size);
    memcpy(raw, room, size);
    memcpy(edited, room, size);
    free(room);
    /* Edits come from the program's start again, shifted: its end is used up. */
    Program edits = {data + min32(3, (u32)data_size), data + data_size};
    edit(&edits, edited, size);

    Stream full, other, delta;
    size_t body_size;
    u8 *body = oracle(&params, raw, size, &body_size);
    bool fine = kernel_deflate(&params, raw, size, 1, 0, &full);
    check("full", fine, &full, body, body_size);
    fine = kernel_deflate(&params, raw, size, 2, more & 32 ? 1 + more * 7 : 0, &other);
    check("parallel", fine, &other, body, body_size);
    check_tokens("parallel tokens", &full, &other);
    stream_free(&other);
    if (more & 8)
        check_identify(&params, raw, size, body, body_size);
    check_hostile(&params, raw, size, &full, shape * 251 + more * 65537 + size);
    free(body);

    body = oracle(&params, edited, size, &body_size);
    fine = kernel_deflate(&params, edited, size, 1, 0, &other);
    check("edited", fine, &other, body, body_size);
    Reference reference = {raw, size, full.tokens.words, full.tokens.count, {NULL, 0, NULL, 0}};
    if (shape & 1) {
        OldStream old = {full.body, full.body_size, full.blocks.blocks, full.blocks.count};
        reference.stream = old;
    }
    fine = kernel_deflate_delta(&params, &reference, edited, size, 1 + (shape >> 1 & 1), 0, &delta);
    check("delta", fine, &delta, body, body_size);
    check_tokens("delta tokens", &other, &delta);
    stream_free(&delta);
    stream_free(&other);
    stream_free(&full);
    free(body);
    free(raw);
    free(edited);
    return 0;
}

#ifdef STANDALONE
static u64 random_state;
static u32 random32(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (u32)(random_state >> 33);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 10;
    u64 seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (u64)time(NULL);
    time_t start = time(NULL), told = start;
    u64 cases = 0;
    kernel_prepare(seed);
    for (; difftime(time(NULL), start) < seconds; cases++) {
        random_state = seed + cases;
        for (int i = 0; i < 4; i++)
            random32();
        /* Kept for the report if the process dies. */
        static u8 data[6000];
        u32 kind = random32() % 8;
        u32 size = random32() % (kind == 0 ? 30 : kind < 5 ? 500 : (u32)sizeof data);
        for (u32 i = 0; i < size; i++)
            data[i] = (u8)random32();
        FILE *last = fopen("fuzz_deflate.last", "w");
        if (last) {
            fprintf(last, "%llu\n", (unsigned long long)(seed + cases));
            fclose(last);
        }
        u8 *exact = malloc(size + !size);
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        if (difftime(time(NULL), told) >= 60) {
            told = time(NULL);
            printf("%llu inputs, %.0f s, seed %llu, 0 differences\n", (unsigned long long)cases,
                   difftime(told, start), (unsigned long long)seed);
            fflush(stdout);
        }
    }
    printf("done: %llu inputs, %.0f s, seed %llu, 0 differences\n", (unsigned long long)cases,
           seconds, (unsigned long long)seed);
    return 0;
}
#else
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    kernel_prepare(1);
    return 0;
}
#endif
