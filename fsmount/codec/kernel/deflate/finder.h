/* Finding matches.
 *
 * zlib puts every position into a chain with all earlier ones whose next three bytes have the same
 * hash (a "bucket" here), looks at the newest `chain` members and takes the longest match, the
 * nearest of equally long ones; a match of at least `nice` bytes ends the search at once. Levels 1
 * to 3 leave the insides of long matches out of the chains; there the search is done just so (the
 * plain chains). From level 4 on every position is in, so the bucket is a function of the input
 * alone, and the answer is a property of sets:
 *     among the bucket's newest `chain` members within reach, the nearest that matches `nice`
 *     bytes or more; without one, the nearest of those that match the most.
 * It is found without walking the bucket. A match of six bytes or more is looked for in a chain of
 * positions whose next SIX bytes hash alike, which is some twenty times shorter. Whether zlib
 * would have got as far as a candidate is told by its rank: every position has its running number
 * in its bucket, and the difference of two numbers is the steps between them. Positions that share
 * six bytes share the bucket; for any other candidate the rank says nothing.
 *
 * Three more rules of zlib's:
 * - position 0 is never found: 0 stands for "none" in its tables;
 * - the newest member of a bucket may be at distance `reach`, all others must be nearer;
 * - nothing is longer than the input that is left, and neither is `nice`.
 */
#ifndef FSMOUNT_KERNEL_FINDER_H
#define FSMOUNT_KERNEL_FINDER_H

#include "../common.h"
#include "rules.h"

/* What is known of a position is kept in rings of the last 65536 positions, one ring for each
 * thing: a walk follows links and little else, and so stays within the first-level cache for
 * longer. Distances that do not fit are 0: no match reaches that far. */
enum { RING = 0xffff, HEAD_BITS = 16 };

/* Positions closer to the end are searched by comparing, without chains: eight bytes cannot be
 * loaded there. */
enum { TAIL = 8 };

typedef struct {
    const u8 *in;
    u32 size;
    const Rules *rules;
    u32 filled;   /* positions before are in the tables */
    u32 *heads6, *heads4;  /* newest position with each hash of six bytes, of four */
    u32 *heads3;           /* newest position in each bucket */
    u16 *members;          /* of each bucket, how many there are, modulo 65536 */
    /* Rings: */
    u16 *links6, *links4, *links3; /* distance to the one before with this hash, 0: none */
    u16 *numbers;          /* running number in the bucket, modulo 65536 */
    u16 *runs;             /* so many positions before it and itself begin the same six equal bytes,
                              and are neighbours in all chains */
} Finder;

/* Chooses the hashes of six and four bytes. They change nothing but the time a search takes, and
 * with factors nobody knows beforehand nobody can make inputs whose chains are all collisions. */
void finder_prepare(u64 seed);

bool finder_open(Finder *finder, const Rules *rules, const u8 *in, u32 size);
void finder_close(Finder *finder);

/* Puts positions up to beyond `position` into the tables, from `filled` on or as far back as
 * matters. */
void finder_fill(Finder *finder, u32 position);

/* The best match at `position` that is longer than `held` bytes: its length, and its distance in
 * `distance`. Less than 3 when there is none. Lazy parser only; chains of levels 4 to 9. */
u32 finder_search(const Finder *finder, u32 position, u32 held, u32 *distance);

/* Whether finder_search() is bound to find nothing, seen at a glance: half of all searches. */
static inline bool finder_sees_nothing(const Finder *finder, u32 position)
{
    /* 0, no candidate, becomes the largest number. */
    return finder->rules->filtered && finder->size - position >= TAIL &&
           finder->links6[position & RING] - 1u >= finder->rules->reach;
}

/* Plain chains, through heads3 and links3: enters `position`, at least three bytes before the end,
 * and returns the newest earlier position with its hash, 0 for none; and zlib's search from there. */
u32 plain_insert(Finder *finder, u32 position);
u32 plain_search(const Finder *finder, u32 position, u32 candidate, u32 *distance);

/* Equal bytes at `a` and `b`, at most `most`; reads no further. */
static inline u32 match_length(const u8 *a, const u8 *b, u32 most)
{
    u32 length = 0;
    for (; length + 8 <= most; length += 8) {
        u64 differing = load64(a + length) ^ load64(b + length);
        if (differing)
            return length + zero_bytes(differing);
    }
    while (length < most && a[length] == b[length])
        length++;
    return length;
}

#endif
