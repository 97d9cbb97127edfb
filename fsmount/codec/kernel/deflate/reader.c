#include "reader.h"

bool code_open(Code *code, const u8 *lengths, int count)
{
    u16 codes[FIXED_LITERAL_CODES], places[16];
    memset(code, 0, sizeof *code);
    for (int symbol = 0; symbol < count; symbol++)
        code->per_length[lengths[symbol]]++;
    code->per_length[0] = 0;
    int left = 1; /* number of codes of this length that are still free */
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

void fixed_lengths(u8 lengths[FIXED_LITERAL_CODES])
{
    for (int i = 0; i < FIXED_LITERAL_CODES; i++)
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
}

void fixed_codes(Code *literals, Code *distances)
{
    u8 lengths[FIXED_LITERAL_CODES];
    fixed_lengths(lengths);
    code_open(literals, lengths, FIXED_LITERAL_CODES);
    memset(lengths, 5, DISTANCE_CODES);
    code_open(distances, lengths, DISTANCE_CODES);
}

u32 get_long_symbol(Reader *reader, const Code *code)
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

bool read_header(Reader *reader, Header *header)
{
    Code runs;
    memset(header, 0, sizeof *header);
    header->literal_count = get_bits(reader, 5) + 257;
    header->distance_count = get(reader, 5) + 1;
    header->run_count = get(reader, 4) + 4;
    if (header->literal_count > LITERAL_CODES || header->distance_count > DISTANCE_CODES)
        return false;
    for (u32 i = 0; i < header->run_count; i++)
        header->run[RUN_ORDER[i]] = (u8)get_bits(reader, 3);
    if (!code_open(&runs, header->run, RUN_CODES))
        return false;
    u32 all = header->literal_count + header->distance_count;
    for (u32 i = 0, run; i < all; i += run) {
        refill(reader);
        u32 symbol = get_symbol(reader, &runs);
        if (symbol == NO_SYMBOL || (symbol == 16 && i == 0))
            return false;
        run = symbol < 16    ? 1
              : symbol == 16 ? get(reader, 2) + 3
              : symbol == 17 ? get(reader, 3) + 3
                             : get(reader, 7) + 11;
        if (run > all - i)
            return false;
        u32 length = symbol < 16 ? symbol : symbol == 16 ? header->lengths[i - 1] : 0;
        memset(header->lengths + i, (int)length, run);
        header->ops[header->op_count].symbol = (u8)symbol;
        header->ops[header->op_count++].length = (u8)run;
    }
    return !overrun(reader);
}

bool header_codes(const Header *header, Code *literals, Code *distances)
{
    return code_open(literals, header->lengths, (int)header->literal_count) &&
           code_open(distances, header->lengths + header->literal_count,
                     (int)header->distance_count);
}

const u8 *read_bytes(Reader *reader, u32 length)
{
    get(reader, reader->count & 7);
    /* Give back the whole bytes that the reader holds. */
    u32 held = reader->count >> 3;
    if (held < reader->missing)
        return NULL;
    const u8 *at = reader->at - (held - reader->missing);
    if (length > (size_t)(reader->end - at))
        return NULL;
    reader->at = at + length;
    reader->hold = reader->count = reader->missing = 0;
    return at;
}

bool read_ended(const Reader *reader)
{
    return reader->at == reader->end && reader->count >> 3 == reader->missing;
}
