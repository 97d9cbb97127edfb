/* Tests the threads of the kernel with the thread sanitizer: no data race, and the same results as
 * with one thread.
 *
 * An input is a program that builds the raw bytes and edits them (program.h). Three threads call
 * the kernel at the same time with the same inputs, as Python threads do after they release the
 * GIL. Two of the calls start further threads:
 *   full       kernel_deflate(raw) on several threads gives the stream of one thread
 *   delta      kernel_deflate_delta(raw -> edited) on several threads gives the stream of the
 *              edited bytes
 *   records    identify() finds the parameters, and the correction record gives the stream back
 *
 * This is a libFuzzer target. Without libFuzzer, standalone.c makes random inputs. See the Makefile
 * here. */
#include <pthread.h>
#include <stdio.h>

#include "../../fsmount/codec/kernel/deflate/coder.h"
#include "../../fsmount/codec/kernel/deflate/correct.h"
#include "../../fsmount/codec/kernel/deflate/identify.h"
#include "../../fsmount/codec/kernel/deflate/kernel.h"
#include "program.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

/* Any model is good enough; one with short chains is fast. */
static const Model MODEL = {.kind = GUESS_LAZY, .hashed = 3, .hash_bits = 15, .least = 3,
                            .chain = 16, .good = 4, .good_chain = 8, .group = 1, .lazy = 4,
                            .nice = 32, .far = 4096, .reach = 32768, .insert = 258, .heap = 1};

/* The data that the three threads read. `full` and `other` are the streams of `raw` and
 * `edited`. */
typedef struct {
    const u8 *raw, *edited;
    u32 size, row;
    int threads;
    const Stream *full, *other;
} Job;

static void check(const char *what, bool fine, const Job *job)
{
    if (fine)
        return;
    fprintf(stderr, "%s: level %d strategy %d, %u bytes, %d threads\n", what,
            job->full->params.level, job->full->params.strategy, job->size, job->threads);
    abort();
}

static bool same(const Stream *one, const Stream *other)
{
    return one->body_size == other->body_size && one->tokens.count == other->tokens.count &&
           memcmp(one->body, other->body, one->body_size) == 0;
}

static void *full(void *argument)
{
    const Job *job = argument;
    Stream stream;
    check("no memory",
          kernel_deflate(&job->full->params, job->raw, job->size, job->threads, job->row, &stream),
          job);
    check("full", same(&stream, job->full), job);
    stream_free(&stream);
    return NULL;
}

static void *delta(void *argument)
{
    const Job *job = argument;
    const Stream *old = job->full;
    Reference from = {job->raw, job->size, old->tokens.words, old->tokens.count,
                      {old->body, old->body_size, old->blocks.blocks, old->blocks.count}};
    Stream stream;
    check("no memory",
          kernel_deflate_delta(&old->params, &from, job->edited, job->size, job->threads, job->row,
                               &stream),
          job);
    check("delta", same(&stream, job->other), job);
    stream_free(&stream);
    return NULL;
}

static void *records(void *argument)
{
    const Job *job = argument;
    const Stream *old = job->full;
    Params found[MOST_CANDIDATES];
    u8 *record, *body;
    size_t record_size, body_size;
    check("identify", identify(old->body, old->body_size, job->raw, job->size, 1 << 20, found) >= 0,
          job);
    check("no record",
          correct_make(&MODEL, old->body, old->body_size, job->raw, job->size, &record,
                       &record_size) == CORRECT_DONE,
          job);
    check("record",
          correct_apply(record, record_size, job->raw, job->size, &body, &body_size) ==
                  CORRECT_DONE &&
              body_size == old->body_size && memcmp(body, old->body, body_size) == 0,
          job);
    free(body);
    free(record);
    return NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    if (!model_valid(&MODEL))
        abort();
    coder_prepare();
    kernel_prepare(1);
    return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t data_size)
{
    static void *(*const CALLERS[])(void *) = {full, delta, records};
    enum { COUNT = sizeof CALLERS / sizeof *CALLERS };
    Program program = {data, data + data_size}, edits;
    Params params = {(int)(take(&program) % 10), (int)(take(&program) % 5),
                     (int)(1 + take(&program) % 9), 15};
    int threads = (int)(2 + take(&program) % 5);
    u32 row = take2(&program) % 3000, size;
    noise_state = take2(&program);
    edits = take_end(&program);
    u8 *raw = build(&program, &size), *edited = exact(raw, size);
    edit(&edits, edited, size);
    Stream one, other;
    if (!kernel_deflate(&params, raw, size, 1, 0, &one) ||
        !kernel_deflate(&params, edited, size, 1, 0, &other))
        abort();
    Job job = {raw, edited, size, row, threads, &one, &other};
    pthread_t callers[COUNT];
    for (int i = 0; i < COUNT; i++)
        if (pthread_create(&callers[i], NULL, CALLERS[i], &job) != 0)
            abort();
    for (int i = 0; i < COUNT; i++)
        pthread_join(callers[i], NULL);
    stream_free(&other);
    stream_free(&one);
    free(edited);
    free(raw);
    return 0;
}
