/* The tokens of a deflate stream: the decisions of the parser.
 *
 * A list of tokens has one 32-bit word for each match. It does not store literals, because they are
 * in the input. A word holds
 *     bits  0-14  distance - 1
 *     bits 15-22  length - 3
 *     bits 23-31  number of literals before the match.
 * No match of zlib has a distance of 32768, because zlib keeps a reserve in its window. So a
 * distance field of all ones can mean "no match"; the upper 17 bits then are a number of literals.
 * Such words stand before a match if more than 511 literals precede it, each with as many literals
 * as fit, and after the last match. The same decisions therefore always give the same words.
 */
#ifndef FSMOUNT_KERNEL_TOKENS_H
#define FSMOUNT_KERNEL_TOKENS_H

#include "../common.h"

enum { NO_MATCH = 0x7fff, MOST_LITERALS = 511, MOST_LITERALS_ALONE = 0x1ffff };

typedef struct {
    u32 *words;
    size_t count;
    size_t room; /* number of words that fit into the memory */
    bool failed; /* no memory: words are missing */
} Tokens;

/* Parts of a word. Length and distance are those of a match only. */
static inline bool word_is_match(u32 word) { return (word & NO_MATCH) != NO_MATCH; }
static inline u32 word_literals(u32 word) { return word >> (word_is_match(word) ? 23 : 15); }
static inline u32 word_length(u32 word) { return (word >> 15 & 255) + 3; }
static inline u32 word_distance(u32 word) { return (word & NO_MATCH) + 1; }

/* Frees the words and empties the list. A list of zeros is empty too. */
void tokens_free(Tokens *tokens);

/* Makes space for more words. Returns false and sets `failed` if there is no memory. All later
 * calls then fail too. */
bool tokens_grow(Tokens *tokens);

/* Appends a word. Sets `failed` if there is no memory. */
static inline void tokens_push(Tokens *tokens, u32 word)
{
    if (UNLIKELY(tokens->count == tokens->room) && !tokens_grow(tokens))
        return;
    tokens->words[tokens->count++] = word;
}

/* Appends words for the literals at the end of the input. Sets `failed` if there is no memory. */
void tokens_literals(Tokens *tokens, u32 literals);

/* Appends a match (length 3 to 258, distance 1 to 32767) with the number of literals before it.
 * Sets `failed` if there is no memory. */
static inline void tokens_match(Tokens *tokens, u32 literals, u32 length, u32 distance)
{
    while (UNLIKELY(literals > MOST_LITERALS)) {
        u32 some = min32(literals, MOST_LITERALS_ALONE);
        tokens_push(tokens, some << 15 | NO_MATCH);
        literals -= some;
    }
    tokens_push(tokens, literals << 23 | (length - 3) << 15 | (distance - 1));
}

/* Walks over the matches of a list of tokens. Behind the last match, `start` and `end` are
 * NOWHERE. */
typedef struct {
    const u32 *words;
    size_t count;
    size_t next;   /* number of the word after the match */
    u32 literals;  /* position at which the literals before the match begin */
    u32 start;     /* position at which the match begins */
    u32 end;       /* position behind the match */
    u32 word;      /* the word of the match */
} MatchCursor;

#define NOWHERE 0xffffffffu

/* Returns a cursor at the first match of `count` words. `position` is where the first word
 * begins. */
MatchCursor matches_from(const u32 *words, size_t count, u32 position);

/* Moves the cursor to the next match. */
void matches_next(MatchCursor *cursor);

/* Returns whether the words describe an input of exactly `size` bytes in which no match reaches
 * back before the start. No other function of the kernel checks this, so a caller must check words
 * that the kernel did not make. */
bool tokens_sound(const u32 *words, size_t count, u32 size);

#endif
