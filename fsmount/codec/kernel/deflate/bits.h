/* Writes bits, lowest first (RFC 1951 section 3.1.1), into memory that grows. */
#ifndef FSMOUNT_KERNEL_BITS_H
#define FSMOUNT_KERNEL_BITS_H

#include "../common.h"

typedef struct {
    u8 *bytes;
    size_t size, room; /* bytes written, bytes allocated */
    u64 hold;          /* bits that do not fill a byte yet */
    u32 count;         /* number of bits in `hold`; less than 8 between two calls */
    bool failed;       /* no memory: bits are missing */
} BitWriter;

/* Makes space for at least `more` bytes. Returns false and sets `failed` if there is no memory. All
 * later calls then fail too. A writer of zeros is empty; the caller frees `bytes`. */
bool bits_grow(BitWriter *writer, size_t more);

/* Appends the lowest `bits` bits (0 to 32) of `value`; its other bits must be 0. Sets `failed` if
 * there is no memory. */
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

/* Returns the number of bits (0 to 7) up to the next whole byte. */
static inline u32 bits_to_byte(const BitWriter *writer) { return -writer->count & 7; }

/* Appends `count` bytes. The writer must be at a whole byte. Sets `failed` if there is no
 * memory. */
void bits_put_bytes(BitWriter *writer, const u8 *bytes, size_t count);

#endif
