/* The tokens of a deflate stream: what the parser decided, before any bit is written.
 *
 * One 32-bit word a match; literals are not stored, they are in the input. A word holds
 *     bits  0-14  distance - 1
 *     bits 15-22  length - 3
 *     bits 23-31  number of literals before the match.
 * zlib never reaches back 32768 bytes (its window keeps a reserve), so a distance field of all
 * ones is free to mean "no match": the upper 17 bits then count literals. Such words come first
 * where more than 511 literals precede a match, as many at once as fit, and after the last match.
 * The same decisions therefore always give the same words.
 */
#ifndef FSMOUNT_KERNEL_TOKENS_H
#define FSMOUNT_KERNEL_TOKENS_H

#include "../common.h"

enum { NO_MATCH = 0x7fff, MOST_LITERALS = 511, MOST_LITERALS_ALONE = 0x1ffff };

typedef struct {
    u32 *words;
    size_t count;
    size_t room;
    bool failed; /* out of memory: words are missing */
} Tokens;

static inline bool word_is_match(u32 word) { return (word & NO_MATCH) != NO_MATCH; }
static inline u32 word_literals(u32 word) { return word >> (word_is_match(word) ? 23 : 15); }
static inline u32 word_length(u32 word) { return (word >> 15 & 255) + 3; }
static inline u32 word_distance(u32 word) { return (word & NO_MATCH) + 1; }

void tokens_free(Tokens *tokens);
bool tokens_grow(Tokens *tokens);

static inline void tokens_push(Tokens *tokens, u32 word)
{
    if (UNLIKELY(tokens->count == tokens->room) && !tokens_grow(tokens))
        return;
    tokens->words[tokens->count++] = word;
}

/* Appends words for literals that no match follows, or none yet. */
void tokens_literals(Tokens *tokens, u32 literals);

static inline void tokens_match(Tokens *tokens, u32 literals, u32 length, u32 distance)
{
    while (UNLIKELY(literals > MOST_LITERALS)) {
        u32 some = min32(literals, MOST_LITERALS_ALONE);
        tokens_push(tokens, some << 15 | NO_MATCH);
        literals -= some;
    }
    tokens_push(tokens, literals << 23 | (length - 3) << 15 | (distance - 1));
}

/* Walks the matches of a token list. After the last match, `start` and `end` are NOWHERE. */
typedef struct {
    const u32 *words;
    size_t count;
    size_t next;   /* word after the match */
    u32 literals;  /* where the literals before the match begin */
    u32 start;     /* where the match begins */
    u32 end;       /* where it ends */
    u32 word;
} MatchCursor;

#define NOWHERE 0xffffffffu

MatchCursor matches_from(const u32 *words, size_t count, u32 position);
void matches_next(MatchCursor *cursor);

/* Whether the words describe an input of exactly `size` bytes, every match within what is behind
 * it. Nothing else of the kernel looks again. */
bool tokens_sound(const u32 *words, size_t count, u32 size);

#endif
