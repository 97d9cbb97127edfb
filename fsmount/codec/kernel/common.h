/* Definitions that every file of the kernel uses: integer names, unaligned loads, bit operations.
 *
 * The kernel reads its input eight bytes at a time. All such loads go through memcpy, so they need
 * no alignment; compilers turn the memcpy into one instruction. A load returns the bytes in
 * little-endian order on every machine: the byte at the lowest address becomes the lowest byte of
 * the number.
 */
#ifndef FSMOUNT_KERNEL_COMMON_H
#define FSMOUNT_KERNEL_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FROM_LITTLE_32(value) __builtin_bswap32(value)
#define FROM_LITTLE_64(value) __builtin_bswap64(value)
#else
#define FROM_LITTLE_32(value) (value)
#define FROM_LITTLE_64(value) (value)
#endif

/* Reads 4 bytes at `at`, lowest byte first. */
static inline u32 load32(const u8 *at)
{
    u32 value;
    memcpy(&value, at, sizeof value);
    return FROM_LITTLE_32(value);
}

/* Reads 8 bytes at `at`, lowest byte first. */
static inline u64 load64(const u8 *at)
{
    u64 value;
    memcpy(&value, at, sizeof value);
    return FROM_LITTLE_64(value);
}

/* Writes 8 bytes at `at`, lowest byte first. */
static inline void store64(u8 *at, u64 value)
{
    value = FROM_LITTLE_64(value);
    memcpy(at, &value, sizeof value);
}

/* Returns how many of the lowest bytes of `value` are zero (0 to 7). `value` must not be 0. */
static inline u32 zero_bytes(u64 value)
{
#if defined(__GNUC__)
    return (u32)__builtin_ctzll(value) >> 3;
#else
    u32 count = 0;
    for (; !(value & 255); value >>= 8)
        count++;
    return count;
#endif
}

static inline u32 min32(u32 a, u32 b) { return a < b ? a : b; }
static inline u32 max32(u32 a, u32 b) { return a > b ? a : b; }

#if defined(__GNUC__)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#else
#define UNLIKELY(condition) (condition)
#endif

/* Longest input in bytes. Positions are 32-bit numbers, and some code computes positions behind the
 * end of the input, so inputs stay below 2^31 bytes. */
#define LONGEST_INPUT 0x7fffffffu

#endif
