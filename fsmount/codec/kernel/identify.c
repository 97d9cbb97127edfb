#include "identify.h"

#include "parse.h"

/* What the stream as a whole rules out, before anything is predicted. */
typedef struct {
    u32 memory;          /* bits 1..9: memLevels the lengths of the blocks allow */
    u32 shortest;        /* match */
    u32 farthest;        /* distance */
    bool dynamic;        /* has a dynamic block */
    bool all_stored;
} Traits;

static bool find_traits(const Seen *seen, Traits *traits)
{
    traits->memory = 0x3fe;
    traits->shortest = LONGEST_MATCH;
    traits->farthest = 0;
    traits->dynamic = false;
    traits->all_stored = true;
    for (size_t i = 0; i < seen->count; i++) {
        const SeenBlock *block = &seen->blocks[i];
        if (block->kind == BLOCK_STORED)
            continue;
        traits->all_stored = false;
        traits->dynamic = traits->dynamic || block->kind == BLOCK_DYNAMIC;
        for (u32 memory = 1; memory <= 9; memory++) {
            u32 full = (64u << memory) - 1;
            if (block->last ? block->symbols > full : block->symbols != full)
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

/* Compares predicted matches, as they come, with those of the stream. In a stored block anything
 * may have been found, as long as the block ends with a symbol. */
typedef struct {
    const Seen *seen;
    MatchCursor matches;
    size_t block;
} Comparison;

static bool same_match(Comparison *compare, u32 start, u32 word)
{
    const Seen *seen = compare->seen;
    while (compare->block + 1 < seen->count && seen->blocks[compare->block].end <= start)
        compare->block++;
    const SeenBlock *block = &seen->blocks[compare->block];
    if (block->kind == BLOCK_STORED)
        return start + word_length(word) <= block->end;
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
    return compare->matches.start >= position;
}

/* 1: the rules predict the tokens; 0: they do not; -1: no memory. */
static int predicts(const Rules *rules, const Seen *seen, const u8 *raw, u32 size, u32 limit)
{
    Tokens tokens = {NULL, 0, 0, false};
    Parser parser;
    memset(&parser, 0, sizeof parser);
    parser.tokens = &tokens;
    Comparison compare = {seen, matches_from(seen->tokens.words, seen->tokens.count, 0), 0};
    int result = finder_open(&parser.finder, rules, raw, size) ? 1 : -1;
    u32 stop = 0, step = 1 << 10; /* most of the wrong parameters are found out at once */
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
    finder_close(&parser.finder);
    tokens_free(&tokens);
    return result;
}

/* Every (level, strategy) that makes a difference, likeliest first. Z_RLE and Z_HUFFMAN_ONLY do
 * not look at the level, levels 1 to 3 not at Z_FILTERED. */
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

static int find_candidates(const Seen *seen, const Traits *traits, const u8 *raw, u32 size,
                           u32 limit, Params *found)
{
    int count = 0;
    for (int window_bits = 15; window_bits >= 9; window_bits--) {
        if (window_bits < 15 && size <= (1u << window_bits) - WINDOW_RESERVE)
            continue; /* the input ends before the window does, as with 15 */
        for (size_t i = 0; i < sizeof MEMORIES; i++)
            for (size_t j = 0; j < sizeof MODES / sizeof *MODES; j++) {
                Params params = {MODES[j][0], MODES[j][1], MEMORIES[i], window_bits};
                Rules rules = rules_of(&params);
                if (!(traits->memory >> params.memory & 1) || !allowed(traits, &rules))
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
        if (traits.all_stored && is_level_0(body, body_size, raw, size)) {
            Params stored = {0, STRATEGY_DEFAULT, 8, 15};
            found[count++] = stored;
        } else {
            count = find_candidates(&seen, &traits, raw, size, limit, found);
        }
    }
    seen_free(&seen);
    return count;
}
