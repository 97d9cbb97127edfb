/* zlib's parsers: input to tokens. */
#ifndef FSMOUNT_KERNEL_PARSE_H
#define FSMOUNT_KERNEL_PARSE_H

#include "../common.h"
#include "finder.h"
#include "rules.h"
#include "tokens.h"

/* The whole input, by any parser. False: no memory. */
bool parse_all(const Rules *rules, const u8 *in, u32 size, Tokens *tokens);

/* A parser between two steps. */
typedef struct {
    Finder finder;
    Tokens *tokens;
    u32 position;
    u32 literals;  /* where the literals begin that are not in `tokens` yet */
} Parser;

/* Levels 1 to 3, and Z_RLE: parse up to the end or the first position from `stop` on. */
void fast_parse(Parser *parser, u32 stop);
void rle_parse(Parser *parser, u32 stop);

/* The lazy parser (levels 4 to 9) can be started and stopped. Between two steps all it remembers is the length of
 * the match found at the position before, if any. Right after a match it remembers nothing, and so
 * it does when the last search found nothing: a "clean" position.
 *
 * A guide is another parse of (partly) the same input. Where both parses are clean at the same
 * position and what they can see from there is the same (the input back to `reach`, all that
 * follows), they go on alike for ever, and the rest of the guide can be taken as it is. Seen from
 * here, the guide is clean
 * (a) where one of its matches ends;
 * (b) at a position that is not inside one of its matches, where a search with nothing held finds
 *     nothing. Had the guide held a match from the position before, it would have had to find a
 *     longer one here not to take it; but here there is none, and a search that holds something
 *     finds no more than one that does not. */
typedef struct {
    MatchCursor matches;  /* at the first match of the guide that ends behind the last meeting */
    u32 end;              /* the guide's last clean position */
    const u32 *meetings;  /* pairs (first, last): positions where a meeting is allowed; rising */
    size_t count, next;   /* of the pairs; the next that can matter */
} Guide;

typedef enum { MET, STOPPED, FINISHED } LazyEnd;

/* Parses on from a clean position, until
 *     MET       the guide (NULL: none) has been met at `position`
 *     STOPPED   `position` is clean, and `stop` or behind
 *     FINISHED  the input is used up.
 * Literals since the last match are not in `tokens` then. */
LazyEnd lazy_parse(Parser *parser, Guide *guide, u32 stop);

/* Takes the guide's next match. The parser is clean where the guide is. */
static inline void lazy_take(Parser *parser, MatchCursor *matches)
{
    tokens_match(parser->tokens, matches->start - parser->literals, word_length(matches->word),
                 word_distance(matches->word));
    parser->position = parser->literals = matches->end;
    matches_next(matches);
}

#endif
