/* Makes streams: from the input alone, on several threads, and from a reference. */
#include "kernel.h"

#include "parse.h"
#include "../threads.h"

/* Least size of a segment in bytes. Shorter segments do not pay, because each one first enters the
 * window before it. The fuzzer sets a small size. */
#ifndef LEAST_SEGMENT
#define LEAST_SEGMENT (1u << 18)
#endif
enum { SEGMENTS_PER_THREAD = 4 };

void kernel_prepare(u64 seed)
{
    emit_prepare();
    finder_prepare(seed);
}

void stream_free(Stream *stream)
{
    free(stream->body);
    free(stream->blocks.blocks);
    tokens_free(&stream->tokens);
}

/* Makes blocks and body from the tokens of the stream. Returns false if there is no memory. */
static bool finish(Stream *stream, const Rules *rules, const u8 *in, int threads,
                   const OldStream *old, const u32 *kept, size_t kept_count)
{
    static const u32 nothing[1] = {0}; /* an empty list of words needs a valid address too */
    const u32 *words = stream->tokens.count ? stream->tokens.words : nothing;
    if (!blocks_split(rules, words, stream->tokens.count, stream->size, &stream->blocks))
        return false;
    EmitJob job = {rules, in,   stream->size, words, stream->blocks,
                   old,   kept, kept_count,   threads};
    return emit(&job, &stream->body, &stream->body_size);
}

/* ---- On several threads ------------------------------------------------------------------ */

/* A thread parses each segment as if a match had ended at its start. This is mostly not the case,
 * so the first tokens may be wrong. The tokens are right from the position where the real parse
 * meets this one (parse.h), mostly a few bytes behind the start. */
typedef struct {
    u32 start, stop; /* the parse goes on to the first clean position from `stop` on */
    u32 end;         /* that position, or the end of the input */
    Tokens tokens;
    bool failed;
} Segment;

typedef struct {
    const Rules *rules;
    const u8 *in;
    u32 size;
    Segment *segments;
} SegmentJob;

static void parse_segment(void *context, size_t index)
{
    SegmentJob *job = context;
    Segment *segment = &job->segments[index];
    Parser parser;
    memset(&parser, 0, sizeof parser);
    parser.tokens = &segment->tokens;
    parser.position = parser.literals = segment->start;
    if (finder_open(&parser.finder, job->rules, job->in, job->size))
        lazy_parse(&parser, NULL, segment->stop);
    else
        segment->failed = true;
    segment->end = parser.position;
    finder_close(&parser.finder);
}

/* Joins the segments to the parse of the whole input. It parses from the end of the segment before
 * until it meets the parse of the next segment, and takes the tokens of that segment from there on.
 * Returns false if there is no memory. */
static bool stitch(const SegmentJob *job, size_t count, Tokens *tokens)
{
    Parser parser;
    memset(&parser, 0, sizeof parser);
    parser.tokens = tokens;
    bool fine = finder_open(&parser.finder, job->rules, job->in, job->size);
    for (size_t i = 0; i < count && fine; i++) {
        const Segment *segment = &job->segments[i];
        if (segment->failed || segment->tokens.failed) {
            fine = false;
            break;
        }
        if (parser.position >= segment->end)
            continue;
        MatchCursor matches =
            matches_from(segment->tokens.words, segment->tokens.count, segment->start);
        const u32 meeting[2] = {segment->start, segment->end};
        Guide guide = {matches, segment->end, meeting, 1, 0};
        if (parser.position > segment->start && lazy_parse(&parser, &guide, segment->end) != MET)
            continue;
        while (guide.matches.end != NOWHERE)
            lazy_take(&parser, &guide.matches);
        parser.position = segment->end;
    }
    tokens_literals(tokens, job->size - parser.literals);
    finder_close(&parser.finder);
    return fine;
}

static bool parse_parallel(const Rules *rules, const u8 *in, u32 size, int threads, u32 row,
                           Tokens *tokens)
{
    size_t count = min32((u32)threads * SEGMENTS_PER_THREAD, size / LEAST_SEGMENT);
    Segment *segments = calloc(count, sizeof *segments);
    SegmentJob job = {rules, in, size, segments};
    if (!segments)
        return false;
    for (size_t i = 0; i < count; i++) {
        u32 cut = (u32)((u64)size * i / count);
        segments[i].start = row ? cut / row * row : cut;
        segments[i].stop = NOWHERE;
        if (i)
            segments[i - 1].stop = segments[i].start;
    }
    run_parallel(threads, count, parse_segment, &job);
    bool fine = stitch(&job, count, tokens) && !tokens->failed;
    for (size_t i = 0; i < count; i++)
        tokens_free(&segments[i].tokens);
    free(segments);
    return fine;
}

bool kernel_deflate(const Params *params, const u8 *in, u32 size, int threads, u32 row,
                    Stream *stream)
{
    Rules rules = rules_of(params);
    memset(stream, 0, sizeof *stream);
    stream->params = *params;
    stream->size = size;
    if (rules.kind == PARSE_STORED)
        return emit_stored(in, size, &stream->body, &stream->body_size);
    bool cut = threads > 1 && rules.kind == PARSE_LAZY && size >= 2 * LEAST_SEGMENT;
    bool fine = cut ? parse_parallel(&rules, in, size, threads, row, &stream->tokens)
                    : parse_all(&rules, in, size, &stream->tokens);
    return fine && finish(stream, &rules, in, threads, NULL, NULL, 0);
}

/* ---- From a reference -------------------------------------------------------------------- */

/* The decisions of a parser before a clean position depend on no byte at this distance behind
 * it. */
enum { SIGHT = LONGEST_MATCH + 2 };

typedef struct {
    u32 *pairs; /* pairs (start, end) */
    size_t count, room;
} Ranges;

/* Appends a pair. Returns false if there is no memory. */
static bool ranges_add(Ranges *ranges, u32 start, u32 end)
{
    if (ranges->count == ranges->room) {
        size_t room = ranges->room ? ranges->room * 2 : 64;
        u32 *pairs = realloc(ranges->pairs, room * 2 * sizeof *pairs);
        if (!pairs)
            return false;
        ranges->pairs = pairs;
        ranges->room = room;
    }
    ranges->pairs[2 * ranges->count] = start;
    ranges->pairs[2 * ranges->count + 1] = end;
    ranges->count++;
    return true;
}

/* Finds the ranges in which the two inputs differ. Differences with fewer than `gap` equal bytes
 * between them become one range. Returns false if there is no memory. */
static bool find_changes(const u8 *old, const u8 *new, u32 size, u32 gap, Ranges *changes)
{
    enum { STEP = 64 };
    u32 at = 0;
    while (at < size) {
        while (size - at >= STEP && memcmp(old + at, new + at, STEP) == 0)
            at += STEP;
        while (at < size && old[at] == new[at])
            at++;
        if (at == size)
            break;
        u32 start = at, equal = 0;
        while (at < size && equal < gap) {
            if (equal && size - at >= STEP && memcmp(old + at, new + at, STEP) == 0) {
                equal += STEP;
                at += STEP;
            } else {
                equal = old[at] == new[at] ? equal + 1 : 0;
                at++;
            }
        }
        if (!ranges_add(changes, start, at - equal))
            return false;
    }
    return true;
}

/* Finds the ranges in which the parse may meet the reference. A range begins `reach` bytes behind a
 * change, where no match reaches back into the change. It ends SIGHT bytes before the next change.
 * Returns false if there is no memory. */
static bool find_meetings(const Ranges *changes, u32 reach, u32 size, Ranges *meetings)
{
    for (size_t i = 0; i < changes->count; i++) {
        u32 next = i + 1 < changes->count ? changes->pairs[2 * i + 2] - SIGHT : size;
        if (!ranges_add(meetings, changes->pairs[2 * i + 1] + reach, next))
            return false;
    }
    return true;
}

/* Makes the tokens of `in`. It repeats two steps: it copies matches of the reference up to SIGHT
 * bytes before the next change; then it parses until the parse meets the reference behind this
 * change or a later one. Adds the ranges of copied matches to `kept`. Returns false if there is no
 * memory. */
static bool parse_delta(const Rules *rules, const Reference *reference, const u8 *in,
                        const Ranges *changes, const Ranges *meetings, Tokens *tokens, Ranges *kept)
{
    u32 size = reference->size;
    Parser parser;
    memset(&parser, 0, sizeof parser);
    parser.tokens = tokens;
    Guide guide = {matches_from(reference->words, reference->count, 0), size, meetings->pairs,
                   meetings->count, 0};
    bool fine = finder_open(&parser.finder, rules, in, size);
    size_t next = 0; /* number of the next change */
    while (fine) {
        u32 met = parser.position;
        u32 safe = next < changes->count ? changes->pairs[2 * next] : NOWHERE;
        safe -= min32(safe, SIGHT);
        while (guide.matches.end <= safe)
            lazy_take(&parser, &guide.matches);
        if (next == changes->count) {
            fine = ranges_add(kept, met, size);
            break;
        }
        fine = ranges_add(kept, met, parser.position);
        if (lazy_parse(&parser, &guide, NOWHERE) != MET)
            break;
        next = ++guide.next; /* the change before each used or skipped meeting range is done */
    }
    tokens_literals(tokens, size - parser.literals);
    finder_close(&parser.finder);
    return fine && !tokens->failed;
}

bool kernel_deflate_delta(const Params *params, const Reference *reference, const u8 *in, u32 size,
                          int threads, u32 row, Stream *stream)
{
    Rules rules = rules_of(params);
    if (rules.kind != PARSE_LAZY || reference->size != size)
        return kernel_deflate(params, in, size, threads, row, stream);
    Ranges changes = {0}, meetings = {0}, kept = {0};
    memset(stream, 0, sizeof *stream);
    stream->params = *params;
    stream->size = size;
    const OldStream *old = reference->stream.body ? &reference->stream : NULL;
    bool fine = find_changes(reference->in, in, size, rules.reach + 2 * SIGHT, &changes) &&
                find_meetings(&changes, rules.reach, size, &meetings) &&
                parse_delta(&rules, reference, in, &changes, &meetings, &stream->tokens, &kept) &&
                finish(stream, &rules, in, threads, old, kept.pairs, kept.count);
    free(changes.pairs);
    free(meetings.pairs);
    free(kept.pairs);
    return fine;
}
