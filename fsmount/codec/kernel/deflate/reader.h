/* Reads the parts of a deflate stream (RFC 1951): bits, Huffman codes, and headers of blocks. */
#ifndef FSMOUNT_KERNEL_READER_H
#define FSMOUNT_KERNEL_READER_H

#include "../common.h"
#include "trees.h"

/* Reads bits, lowest first. Past the end of the bytes it reads zeros and counts them, so the caller
 * may check overrun() later. */
typedef struct {
    const u8 *at, *end; /* bytes that are not in `hold` yet */
    u64 hold;
    u32 count;          /* number of bits in `hold` */
    u32 missing;        /* number of bytes read past the end */
} Reader;

/* Fills `hold` to at least 56 bits. A match takes at most 48 (15 + 5 and 15 + 13). */
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

/* Takes `bits` bits (0 to 32). The reader must hold as many. */
static inline u32 get(Reader *reader, u32 bits)
{
    u32 value = (u32)(reader->hold & (((u64)1 << bits) - 1));
    reader->hold >>= bits;
    reader->count -= bits;
    return value;
}

/* Takes `bits` bits (0 to 32). */
static inline u32 get_bits(Reader *reader, u32 bits)
{
    refill(reader);
    return get(reader, bits);
}

/* Returns whether the caller has taken bits from past the end. */
static inline bool overrun(const Reader *reader) { return reader->missing * 8 > reader->count; }

/* A Huffman code (RFC 1951 section 3.2.2). Codes up to FAST_BITS bits are in a table. Longer ones
 * are decoded bit by bit from the number of codes of each length. */
enum { FAST_BITS = 11, NO_SYMBOL = 0xffff };

typedef struct {
    u16 fast[1 << FAST_BITS]; /* symbol << 4 | length; 0: none */
    u16 per_length[16];       /* number of codes of each length */
    u16 symbols[FIXED_LITERAL_CODES]; /* in the order of their codes */
} Code;

/* Builds the code for `count` symbols with these lengths (0 to 15; 0: unused). Returns false if the
 * code is oversubscribed. An incomplete code is accepted. */
bool code_open(Code *code, const u8 *lengths, int count);

/* The code lengths of literals in a fixed block (RFC 1951 section 3.2.6). */
void fixed_lengths(u8 lengths[FIXED_LITERAL_CODES]);

/* Builds both codes of a fixed block. */
void fixed_codes(Code *literals, Code *distances);

/* Takes a symbol without the table. Returns NO_SYMBOL if no code fits the next bits. The reader
 * must hold at least 15 bits. */
u32 get_long_symbol(Reader *reader, const Code *code);

/* Takes the next symbol. Returns NO_SYMBOL if no code fits. The reader must hold at least 15
 * bits. */
static inline u32 get_symbol(Reader *reader, const Code *code)
{
    u32 found = code->fast[reader->hold & ((1u << FAST_BITS) - 1)];
    if (!found)
        return get_long_symbol(reader, code);
    get(reader, found & 15);
    return found >> 4;
}

/* Reads the rest of a match whose length symbol (257 or more) the caller has taken. The reader must
 * hold at least 33 bits. Returns the length (3 to 258) and sets `distance` (1 to 32768). Returns 0
 * if RFC 1951 has no such symbol or distance code. */
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

/* The header of a dynamic block (RFC 1951 section 3.2.7), exactly as the encoder wrote it. The run
 * code is the Huffman code of the code lengths. */
typedef struct {
    u32 literal_count, distance_count;
    u8 lengths[LITERAL_CODES + DISTANCE_CODES]; /* of the first code, then of the second */
    u32 run_count;                              /* number of run code lengths in the stream */
    u8 run[RUN_CODES];                          /* lengths of the run code, by symbol */
    u32 op_count;                               /* number of symbols of the run code */
    struct {
        u8 symbol, length;                      /* the symbol stands for `length` code lengths */
    } ops[LITERAL_CODES + DISTANCE_CODES];
} Header;

/* Reads a header. Returns false if it is damaged or the stream ends too early. */
bool read_header(Reader *reader, Header *header);

/* Builds the two codes of a header. Returns false if one of them is oversubscribed. */
bool header_codes(const Header *header, Code *literals, Code *distances);

/* Skips the bits up to the next whole byte and returns the address of that byte. Moves the reader
 * `length` bytes behind it. Returns NULL if the stream has fewer bytes left. */
const u8 *read_bytes(Reader *reader, u32 length);

/* Returns whether nothing is left of the stream except bits of its last byte. */
bool read_ended(const Reader *reader);

#endif
