#include "rules.h"

typedef struct {
    u16 good, lazy, nice, chain;
} Effort;

/* The numbers of levels 1 to 9: zlib's configuration_table, which has not changed since 1995. */
static const Effort EFFORTS[10] = {
    {0, 0, 0, 0},       {4, 4, 8, 4},        {4, 5, 16, 8},       {4, 6, 32, 32},
    {4, 4, 16, 16},     {8, 16, 32, 32},     {8, 16, 128, 128},   {8, 32, 128, 256},
    {32, 128, 258, 1024}, {32, 258, 258, 4096},
};

static bool within(int value, int least, int most) { return value >= least && value <= most; }

bool rules_valid(const Params *params)
{
    return within(params->level, 0, 9) && within(params->strategy, 0, 4) &&
           within(params->memory, 1, 9) && within(params->window_bits, 8, 15);
}

Rules rules_of(const Params *params)
{
    const Effort *effort = &EFFORTS[params->level];
    int window_bits = params->window_bits == 8 ? 9 : params->window_bits;
    Rules rules;
    memset(&rules, 0, sizeof rules);
    if (params->level == 0)
        rules.kind = PARSE_STORED;
    else if (params->strategy == STRATEGY_HUFFMAN)
        rules.kind = PARSE_HUFFMAN;
    else if (params->strategy == STRATEGY_RLE)
        rules.kind = PARSE_RLE;
    else
        rules.kind = params->level < 4 ? PARSE_FAST : PARSE_LAZY;
    rules.filtered = params->strategy == STRATEGY_FILTERED;
    rules.fixed = params->strategy == STRATEGY_FIXED;
    rules.good = effort->good;
    rules.lazy = effort->lazy;
    rules.nice = effort->nice;
    rules.chain = effort->chain;
    rules.window = 1u << window_bits;
    rules.reach = rules.window - WINDOW_RESERVE;
    rules.hash_bits = (u32)params->memory + 7;
    rules.hash_shift = (rules.hash_bits + SHORTEST_MATCH - 1) / SHORTEST_MATCH;
    /* The symbol buffer holds one symbol more, but zlib ends the block before the buffer is
     * full. */
    rules.symbols = (1u << (params->memory + 6)) - 1;
    if (rules.kind == PARSE_HUFFMAN)
        rules.ahead = 1;
    else if (rules.kind == PARSE_RLE)
        rules.ahead = LONGEST_MATCH + 1;
    else
        rules.ahead = WINDOW_RESERVE;
    return rules;
}

/* zlib's buffer holds two windows (fill_window()). At the start of a step, zlib checks whether less
 * than `ahead` bytes of input are left in the buffer. If so, and if the parser's index in the
 * buffer is at least 2 * window - WINDOW_RESERVE, zlib slides: it moves the upper window down over
 * the lower one and reads a new upper window. With the whole input available, the buffer always
 * ends at a multiple of the window. So slide number k (from 0) happens at the first step at or
 * after a position that depends on k alone:
 *     max(min(size, end) - (ahead - 1), end - WINDOW_RESERVE)   where   end = (k + 2) * window.
 */
u64 rules_window_start(const Rules *rules, u32 size, u32 step)
{
    u64 window = rules->window;
    u64 full = size / window; /* becomes the number of slides with end <= size */
    full = full > 1 ? full - 1 : 0;
    u64 slides = (step + (u64)rules->ahead - 1) / window;
    slides = slides > 1 ? slides - 1 : 0;
    if (slides < full)
        return slides * window;
    slides = full;
    /* One more slide can happen in the rest of the input, which is shorter than a window. */
    u64 end = (slides + 2) * window;
    u64 first = end - WINDOW_RESERVE;
    if (size + (u64)1 > first + rules->ahead)
        first = size + (u64)1 - rules->ahead;
    if (step >= first)
        slides++;
    return slides * window;
}
