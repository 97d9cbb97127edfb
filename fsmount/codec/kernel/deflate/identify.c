#include "identify.h"

#include "parse.h"

/* Properties of the whole stream. They rule out parameters before the first prediction. */
typedef struct {
    u32 memory;          /* bit n (1 to 9): the lengths of the blocks allow memLevel n */
    u32 shortest;        /* length of the shortest match */
    u32 farthest;        /* largest distance */
    bool dynamic;        /* some block is dynamic */
    bool all_stored, any_stored;
} Traits;

/* Returns false if no memLevel allows the lengths of the blocks. */
static bool find_traits(const Seen *seen, Traits *traits)
{
    traits->memory = 0x3fe;
    traits->shortest = LONGEST_MATCH;
    traits->farthest = 0;
    traits->dynamic = false;
    traits->all_stored = true;
    traits->any_stored = false;
    for (size_t i = 0; i < seen->count; i++) {
        const SeenBlock *block = &seen->blocks[i];
        bool is_stored = block->kind == BLOCK_STORED;
        traits->all_stored = traits->all_stored && is_stored;
        traits->any_stored = traits->any_stored || is_stored;
        traits->dynamic = traits->dynamic || block->kind == BLOCK_DYNAMIC;
        for (u32 memory = 1; memory <= 9; memory++) {
            u32 full = (64u << memory) - 1, bytes = block->end - block->start;
            bool fits = block->last ? block->symbols <= full : block->symbols == full;
            /* A stored block does not show its symbols. Comparison counts them later. */
            if (is_stored ? !block->last && bytes < full : !fits)
                traits->memory &= ~(1u << memory);
        }
    }
    for (size_t i = 0; i < seen->tokens.count; i++) {
        u32 word = seen->tokens.words[i];
        if (word_is_match(word)) {
            traits->shortest = min32(traits->shortest, word_length(word));
            traits->farthest = max32(traits->farthest, word_distance(word));
        }
    }
    return traits->memory != 0;
}

/* Returns whether zlib's window can still have held every stored block when zlib wrote it. */
static bool in_window(const Seen *seen, const Rules *rules, u32 size)
{
    for (size_t i = 0; i < seen->count; i++) {
        const SeenBlock *block = &seen->blocks[i];
        /* The parser decided on the last symbol of the block within one match before its end. */
        u32 step = block->end - min32(block->end, LONGEST_MATCH + SHORTEST_MATCH);
        if (block->kind == BLOCK_STORED && rules_window_start(rules, size, step) > block->start)
            return false;
    }
    return true;
}

/* Returns whether these rules can give a stream with these properties. */
static bool allowed(const Traits *traits, const Rules *rules)
{
    if (traits->farthest > rules->reach || (rules->fixed && traits->dynamic))
        return false;
    if (rules->kind == PARSE_HUFFMAN)
        return traits->farthest == 0;
    if (rules->kind == PARSE_RLE)
        return traits->farthest <= 1;
    return !(rules->kind == PARSE_LAZY && rules->filtered) || traits->shortest > 5;
}

/* Compares predicted matches one by one with those of the stream. A stored block does not show its
 * matches, so any prediction is possible in it. But the predicted symbols must end with the block,
 * and there must be as many as fill a block. */
typedef struct {
    const Seen *seen;
    MatchCursor matches;
    size_t block;
    u32 full;  /* number of symbols in a block that is not the last */
    u32 saved; /* bytes minus symbols of the matches predicted so far in this stored block */
} Comparison;

static u32 stored_symbols(const Comparison *compare)
{
    const SeenBlock *block = &compare->seen->blocks[compare->block];
    return block->end - block->start - compare->saved;
}

/* Moves on to the block in which `position` lies. Returns false if a stored block that ends before
 * it does not have the number of symbols that fills a block. */
static bool leave_blocks(Comparison *compare, u32 position)
{
    const Seen *seen = compare->seen;
    while (compare->block + 1 < seen->count && seen->blocks[compare->block].end <= position) {
        bool is_stored = seen->blocks[compare->block].kind == BLOCK_STORED;
        if (is_stored && stored_symbols(compare) != compare->full)
            return false;
        compare->block++;
        compare->saved = 0;
    }
    return true;
}

static bool same_match(Comparison *compare, u32 start, u32 word)
{
    if (!leave_blocks(compare, start))
        return false;
    const SeenBlock *block = &compare->seen->blocks[compare->block];
    if (block->kind == BLOCK_STORED) {
        compare->saved += word_length(word) - 1;
        return start + word_length(word) <= block->end;
    }
    if (compare->matches.start != start || (compare->matches.word ^ word) << 9)
        return false;
    matches_next(&compare->matches);
    return true;
}

static bool same_matches(Comparison *compare, const Tokens *tokens, u32 literals, u32 position)
{
    for (size_t i = 0; i < tokens->count; i++) {
        u32 word = tokens->words[i];
        literals += word_literals(word);
        if (!word_is_match(word))
            continue;
        if (!same_match(compare, literals, word))
            return false;
        literals += word_length(word);
    }
    return compare->matches.start >= position && leave_blocks(compare, position);
}

/* Returns false if the last block is stored and has more symbols than fit. */
static bool same_end(const Comparison *compare)
{
    const SeenBlock *block = &compare->seen->blocks[compare->block];
    return block->kind != BLOCK_STORED || stored_symbols(compare) <= compare->full;
}

/* Returns 1 if the rules predict the tokens of the first `limit` bytes, 0 if not, -1 if there is no
 * memory. */
static int predicts(const Rules *rules, const Seen *seen, const u8 *raw, u32 size, u32 limit)
{
    Tokens tokens = {NULL, 0, 0, false};
    Parser parser;
    memset(&parser, 0, sizeof parser);
    parser.tokens = &tokens;
    Comparison compare = {seen, matches_from(seen->tokens.words, seen->tokens.count, 0), 0,
                          rules->symbols, 0};
    int result = finder_open(&parser.finder, rules, raw, size) ? 1 : -1;
    u32 stop = 0, step = 1 << 10; /* the first step is short: it rules out most wrong parameters */
    while (result > 0 && parser.position < min32(size, limit)) {
        u32 literals = parser.literals;
        tokens.count = 0;
        stop = min32(stop, LONGEST_INPUT - step) + step;
        if (rules->kind == PARSE_LAZY)
            lazy_parse(&parser, NULL, stop);
        else if (rules->kind == PARSE_FAST)
            fast_parse(&parser, stop);
        else if (rules->kind == PARSE_RLE)
            rle_parse(&parser, stop);
        else
            parser.position = size;
        result = tokens.failed ? -1 : same_matches(&compare, &tokens, literals, parser.position);
        step = min32(step * 2, 1 << 16);
    }
    if (result > 0 && parser.position >= size)
        result = same_end(&compare);
    finder_close(&parser.finder);
    tokens_free(&tokens);
    return result;
}

/* All pairs (level, strategy) that give different results, likeliest first. Z_RLE and
 * Z_HUFFMAN_ONLY ignore the level. Levels 1 to 3 ignore Z_FILTERED. */
static const u8 MODES[][2] = {
    {6, STRATEGY_FILTERED}, {6, STRATEGY_DEFAULT}, {9, STRATEGY_FILTERED}, {9, STRATEGY_DEFAULT},
    {1, STRATEGY_DEFAULT},  {6, STRATEGY_RLE},     {2, STRATEGY_DEFAULT},  {3, STRATEGY_DEFAULT},
    {7, STRATEGY_FILTERED}, {7, STRATEGY_DEFAULT}, {8, STRATEGY_FILTERED}, {8, STRATEGY_DEFAULT},
    {5, STRATEGY_FILTERED}, {5, STRATEGY_DEFAULT}, {4, STRATEGY_FILTERED}, {4, STRATEGY_DEFAULT},
    {6, STRATEGY_HUFFMAN},  {6, STRATEGY_FIXED},   {9, STRATEGY_FIXED},    {1, STRATEGY_FIXED},
    {2, STRATEGY_FIXED},    {3, STRATEGY_FIXED},   {4, STRATEGY_FIXED},    {5, STRATEGY_FIXED},
    {7, STRATEGY_FIXED},    {8, STRATEGY_FIXED},
};
static const u8 MEMORIES[] = {8, 9, 7, 6, 5, 4, 3, 2, 1};

/* Returns whether `found` has parameters that write their tokens in the same way as these do. The
 * caller asks only if every entry of `found` predicts all tokens of the stream. */
static bool have_like(const Params *found, int count, const Rules *rules, int window_bits)
{
    for (int i = 0; i < count; i++) {
        Rules other = rules_of(&found[i]);
        if (found[i].window_bits == window_bits && other.fixed == rules->fixed &&
            other.ahead == rules->ahead)
            return true;
    }
    return false;
}

/* Adds parameters to the `count` that are in `found`. Returns the new count; -1: no memory. */
static int find_candidates(const Seen *seen, const Traits *traits, const u8 *raw, u32 size,
                           u32 limit, Params *found, int count)
{
    bool all_seen = !traits->any_stored && size <= limit;
    for (int window_bits = 15; window_bits >= 9; window_bits--) {
        if (window_bits < 15 && size <= (1u << window_bits) - WINDOW_RESERVE)
            continue; /* the input is smaller than the window, so the result is that of 15 bits */
        for (size_t i = 0; i < sizeof MEMORIES; i++)
            for (size_t j = 0; j < sizeof MODES / sizeof *MODES; j++) {
                Params params = {MODES[j][0], MODES[j][1], MEMORIES[i], window_bits};
                Rules rules = rules_of(&params);
                if (!(traits->memory >> params.memory & 1) || !allowed(traits, &rules) ||
                    !in_window(seen, &rules, size) ||
                    (all_seen && have_like(found, count, &rules, window_bits)))
                    continue;
                int result = predicts(&rules, seen, raw, size, limit);
                if (result < 0)
                    return -1;
                if (result)
                    found[count++] = params;
                if (count == MOST_CANDIDATES)
                    return count;
            }
    }
    return count;
}

static bool is_level_0(const u8 *body, size_t body_size, const u8 *raw, u32 size)
{
    u8 *stored;
    size_t stored_size;
    if (!emit_stored(raw, size, &stored, &stored_size))
        return false;
    bool same = stored_size == body_size && memcmp(stored, body, body_size) == 0;
    free(stored);
    return same;
}

int identify(const u8 *body, size_t body_size, const u8 *raw, u32 size, u32 limit,
             Params found[MOST_CANDIDATES])
{
    Seen seen;
    Traits traits;
    SeenResult result = inflate_tokens(body, body_size, raw, size, &seen);
    int count = result == SEEN_NO_MEMORY ? -1 : 0;
    if (result == SEEN && find_traits(&seen, &traits)) {
        /* Other levels also store blocks that they cannot compress, so the search goes on. */
        if (traits.all_stored && is_level_0(body, body_size, raw, size)) {
            Params stored = {0, STRATEGY_DEFAULT, 8, 15};
            found[count++] = stored;
        }
        count = find_candidates(&seen, &traits, raw, size, limit, found, count);
    }
    seen_free(&seen);
    return count;
}
