/* Writing bits, lowest first, into memory that grows. */
#ifndef FSMOUNT_KERNEL_BITS_H
#define FSMOUNT_KERNEL_BITS_H

#include "../common.h"

typedef struct {
    u8 *bytes;
    size_t size, room;
    u64 hold;
    u32 count;   /* bits in `hold`, less than 8 between two calls */
    bool failed; /* out of memory: bits are missing */
} BitWriter;

bool bits_grow(BitWriter *writer, size_t more);

/* At most 32 bits. */
static inline void bits_put(BitWriter *writer, u32 value, u32 bits)
{
    if (UNLIKELY(writer->room - writer->size < 8) && !bits_grow(writer, 8))
        return;
    writer->hold |= (u64)value << writer->count;
    writer->count += bits;
    store64(writer->bytes + writer->size, writer->hold);
    u32 whole = writer->count >> 3;
    writer->size += whole;
    writer->hold >>= 8 * whole;
    writer->count &= 7;
}

/* What is missing to a whole byte. */
static inline u32 bits_to_byte(const BitWriter *writer) { return -writer->count & 7; }

/* Whole bytes; no bits may be under way. */
void bits_put_bytes(BitWriter *writer, const u8 *bytes, size_t count);

#endif
