#include "inflate.h"

#include "reader.h"
#include "rules.h"

/* `literals` is where the literals begin that are not in the tokens yet. */
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
    if (overrun(reader) || length != (inverse ^ 0xffff) || length > inflate->size - inflate->position)
        return false;
    const u8 *bytes = read_bytes(reader, length);
    if (!bytes || memcmp(bytes, inflate->raw + inflate->position, length) != 0)
        return false;
    inflate->position += length;
    block->kind = BLOCK_STORED;
    return true;
}

/* Reads the symbols of a block with these codes and compares them with the input. Returns false if
 * the block does not fit the input. */
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
        u32 distance, length = read_match(&reader, distances, symbol, &distance);
        if (!length)
            return false;
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

/* Appends a block of zeros. Returns NULL if there is no memory. */
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
            Header header;
            fine = block->kind == BLOCK_DYNAMIC && read_header(&inflate.reader, &header) &&
                   header_codes(&header, &literals, &distances) &&
                   read_symbols(&inflate, &literals, &distances, block);
        }
        block->end = inflate.position;
        if (!fine)
            return NOT_SEEN;
    }
    tokens_literals(&seen->tokens, inflate.position - inflate.literals);
    if (inflate.position != size || !read_ended(&inflate.reader))
        return NOT_SEEN;
    return seen->tokens.failed ? SEEN_NO_MEMORY : SEEN;
}

void seen_free(Seen *seen)
{
    tokens_free(&seen->tokens);
    free(seen->blocks);
}

/* ---- Streams whose input is not known ---------------------------------------------------- */

/* copy_match() copies this many bytes at once, so it may write up to this many bytes behind the end
 * of a match. */
enum { COPY_STEP = 16 };

typedef struct {
    Reader reader;
    u8 *out;
    u32 size, position;
} Output;

/* Writes a match at `to`. The output has space for LONGEST_MATCH + COPY_STEP bytes there. */
static inline void copy_match(u8 *to, u32 length, u32 distance)
{
    const u8 *from = to - distance;
    if (distance >= COPY_STEP) {
        for (u8 *end = to + length; to < end; to += COPY_STEP, from += COPY_STEP)
            memcpy(to, from, COPY_STEP);
    } else if (distance == 1) {
        memset(to, *from, length);
    } else {
        while (length--)
            *to++ = *from++;
    }
}

/* Writes a match at `to`. `all` is the number of bytes of the output before `to`; `end` is the end
 * of the output. */
static inline InflateResult write_match(u8 *to, const u8 *end, size_t all, u32 length, u32 distance)
{
    if (distance > all)
        return INFLATE_DAMAGED;
    if (end - to >= LONGEST_MATCH + COPY_STEP) {
        copy_match(to, length, distance);
        return INFLATED;
    }
    if (length > (size_t)(end - to))
        return INFLATE_TOO_MUCH;
    for (u32 i = 0; i < length; i++)
        to[i] = to[(ptrdiff_t)i - (ptrdiff_t)distance];
    return INFLATED;
}

/* Inflates up to the end of a block. `to` is a local variable, because for all that the compiler
 * knows every byte that is written might change the fields of `output`. */
static InflateResult write_symbols(Output *output, const Code *literals, const Code *distances)
{
    Reader reader = output->reader;
    u8 *to = output->out + output->position, *end = output->out + output->size;
    InflateResult result = INFLATED;
    while (result == INFLATED) {
        refill(&reader);
        u32 symbol = get_symbol(&reader, literals);
        if (symbol < END_OF_BLOCK) {
            if (to == end) {
                result = INFLATE_TOO_MUCH;
                break;
            }
            *to++ = (u8)symbol;
            if (end - to < 2)
                continue;
            /* The 56 bits of a refill are enough for three literals (45 bits), but not for a match
             * behind two literals (30 + 48 bits). */
            symbol = get_symbol(&reader, literals);
            if (symbol < END_OF_BLOCK) {
                *to++ = (u8)symbol;
                symbol = get_symbol(&reader, literals);
                if (symbol < END_OF_BLOCK) {
                    *to++ = (u8)symbol;
                    continue;
                }
            }
            refill(&reader);
        }
        if (symbol == END_OF_BLOCK)
            break;
        u32 distance, length = read_match(&reader, distances, symbol, &distance);
        if (!length)
            return INFLATE_DAMAGED;
        result = overrun(&reader) ? INFLATE_TRUNCATED
                                  : write_match(to, end, (size_t)(to - output->out), length, distance);
        if (result == INFLATED)
            to += length;
    }
    output->reader = reader;
    output->position = (u32)(to - output->out);
    return overrun(&reader) ? INFLATE_TRUNCATED : result;
}

static InflateResult write_stored(Output *output)
{
    Reader *reader = &output->reader;
    get(reader, reader->count & 7);
    u32 length = get_bits(reader, 16), inverse = get_bits(reader, 16);
    if (overrun(reader))
        return INFLATE_TRUNCATED;
    if (length != (inverse ^ 0xffff))
        return INFLATE_DAMAGED;
    const u8 *bytes = read_bytes(reader, length);
    if (!bytes)
        return INFLATE_TRUNCATED;
    if (length > output->size - output->position)
        return INFLATE_TOO_MUCH;
    memcpy(output->out + output->position, bytes, length);
    output->position += length;
    return INFLATED;
}

InflateResult inflate_bytes(const u8 *body, size_t body_size, u8 *out, u32 size, size_t *used)
{
    Output output = {{body, body + body_size, 0, 0, 0}, out, size, 0};
    Reader *reader = &output.reader;
    Code literals, distances;
    Header header;
    InflateResult result = INFLATED;
    bool last = false;
    while (!last && result == INFLATED) {
        last = get_bits(reader, 1);
        u32 kind = get(reader, 2);
        if (kind == BLOCK_STORED) {
            result = write_stored(&output);
        } else if (kind == BLOCK_FIXED) {
            fixed_codes(&literals, &distances);
            result = write_symbols(&output, &literals, &distances);
        } else if (kind == BLOCK_DYNAMIC && read_header(reader, &header) &&
                   header_codes(&header, &literals, &distances)) {
            result = write_symbols(&output, &literals, &distances);
        } else {
            result = overrun(reader) ? INFLATE_TRUNCATED : INFLATE_DAMAGED;
        }
    }
    if (result == INFLATED && output.position != size)
        result = INFLATE_TRUNCATED;
    *used = body_size - (size_t)(reader->end - reader->at) -
            ((reader->count >> 3) - min32(reader->missing, reader->count >> 3));
    return result;
}
