/* Reads the input of a fuzzer as a small program that builds bytes: literal bytes, runs, repeats of
 * earlier bytes, noise. So a few bytes of input make long, structured data, as deflate needs them.
 * The last bytes of the input are separate: they say how to edit the data. */
#ifndef FSMOUNT_FUZZ_PROGRAM_H
#define FSMOUNT_FUZZ_PROGRAM_H

#include "../../fsmount/codec/kernel/common.h"

/* Largest number of bytes that build() makes. */
#ifndef MOST_RAW
#define MOST_RAW 700000u
#endif

typedef struct {
    const u8 *at, *end;
} Program;

static u32 take(Program *program) { return program->at < program->end ? *program->at++ : 0; }
static u32 take2(Program *program)
{
    u32 low = take(program);
    return low | take(program) << 8;
}

/* Cuts off the end of `program`, at most a quarter of it and 64 bytes, and returns that end. */
static Program take_end(Program *program)
{
    Program end = {program->end - min32((u32)(program->end - program->at) / 4, 64), program->end};
    program->end = end.at;
    return end;
}

static u32 noise_state;
static u8 noise(void)
{
    noise_state = noise_state * 1664525u + 1013904223u;
    return (u8)(noise_state >> 24);
}

/* Returns the number of bytes that an instruction makes: mostly few, sometimes many. */
static u32 amount(Program *program)
{
    u32 value = take(program);
    if (value < 160)
        return 1 + value % 20;
    if (value < 220)
        return 1 + take(program);
    if (value < 248)
        return 200 + take2(program) % 2000;
    return take2(program) + 1;
}

static u32 build_into(Program *program, u8 *raw, u32 most)
{
    u32 size = 0;
    while (program->at < program->end && size < most) {
        u32 what = take(program), count = min32(amount(program), most - size);
        u32 distance;
        switch (what % 9) {
        case 0: /* bytes of the program */
            for (u32 i = 0; i < min32(count, 40); i++)
                raw[size++] = (u8)take(program);
            break;
        case 1:
        case 2: /* a run, mostly of zeros */
            memset(raw + size, what & 64 ? (int)take(program) : 0, count);
            size += count;
            break;
        case 3:
        case 4:
        case 5: /* a repeat of earlier bytes, often with the last byte changed */
            distance = take2(program);
            if (what & 64)
                distance &= 15;
            if (what & 128)
                distance &= 1023;
            distance = min32(distance + 1, size);
            if (distance) {
                for (u32 i = 0; i < count; i++)
                    raw[size + i] = raw[size + i - distance];
                if (what & 32)
                    raw[size + count - 1] ^= (u8)(1u << (what & 7));
            }
            size += distance ? count : 0;
            break;
        case 6: /* few letters */
            for (u32 letters = 2 + take(program) % 7, i = 0; i < count; i++)
                raw[size++] = noise() % letters;
            break;
        case 7: /* noise */
            for (u32 i = 0; i < count; i++)
                raw[size++] = noise();
            break;
        default: /* a change of an earlier byte */
            if (size)
                raw[((take2(program) << 8) + take(program)) % size] ^= (u8)count;
        }
    }
    return size;
}

/* Copies the bytes to a heap block of exactly `size` bytes, so that the address sanitizer sees any
 * read behind it. */
static u8 *exact(const void *bytes, size_t size)
{
    u8 *copy = malloc(size + !size);
    if (size)
        memcpy(copy, bytes, size);
    return copy;
}

/* Returns the bytes that the program builds, in a heap block of exactly their size. */
static inline u8 *build(Program *program, u32 *size)
{
    u8 *room = malloc(MOST_RAW);
    *size = build_into(program, room, MOST_RAW);
    u8 *raw = exact(room, *size);
    free(room);
    return raw;
}

/* Changes `bytes` in at most five places, as the program says. */
static inline void edit(Program *program, u8 *bytes, u32 size)
{
    u32 edits = size ? take(program) % 6 : 0;
    while (edits--) {
        u32 at = ((take2(program) << 8) + take(program)) % size;
        u32 how = take(program), count = min32(amount(program), size - at);
        if (how & 128)
            at = how & 64 ? size - count : 0;
        if (how & 1)
            for (u32 i = 0; i < count; i++)
                bytes[at + i] = noise();
        else if (how & 2)
            memset(bytes + at, (int)take(program), count);
        else if (how & 4)
            bytes[at] ^= (u8)(1u << (how >> 3 & 7));
        else
            memmove(bytes + at, bytes + at / 2, count);
    }
}

#endif
