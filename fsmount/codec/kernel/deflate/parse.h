/* zlib's parsers, which turn input into tokens: deflate_fast(), deflate_slow(), deflate_rle() and
 * deflate_huff(). */
#ifndef FSMOUNT_KERNEL_PARSE_H
#define FSMOUNT_KERNEL_PARSE_H

#include "../common.h"
#include "finder.h"
#include "rules.h"
#include "tokens.h"

/* Appends the tokens of the whole input to `tokens`, by the parser of the rules (except
 * PARSE_STORED). Returns false if there is no memory. */
bool parse_all(const Rules *rules, const u8 *in, u32 size, Tokens *tokens);

/* A parser between two steps. `position` is the next byte to look at. */
typedef struct {
    Finder finder;
    Tokens *tokens;
    u32 position;
    u32 literals;  /* where the literals begin that are not in `tokens` yet */
} Parser;

/* The parser of levels 1 to 3 (deflate_fast()). Parses up to the first position from `stop` on, or
 * up to the end of the input. If there is no memory, `parser->tokens->failed` is set. */
void fast_parse(Parser *parser, u32 stop);

/* The same for the parser of Z_RLE (deflate_rle()). */
void rle_parse(Parser *parser, u32 stop);

/* The lazy parser (levels 4 to 9) can start and stop in mid-input. Between two steps it remembers
 * only the match at the position before, if there is one. At a "clean" position it remembers
 * nothing: right after a match, and where the last search found nothing.
 *
 * A guide is another parse of an input that is partly the same. Both parses continue in the same
 * way if they are clean at the same position, and if the input is the same from `reach` bytes
 * before that position to the end. This is a meeting; the parser can then take the rest of the
 * guide. If the inputs differ again later, it can take the guide up to there. The parser knows that
 * the guide is clean
 * (a) where one of the guide's matches ends;
 * (b) at a position that is not inside one of the guide's matches, if a search there that holds no
 *     match finds nothing. Proof: suppose that the guide held a match from the position before. It
 *     did not take that match, so it must have found a longer one here. But a search that holds a
 *     match finds no more than one that holds none, and that one finds nothing. */
typedef struct {
    MatchCursor matches;  /* at the first match of the guide that ends behind the last meeting */
    u32 end;              /* the guide's last clean position */
    const u32 *meetings;  /* rising pairs (first, last) of positions: a meeting may happen there */
    size_t count, next;   /* number of pairs; the next pair to use */
} Guide;

typedef enum { MET, STOPPED, FINISHED } LazyEnd;

/* The lazy parser (deflate_slow()). The parser must be at a clean position. It parses on until
 *     MET       the parser has met the guide at `position`
 *     STOPPED   `position` is clean, and is `stop` or behind it
 *     FINISHED  the parser has reached the end of the input.
 * `guide` may be NULL. The literals since the last match are then not in `tokens` yet. If there is
 * no memory, `parser->tokens->failed` is set. */
LazyEnd lazy_parse(Parser *parser, Guide *guide, u32 stop);

/* Takes the next match of the guide, with the literals before it. Parser and guide must have
 * met. */
static inline void lazy_take(Parser *parser, MatchCursor *matches)
{
    tokens_match(parser->tokens, matches->start - parser->literals, word_length(matches->word),
                 word_distance(matches->word));
    parser->position = parser->literals = matches->end;
    matches_next(matches);
}

#endif
