/* Finds the match that zlib's longest_match() finds.
 *
 * zlib's search: zlib hashes the three bytes at each position. All positions with one hash form a
 * chain; this file calls it a bucket. A search looks at the newest `chain` members of the bucket
 * and takes the longest match; of equally long ones it takes the nearest. A match of at least
 * `nice` bytes ends the search at once.
 *
 * Levels 1 to 3 do not enter the positions inside long matches. For these levels the kernel
 * searches exactly as zlib does (the plain chains below). From level 4 on zlib enters every
 * position. The bucket then depends on the input alone, and the result of a search is a property of
 * sets:
 *     among the bucket's newest `chain` members within reach, the nearest one that matches `nice`
 *     bytes or more; if there is none, the nearest of those that match most bytes.
 *
 * The kernel finds this match without walking the bucket. It looks for matches of six or more bytes
 * in a chain of positions whose next SIX bytes have the same hash. Such a chain is some twenty
 * times shorter. The rank of a candidate says whether zlib's search would reach it: each position
 * has a running number in its bucket, and the difference of two numbers is the number of steps
 * between the positions. Positions that share six bytes are in the same bucket. For any other
 * candidate the rank means nothing.
 *
 * zlib has three more rules:
 * - A search never finds position 0, because 0 stands for "none" in zlib's tables.
 * - The newest member of a bucket may be at distance `reach`; all others must be nearer.
 * - No match is longer than the input that is left, and `nice` is limited to that length too.
 */
#ifndef FSMOUNT_KERNEL_FINDER_H
#define FSMOUNT_KERNEL_FINDER_H

#include "../common.h"
#include "rules.h"

/* Data of the last 65536 positions are in rings. Each kind of data has its own ring: a walk reads
 * little more than the links, so more of them stay in the first-level cache. A distance that does
 * not fit into 16 bits is stored as 0 ("none"), because no match reaches that far. */
enum { RING = 0xffff, HEAD_BITS = 16 };

/* With less than this many bytes left, a search compares all positions and uses no chains, because
 * it cannot load eight bytes there. */
enum { TAIL = 8 };

typedef struct {
    const u8 *in;
    u32 size;
    const Rules *rules;
    u32 filled;            /* all positions before this one are in the tables */
    u32 *heads6, *heads4;  /* newest position with each hash of six bytes, and of four */
    u32 *heads3;           /* newest position in each bucket */
    u16 *members;          /* number of members of each bucket, modulo 65536 */
    /* Rings: */
    u16 *links6, *links4, *links3; /* distance to the position before with this hash; 0: none */
    u16 *numbers;          /* running number in the bucket, modulo 65536 */
    u16 *runs;             /* number of positions right before this one that also begin six bytes of
                              this value; all of them are neighbours in all chains */
} Finder;

/* Chooses the factors of the hashes of six and four bytes from `seed`. They affect only the time
 * that a search takes. An attacker who cannot predict the seed cannot make inputs whose chains
 * consist of collisions. Call it once, before any other function of this file. */
void finder_prepare(u64 seed);

/* Prepares a search in the `size` bytes of `in` by these rules. Both must outlive the finder.
 * Allocates only the tables that the rules need. Returns false if there is no memory. The caller
 * calls finder_close() in any case. */
bool finder_open(Finder *finder, const Rules *rules, const u8 *in, u32 size);

/* Frees the tables. */
void finder_close(Finder *finder);

/* Enters positions into the tables: from `filled`, or from one window before `position`, up to some
 * thousand positions behind `position`. At least TAIL bytes must be left at `position`. Lazy parser
 * only. */
void finder_fill(Finder *finder, u32 position);

/* Finds the best match at `position` that is longer than `held` bytes (zlib's longest_match(), and
 * the matches that deflate_slow() drops). Returns its length (3 to 258) and sets `distance` (1 to
 * reach). Returns 0 if there is none. For the lazy parser (levels 4 to 9) only. `position` must be
 * before `filled`, unless less than TAIL bytes are left. */
u32 finder_search(const Finder *finder, u32 position, u32 held, u32 *distance);

/* Returns true if finder_search() cannot find anything. The test costs little, and is true for
 * about half of all searches. */
static inline bool finder_sees_nothing(const Finder *finder, u32 position)
{
    /* A link of 0 (no candidate) becomes the largest number. */
    return finder->rules->filtered && finder->size - position >= TAIL &&
           finder->links6[position & RING] - 1u >= finder->rules->reach;
}

/* Plain chains, in heads3 and links3. Enters `position` (zlib's INSERT_STRING). At least three
 * bytes must be left there. Returns the newest earlier position with the same hash; 0: none. */
u32 plain_insert(Finder *finder, u32 position);

/* zlib's longest_match() through the plain chains. `candidate` is what plain_insert() returned, not
 * 0. Returns the length of the best match (3 to 258) and sets `distance`. Returns less than 3 if
 * there is none. */
u32 plain_search(const Finder *finder, u32 position, u32 candidate, u32 *distance);

/* Returns the number of equal bytes at `a` and `b`, at most `most`. Reads at most `most` bytes of
 * each. */
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
