#include "parse.h"

/* Returns whether the guide is clean at `position`, where the parser is clean, and may be met
 * there. `after_match` chooses between the rules of parse.h: (a) if true, else (b). */
static bool met(Guide *guide, u32 position, bool after_match)
{
    while (guide->next < guide->count && guide->meetings[2 * guide->next + 1] < position)
        guide->next++;
    if (guide->next == guide->count || guide->meetings[2 * guide->next] > position)
        return false;
    MatchCursor *matches = &guide->matches;
    while (matches->end <= position)
        matches_next(matches);
    if (after_match)
        return matches->literals == position;
    return matches->start == NOWHERE ? position <= guide->end : position <= matches->start;
}

LazyEnd lazy_parse(Parser *parser, Guide *guide, u32 stop)
{
    Finder *finder = &parser->finder;
    const u32 size = finder->size, lazy = finder->rules->lazy;
    u32 position = parser->position, literals = parser->literals;
    u32 held = 0, held_distance = 0;
    LazyEnd end = FINISHED;
    while (position < size) {
        if (position >= finder->filled && size - position >= TAIL)
            finder_fill(finder, position);
        u32 distance = 0, length = 0;
        if (held < lazy && !finder_sees_nothing(finder, position))
            length = finder_search(finder, position, held, &distance);
        if (length == 0 && held) {
            /* This position has no longer match, so the parser takes the one at the position
             * before. */
            u32 start = position - 1;
            tokens_match(parser->tokens, start - literals, held, held_distance);
            position = literals = start + held;
            held = 0;
            if (guide && met(guide, position, true)) {
                end = MET;
                break;
            }
            if (UNLIKELY(position >= stop)) {
                end = STOPPED;
                break;
            }
            continue;
        }
        if (length == 0) {
            if (guide && met(guide, position, false)) {
                end = MET;
                break;
            }
            if (UNLIKELY(position >= stop)) {
                end = STOPPED;
                break;
            }
        }
        held = length;
        held_distance = distance;
        position++;
    }
    parser->position = position;
    parser->literals = literals;
    return end;
}

void fast_parse(Parser *parser, u32 stop)
{
    Finder *finder = &parser->finder;
    const u32 size = finder->size, most_inside = finder->rules->lazy;
    u32 position = parser->position;
    while (position < stop && size - position >= SHORTEST_MATCH) {
        u32 candidate = plain_insert(finder, position), length = 0, distance = 0;
        if (candidate)
            length = plain_search(finder, position, candidate, &distance);
        if (length < SHORTEST_MATCH) {
            position++;
            continue;
        }
        tokens_match(parser->tokens, position - parser->literals, length, distance);
        u32 end = parser->literals = position + length;
        /* zlib does not enter the positions inside a long match, nor inside a match after which
         * less than three bytes are left. */
        if (length <= most_inside && size - end >= SHORTEST_MATCH)
            while (++position < end)
                plain_insert(finder, position);
        position = end;
    }
    parser->position = position < stop ? size : position;
}

void rle_parse(Parser *parser, u32 stop)
{
    const u32 size = parser->finder.size;
    u32 position = max32(parser->position, 1); /* the first byte has no byte before it to repeat */
    while (position < stop && position < size && size - position >= SHORTEST_MATCH) {
        const u8 *at = parser->finder.in + position;
        u32 length = 0;
        if (at[0] == at[-1])
            length = match_length(at, at - 1, min32(size - position, LONGEST_MATCH));
        if (length < SHORTEST_MATCH) {
            position += max32(length, 1);
            continue;
        }
        tokens_match(parser->tokens, position - parser->literals, length, 1);
        position = parser->literals = position + length;
    }
    parser->position = position < stop ? size : position;
}

bool parse_all(const Rules *rules, const u8 *in, u32 size, Tokens *tokens)
{
    Parser parser;
    memset(&parser, 0, sizeof parser);
    parser.tokens = tokens;
    bool fine = finder_open(&parser.finder, rules, in, size);
    if (fine && rules->kind == PARSE_LAZY)
        lazy_parse(&parser, NULL, NOWHERE);
    else if (fine && rules->kind == PARSE_FAST)
        fast_parse(&parser, NOWHERE);
    else if (fine && rules->kind == PARSE_RLE)
        rle_parse(&parser, NOWHERE);
    tokens_literals(tokens, size - parser.literals);
    finder_close(&parser.finder);
    return fine && !tokens->failed;
}
