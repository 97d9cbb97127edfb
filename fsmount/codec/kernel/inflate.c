#include "inflate.h"

#include "rules.h"
#include "trees.h"

/* Bits, lowest first. Past the end come zeros, and are counted. */
typedef struct {
    const u8 *at, *end;
    u64 hold;
    u32 count;
    u32 missing; /* bytes read past the end */
} Reader;

/* At least 56 bits, which is more than a match takes (15 + 5 and 15 + 13). */
static inline void refill(Reader *reader)
{
    if (reader->end - reader->at >= 8) {
        reader->hold |= load64(reader->at) << reader->count;
        reader->at += (63 - reader->count) >> 3;
        reader->count |= 56;
        return;
    }
    for (; reader->count < 56; reader->count += 8) {
        if (reader->at < reader->end)
            reader->hold |= (u64)*reader->at++ << reader->count;
        else
            reader->missing++;
    }
}

static inline u32 get(Reader *reader, u32 bits)
{
    u32 value = (u32)(reader->hold & (((u64)1 << bits) - 1));
    reader->hold >>= bits;
    reader->count -= bits;
    return value;
}

static u32 get_bits(Reader *reader, u32 bits)
{
    refill(reader);
    return get(reader, bits);
}

static bool overrun(const Reader *reader) { return reader->missing * 8 > reader->count; }

/* A Huffman code: short codes by table, longer ones by counting (RFC 1951 section 3.2.2). */
enum { FAST_BITS = 11, NO_SYMBOL = 0xffff };

typedef struct {
    u16 fast[1 << FAST_BITS]; /* symbol << 4 | length, 0: none */
    u16 per_length[16];
    u16 symbols[FIXED_LITERAL_CODES]; /* in the order of their codes */
} Code;

static bool code_open(Code *code, const u8 *lengths, int count)
{
    u16 codes[FIXED_LITERAL_CODES], places[16];
    memset(code, 0, sizeof *code);
    for (int symbol = 0; symbol < count; symbol++)
        code->per_length[lengths[symbol]]++;
    code->per_length[0] = 0;
    int left = 1; /* codes still free */
    for (int bits = 1; bits < 16; bits++) {
        left = 2 * left - code->per_length[bits];
        if (left < 0)
            return false;
    }
    places[1] = 0;
    for (int bits = 1; bits < 15; bits++)
        places[bits + 1] = (u16)(places[bits] + code->per_length[bits]);
    tree_codes(lengths, count, codes);
    for (int symbol = 0; symbol < count; symbol++) {
        u32 bits = lengths[symbol];
        if (!bits)
            continue;
        code->symbols[places[bits]++] = (u16)symbol;
        if (bits <= FAST_BITS)
            for (u32 i = codes[symbol]; i < 1u << FAST_BITS; i += 1u << bits)
                code->fast[i] = (u16)(symbol << 4 | (int)bits);
    }
    return true;
}

static u32 get_long_symbol(Reader *reader, const Code *code)
{
    u32 value = 0, first = 0, index = 0;
    for (u32 bits = 1; bits < 16; bits++) {
        value |= (u32)(reader->hold >> (bits - 1)) & 1;
        u32 count = code->per_length[bits];
        if (value - first < count) {
            get(reader, bits);
            return code->symbols[index + value - first];
        }
        index += count;
        first = (first + count) << 1;
        value <<= 1;
    }
    return NO_SYMBOL;
}

/* With at least 15 bits in the reader. */
static inline u32 get_symbol(Reader *reader, const Code *code)
{
    u32 found = code->fast[reader->hold & ((1u << FAST_BITS) - 1)];
    if (!found)
        return get_long_symbol(reader, code);
    get(reader, found & 15);
    return found >> 4;
}

static bool read_codes(Reader *reader, Code *literals, Code *distances)
{
    static const u8 order[RUN_CODES] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                        11, 4,  12, 3, 13, 2, 14, 1, 15};
    u8 lengths[32 + FIXED_LITERAL_CODES] = {0};
    u32 literal_count = get_bits(reader, 5) + 257, distance_count = get_bits(reader, 5) + 1;
    u32 run_count = get_bits(reader, 4) + 4, all = literal_count + distance_count;
    if (literal_count > LITERAL_CODES || distance_count > DISTANCE_CODES)
        return false;
    for (u32 i = 0; i < run_count; i++)
        lengths[order[i]] = (u8)get_bits(reader, 3);
    if (!code_open(literals, lengths, RUN_CODES)) /* for a moment the code of the lengths */
        return false;
    memset(lengths, 0, sizeof lengths);
    for (u32 i = 0; i < all;) {
        refill(reader);
        u32 symbol = get_symbol(reader, literals);
        if (symbol < 16) {
            lengths[i++] = (u8)symbol;
            continue;
        }
        if (symbol == NO_SYMBOL || (symbol == 16 && i == 0))
            return false;
        u32 run = symbol == 16   ? get(reader, 2) + 3
                  : symbol == 17 ? get(reader, 3) + 3
                                 : get(reader, 7) + 11;
        if (run > all - i)
            return false;
        memset(lengths + i, symbol == 16 ? lengths[i - 1] : 0, run);
        i += run;
    }
    return code_open(literals, lengths, (int)literal_count) &&
           code_open(distances, lengths + literal_count, (int)distance_count);
}

static void fixed_codes(Code *literals, Code *distances)
{
    u8 lengths[FIXED_LITERAL_CODES];
    for (int i = 0; i < FIXED_LITERAL_CODES; i++)
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    code_open(literals, lengths, FIXED_LITERAL_CODES);
    memset(lengths, 5, DISTANCE_CODES);
    code_open(distances, lengths, DISTANCE_CODES);
}

typedef struct {
    Reader reader;
    const u8 *raw;
    u32 size, position, literals;
    Seen *seen;
} Inflate;

static bool read_stored(Inflate *inflate, SeenBlock *block)
{
    Reader *reader = &inflate->reader;
    get(reader, reader->count & 7);
    u32 length = get_bits(reader, 16), inverse = get_bits(reader, 16);
    /* What the reader holds beyond goes back. */
    u32 held = reader->count >> 3;
    if (overrun(reader) || held < reader->missing || length != (inverse ^ 0xffff))
        return false;
    reader->at -= held - reader->missing;
    reader->hold = reader->count = reader->missing = 0;
    if (length > (size_t)(reader->end - reader->at) || length > inflate->size - inflate->position ||
        (length && memcmp(reader->at, inflate->raw + inflate->position, length) != 0))
        return false;
    reader->at += length;
    inflate->position += length;
    block->kind = BLOCK_STORED;
    return true;
}

static bool read_symbols(Inflate *inflate, const Code *literals, const Code *distances,
                         SeenBlock *block)
{
    Reader reader = inflate->reader;
    const u8 *raw = inflate->raw;
    u32 position = inflate->position, size = inflate->size, symbols = 0;
    for (;; symbols++) {
        refill(&reader);
        u32 symbol = get_symbol(&reader, literals);
        if (symbol < END_OF_BLOCK) {
            if (position == size || raw[position] != symbol)
                return false;
            position++;
            continue;
        }
        if (symbol == END_OF_BLOCK)
            break;
        if (symbol >= LITERAL_CODES)
            return false;
        u32 code = symbol - 257;
        u32 length = LENGTH_FIRST[code] + get(&reader, LENGTH_EXTRA[code]);
        code = get_symbol(&reader, distances);
        if (code >= DISTANCE_CODES)
            return false;
        u32 distance = DISTANCE_FIRST[code] + get(&reader, DISTANCE_EXTRA[code]);
        if (distance > position || distance > 32768 - WINDOW_RESERVE || length > size - position ||
            memcmp(raw + position, raw + position - distance, length) != 0 || overrun(&reader))
            return false;
        tokens_match(&inflate->seen->tokens, position - inflate->literals, length, distance);
        position = inflate->literals = position + length;
    }
    inflate->reader = reader;
    inflate->position = position;
    block->symbols = symbols;
    return !overrun(&reader);
}

static SeenBlock *new_block(Seen *seen)
{
    if (seen->count == seen->room) {
        size_t room = seen->room ? seen->room * 2 : 64;
        SeenBlock *grown = realloc(seen->blocks, room * sizeof *grown);
        if (!grown)
            return NULL;
        seen->blocks = grown;
        seen->room = room;
    }
    return memset(&seen->blocks[seen->count++], 0, sizeof *seen->blocks);
}

SeenResult inflate_tokens(const u8 *body, size_t body_size, const u8 *raw, u32 size, Seen *seen)
{
    Inflate inflate = {{body, body + body_size, 0, 0, 0}, raw, size, 0, 0, seen};
    Code literals, distances;
    memset(seen, 0, sizeof *seen);
    bool last = false;
    while (!last) {
        SeenBlock *block = new_block(seen);
        if (!block)
            return SEEN_NO_MEMORY;
        block->start = inflate.position;
        block->last = last = get_bits(&inflate.reader, 1);
        block->kind = (BlockKind)get(&inflate.reader, 2);
        bool fine;
        if (block->kind == BLOCK_STORED) {
            fine = read_stored(&inflate, block);
        } else if (block->kind == BLOCK_FIXED) {
            fixed_codes(&literals, &distances);
            fine = read_symbols(&inflate, &literals, &distances, block);
        } else {
            fine = block->kind == BLOCK_DYNAMIC &&
                   read_codes(&inflate.reader, &literals, &distances) &&
                   read_symbols(&inflate, &literals, &distances, block);
        }
        block->end = inflate.position;
        if (!fine)
            return NOT_SEEN;
    }
    tokens_literals(&seen->tokens, inflate.position - inflate.literals);
    const Reader *reader = &inflate.reader;
    u32 held = reader->count >> 3;
    bool ended = reader->at == reader->end && held == reader->missing;
    if (inflate.position != size || !ended)
        return NOT_SEEN;
    return seen->tokens.failed ? SEEN_NO_MEMORY : SEEN;
}

void seen_free(Seen *seen)
{
    tokens_free(&seen->tokens);
    free(seen->blocks);
}
