#include "coder.h"

enum { ONE_BITS = 22, SLOWEST = 255 };
enum { LEAST = 1 << (ONE_BITS - 16), MOST = (1 << ONE_BITS) - LEAST };

/* Number of zero bytes that the encoder drops from the end of a record, and that the decoder may
 * read past the end. */
enum { SPARED = 4 };

/* How far a bit moves the probability of its context, in units of 2^-16, by the number of bits
 * coded in the context before. The k-th bit, from 0, moves it by 1 / (k + 1.5): the estimate of
 * Krichevsky and Trofimov. From the 255th bit on the rate stays the same, so the newest bits count
 * most. */
static u32 RATES[SLOWEST + 1];

void coder_prepare(void)
{
    for (u32 seen = 0; seen <= SLOWEST; seen++)
        RATES[seen] = (2u << 16) / (2 * seen + 3);
}

void chances_reset(void *chances, size_t bytes)
{
    Chance *chance = chances;
    for (size_t i = 0; i < bytes / sizeof *chance; i++) {
        chance[i].one = 1u << (ONE_BITS - 1);
        chance[i].seen = 0;
    }
}

void coder_encode(Coder *coder)
{
    memset(coder, 0, sizeof *coder);
    coder->range = 0xffffffffu;
    coder->pending = 1;
}

static u32 next_byte(Coder *coder)
{
    if (coder->at < coder->end)
        return *coder->at++;
    if (++coder->missing > SPARED)
        coder->failed = true;
    return 0;
}

void coder_decode(Coder *coder, const u8 *record, size_t size)
{
    memset(coder, 0, sizeof *coder);
    coder->decoding = true;
    coder->range = 0xffffffffu;
    coder->at = record;
    coder->end = record + size;
    for (int i = 0; i < 5; i++) /* a shift drops the first byte, which is always 0 */
        coder->code = coder->code << 8 | next_byte(coder);
}

static void put_byte(Coder *coder, u8 byte)
{
    if (coder->size == coder->room) {
        size_t room = coder->room ? coder->room * 2 : 1 << 12;
        u8 *grown = coder->failed ? NULL : realloc(coder->out, room);
        if (!grown) {
            coder->failed = true;
            return;
        }
        coder->out = grown;
        coder->room = room;
    }
    coder->out[coder->size++] = byte;
}

/* Moves the highest byte of `low` out. A later carry can still change this byte and all 0xff bytes
 * behind it, so the coder holds them back until no carry can reach them. */
static void shift_low(Coder *coder)
{
    if (coder->low < 0xff000000u || coder->low > 0xffffffffu) {
        u8 carry = (u8)(coder->low >> 32);
        put_byte(coder, (u8)(coder->cache + carry));
        for (; coder->pending > 1; coder->pending--)
            put_byte(coder, (u8)(0xff + carry));
        coder->pending = 0;
        coder->cache = (u8)(coder->low >> 24);
    }
    coder->pending++;
    coder->low = (coder->low & 0x00ffffffu) << 8;
}

/* Keeps `range` at 2^24 or more: shifts by bytes, which it writes or reads. */
static void renew(Coder *coder)
{
    while (coder->range < 1u << 24) {
        coder->range <<= 8;
        if (coder->decoding)
            coder->code = coder->code << 8 | next_byte(coder);
        else
            shift_low(coder);
    }
}

void coder_finish(Coder *coder)
{
    for (int i = 0; i < 5; i++)
        shift_low(coder);
    for (int i = 0; i < SPARED && coder->size && coder->out[coder->size - 1] == 0; i++)
        coder->size--;
}

u32 code_bit(Coder *coder, Chance *chance, u32 bit)
{
    u32 one = chance->one;
    /* Limit the probability to 2^-16 .. 1 - 2^-16, so that neither part of the range is empty. */
    one = one < LEAST ? LEAST : one > MOST ? MOST : one;
    u32 bound = (u32)((u64)coder->range * one >> ONE_BITS);
    if (coder->decoding)
        bit = coder->code < bound;
    if (bit) {
        coder->range = bound;
        chance->one += (u32)((u64)((1u << ONE_BITS) - chance->one) * RATES[chance->seen] >> 16);
    } else {
        if (coder->decoding)
            coder->code -= bound;
        else
            coder->low += bound;
        coder->range -= bound;
        chance->one -= (u32)((u64)chance->one * RATES[chance->seen] >> 16);
    }
    chance->seen += chance->seen < SLOWEST;
    renew(coder);
    return bit;
}

u32 code_flat(Coder *coder, u32 value, u32 bits)
{
    u32 coded = 0;
    while (bits--) {
        coder->range >>= 1;
        u32 bit = value >> bits & 1;
        if (coder->decoding) {
            bit = coder->code >= coder->range;
            coder->code -= bit ? coder->range : 0;
        } else if (bit) {
            coder->low += coder->range;
        }
        coded |= bit << bits;
        renew(coder);
    }
    return coded;
}

u32 code_tree(Coder *coder, Chance *tree, u32 value, u32 bits)
{
    u32 node = 1, count = bits;
    while (bits--)
        node = node << 1 | code_bit(coder, &tree[node], value >> bits & 1);
    return node & (((u32)1 << count) - 1);
}

u32 code_number(Coder *coder, NumberChances *chances, u32 value)
{
    u32 length = 0;
    while (length < 31 && (value + 1) >> (length + 1))
        length++;
    u32 bits = 0;
    while (bits < 31 && code_bit(coder, &chances->length[bits], bits < length))
        bits++;
    u32 coded = 1, shown = bits < 2 ? bits : 2; /* bits behind the leading 1 that have contexts */
    for (u32 i = 0; i < shown; i++)
        coded = coded << 1 |
                code_bit(coder, &chances->first[bits][coded], (value + 1) >> (bits - 1 - i) & 1);
    u32 rest = bits - shown;
    if (rest) {
        u32 low = code_flat(coder, (value + 1) & ((1u << rest) - 1), rest);
        coded = coded << rest | low;
    }
    return coded - 1;
}
