/* Reading a deflate stream: bits, Huffman codes, the headers of blocks (RFC 1951). */
#ifndef FSMOUNT_KERNEL_READER_H
#define FSMOUNT_KERNEL_READER_H

#include "../common.h"
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

static inline u32 get_bits(Reader *reader, u32 bits)
{
    refill(reader);
    return get(reader, bits);
}

/* Whether bits have been taken that were not there. */
static inline bool overrun(const Reader *reader) { return reader->missing * 8 > reader->count; }

/* A Huffman code: short codes by table, longer ones by counting (RFC 1951 section 3.2.2). */
enum { FAST_BITS = 11, NO_SYMBOL = 0xffff };

typedef struct {
    u16 fast[1 << FAST_BITS]; /* symbol << 4 | length, 0: none */
    u16 per_length[16];
    u16 symbols[FIXED_LITERAL_CODES]; /* in the order of their codes */
} Code;

/* False when there are more codes than fit. */
bool code_open(Code *code, const u8 *lengths, int count);

/* The codes of a fixed block, and the lengths of the first of them. */
void fixed_lengths(u8 lengths[FIXED_LITERAL_CODES]);
void fixed_codes(Code *literals, Code *distances);

u32 get_long_symbol(Reader *reader, const Code *code);

/* With at least 15 bits in the reader. */
static inline u32 get_symbol(Reader *reader, const Code *code)
{
    u32 found = code->fast[reader->hold & ((1u << FAST_BITS) - 1)];
    if (!found)
        return get_long_symbol(reader, code);
    get(reader, found & 15);
    return found >> 4;
}

/* The match that begins with the symbol of its length (257 and up), with at least 33 bits in the
 * reader: its length, and its distance in `distance`. 0: there is no such match. */
static inline u32 read_match(Reader *reader, const Code *distances, u32 symbol, u32 *distance)
{
    u32 code = symbol - 257;
    if (code >= 29)
        return 0;
    u32 length = LENGTH_FIRST[code] + get(reader, LENGTH_EXTRA[code]);
    u32 far = get_symbol(reader, distances);
    if (far >= DISTANCE_CODES)
        return 0;
    *distance = DISTANCE_FIRST[far] + get(reader, DISTANCE_EXTRA[far]);
    return length;
}

/* What stands in front of a dynamic block (section 3.2.7), as it was written. */
typedef struct {
    u32 literal_count, distance_count;
    u8 lengths[LITERAL_CODES + DISTANCE_CODES]; /* of both codes, one after the other */
    u32 run_count;                              /* lengths of the run code that are written */
    u8 run[RUN_CODES];
    u32 op_count;                               /* symbols of the run code */
    struct {
        u8 symbol, length;                      /* `length` code lengths at once */
    } ops[LITERAL_CODES + DISTANCE_CODES];
} Header;

bool read_header(Reader *reader, Header *header);

/* Opens the two codes of a header. */
bool header_codes(const Header *header, Code *literals, Code *distances);

/* To the next whole byte, which is returned; the reader goes on `length` bytes behind it. NULL:
 * there are not as many. */
const u8 *read_bytes(Reader *reader, u32 length);

/* Whether all is read but the rest of a byte. */
bool read_ended(const Reader *reader);

#endif
