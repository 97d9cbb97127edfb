#include "tokens.h"

void tokens_free(Tokens *tokens)
{
    free(tokens->words);
    memset(tokens, 0, sizeof *tokens);
}

bool tokens_grow(Tokens *tokens)
{
    size_t room = tokens->room ? tokens->room * 2 : 1 << 14;
    u32 *words = tokens->failed ? NULL : realloc(tokens->words, room * sizeof *words);
    if (!words) {
        tokens->failed = true;
        return false;
    }
    tokens->words = words;
    tokens->room = room;
    return true;
}

void tokens_literals(Tokens *tokens, u32 literals)
{
    while (literals) {
        u32 some = min32(literals, MOST_LITERALS_ALONE);
        tokens_push(tokens, some << 15 | NO_MATCH);
        literals -= some;
    }
}

MatchCursor matches_from(const u32 *words, size_t count, u32 position)
{
    MatchCursor cursor = {words, count, 0, position, position, position, 0};
    matches_next(&cursor);
    return cursor;
}

void matches_next(MatchCursor *cursor)
{
    u32 position = cursor->literals = cursor->end;
    while (cursor->next < cursor->count) {
        u32 word = cursor->words[cursor->next++];
        position += word_literals(word);
        if (word_is_match(word)) {
            cursor->word = word;
            cursor->start = position;
            cursor->end = position + word_length(word);
            return;
        }
    }
    cursor->start = cursor->end = NOWHERE;
}

bool tokens_sound(const u32 *words, size_t count, u32 size)
{
    u64 position = 0;
    for (size_t i = 0; i < count; i++) {
        u32 word = words[i];
        position += word_literals(word);
        if (word_is_match(word)) {
            if (word_distance(word) > position)
                return false;
            position += word_length(word);
        }
        if (position > size)
            return false;
    }
    return position == size;
}
