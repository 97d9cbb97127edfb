#include "finder.h"

/* Number of positions that finder_fill() enters ahead of the parser. It is less than 32768, so that
 * the ring still holds a whole window before the position of the parser. */
enum { BATCH = 4096 };

bool finder_open(Finder *finder, const Rules *rules, const u8 *in, u32 size)
{
    size_t ring = RING + 1, heads = (size_t)1 << HEAD_BITS, buckets = (size_t)1 << rules->hash_bits;
    memset(finder, 0, sizeof *finder);
    finder->in = in;
    finder->size = size;
    finder->rules = rules;
    if (rules->kind != PARSE_FAST && rules->kind != PARSE_LAZY)
        return true;
    bool fine = true;
    if (rules->kind == PARSE_FAST || !rules->filtered) {
        finder->heads3 = calloc(buckets, sizeof(u32));
        finder->links3 = calloc(ring, sizeof(u16));
        fine = finder->heads3 && finder->links3;
    }
    if (rules->kind == PARSE_FAST)
        return fine;
    finder->heads6 = calloc(heads, sizeof(u32));
    finder->members = calloc(buckets, sizeof(u16));
    finder->links6 = calloc(ring, sizeof(u16));
    finder->numbers = calloc(ring, sizeof(u16));
    finder->runs = calloc(ring, sizeof(u16));
    fine = fine && finder->heads6 && finder->members && finder->links6 && finder->numbers &&
           finder->runs;
    if (rules->filtered)
        return fine;
    finder->heads4 = calloc(heads, sizeof(u32));
    finder->links4 = calloc(ring, sizeof(u16));
    return fine && finder->heads4 && finder->links4;
}

void finder_close(Finder *finder)
{
    free(finder->heads6);
    free(finder->heads4);
    free(finder->heads3);
    free(finder->members);
    free(finder->links6);
    free(finder->links4);
    free(finder->links3);
    free(finder->numbers);
    free(finder->runs);
}

/* zlib's rolling hash (UPDATE_HASH) of three bytes, the lowest first. Because 3 * shift >= bits, no
 * byte before these three affects it. The kernel must use this very hash: different triples that
 * collide count as candidates in zlib's search, and memLevel decides which collide. */
static inline u32 bucket_of(const Rules *rules, u32 bytes)
{
    u32 shift = rules->hash_shift;
    return (((bytes & 255) << 2 * shift) ^ ((bytes >> 8 & 255) << shift) ^ (bytes >> 16 & 255)) &
           ((1u << rules->hash_bits) - 1);
}

static u64 FACTOR6 = UINT64_C(0x9e3779b97f4a7c15);
static u32 FACTOR4 = 0x9e3779b1u;

void finder_prepare(u64 seed)
{
    for (int i = 0; i < 2; i++) { /* two numbers of the generator splitmix64 */
        seed += UINT64_C(0x9e3779b97f4a7c15);
        seed = (seed ^ seed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        seed = (seed ^ seed >> 27) * UINT64_C(0x94d049bb133111eb);
        seed ^= seed >> 31;
        if (i == 0)
            FACTOR6 = seed | 1;
        else
            FACTOR4 = (u32)(seed >> 32) | 1;
    }
}

static inline u32 hash6(u64 bytes) { return (u32)((bytes << 16) * FACTOR6 >> (64 - HEAD_BITS)); }

static inline u32 hash4(u64 bytes) { return (u32)bytes * FACTOR4 >> (32 - HEAD_BITS); }

static inline bool all_equal(u64 bytes) { return bytes == (bytes << 8 | (bytes & 255)); }

/* Makes `at` the head of a chain. Returns its distance to the head before; 0: too far for 16
 * bits. */
static inline u16 take_head(u32 *head, u32 at)
{
    u32 distance = at - *head;
    *head = at;
    return (u16)(distance <= 0xffff ? distance : 0);
}

/* Enters one position with its next eight bytes. */
static inline void enter(Finder *finder, u32 at, u64 bytes, bool filtered)
{
    u32 bucket = bucket_of(finder->rules, (u32)bytes), place = at & RING;
    finder->links6[place] = take_head(&finder->heads6[hash6(bytes)], at);
    finder->numbers[place] = finder->members[bucket]++;
    finder->runs[place] = 0;
    if (!filtered) {
        finder->links4[place] = take_head(&finder->heads4[hash4(bytes)], at);
        finder->links3[place] = take_head(&finder->heads3[bucket], at);
    }
}

static inline void fill_ones(u16 *links, u32 count)
{
    for (u32 i = 0; i < count; i++)
        links[i] = 1;
}

/* Enters a run of equal bytes: the positions behind `at` and before `end` that begin six bytes of
 * the value at `at`. They are neighbours in every chain. The caller has entered `at` itself. `at`
 * and `end` lie in one turn of the ring. Returns the first position that it did not enter. */
static u32 enter_run(Finder *finder, u32 at, u32 end, u64 bytes, bool filtered)
{
    const u8 *in = finder->in;
    u32 stop = at + 8; /* end of the equal bytes, but not far behind `end` */
    u32 most = min32(end + 5, finder->size);
    while (stop + 8 <= most && load64(in + stop) == bytes)
        stop += 8;
    while (stop < most && in[stop] == (u8)bytes)
        stop++;
    stop = min32(stop - 5, end);
    u32 bucket = bucket_of(finder->rules, (u32)bytes);
    u32 first = (at + 1) & RING, count = stop - (at + 1);
    u16 *numbers = finder->numbers + first, *runs = finder->runs + first;
    u16 number = finder->members[bucket];
    for (u32 i = 0; i < count; i++)
        numbers[i] = (u16)(number + i);
    for (u32 i = 0; i < count; i++)
        runs[i] = (u16)(i + 1);
    finder->members[bucket] = (u16)(number + count);
    fill_ones(finder->links6 + first, count);
    finder->heads6[hash6(bytes)] = stop - 1;
    if (!filtered) {
        fill_ones(finder->links4 + first, count);
        fill_ones(finder->links3 + first, count);
        finder->heads4[hash4(bytes)] = stop - 1;
        finder->heads3[bucket] = stop - 1;
    }
    return stop;
}

static inline void fill(Finder *finder, u32 at, u32 end, bool filtered)
{
    while (at < end) {
        u64 bytes = load64(finder->in + at);
        enter(finder, at, bytes, filtered);
        if (UNLIKELY(all_equal(bytes)))
            at = enter_run(finder, at, end, bytes, filtered);
        else
            at++;
    }
}

void finder_fill(Finder *finder, u32 position)
{
    u32 window = finder->rules->window, last = finder->size - (TAIL - 1);
    u32 from = max32(finder->filled, position > window ? position - window : 0);
    u32 end = min32(position + BATCH, last);
    finder->filled = end;
    while (from < end) {
        u32 stop = min32(end, (from | RING) + 1);
        if (finder->rules->filtered)
            fill(finder, from, stop, true);
        else
            fill(finder, from, stop, false);
        from = stop;
    }
}

/* ---- Search ------------------------------------------------------------------------------ */

/* The arguments, limits and best match of a search. */
typedef struct {
    const Finder *finder;
    const u8 *here;
    u32 position;
    u32 least;         /* a member of the chain counts only if it matches this many bytes */
    const u16 *links;  /* the chain */
    u32 farthest;      /* largest distance that is allowed */
    u32 chain, nice, most; /* largest rank; length that ends the search; longest match */
    u32 best, distance;    /* best match so far; before one is found, the length to exceed and 0 */
} Search;

/* Returns the number of steps in the bucket from `position` back to the candidate, modulo 65536. */
static inline u32 rank_of(const Search *search, u32 distance)
{
    const u16 *numbers = search->finder->numbers;
    u32 position = search->position;
    return (u16)(numbers[position & RING] - numbers[(position - distance) & RING]);
}

/* Returns whether zlib's walk through the bucket reaches the member with this rank and distance. */
static inline bool reached(const Search *search, u32 rank, u32 distance)
{
    return rank <= search->chain && (distance < search->finder->rules->reach || rank == 1);
}

static inline bool same_bucket(const Search *search, const u8 *there)
{
    return ((load32(there) ^ load32(search->here)) & 0xffffff) == 0;
}

/* Follows the chain of a position that begins a run of `run` equal bytes. Some inputs consist of
 * little else (flat areas of a picture are zeros after filtering), so this function handles a whole
 * run of candidates at once. Take the candidates in a run of the same byte, newest first:
 * - A candidate with fewer than `run` of these bytes left matches up to the end of its run. Each
 *   candidate further back matches one byte more.
 * - The candidate with exactly `run` bytes left may match beyond its run.
 * - All candidates further back match exactly `run` bytes. */
static void walk_runs(Search *search, u32 distance)
{
    const u8 *here = search->here;
    u64 mask = ((u64)1 << 8 * search->least) - 1;
    u64 bytes = load64(here) & mask;
    u32 run = 1 + match_length(here + 1, here, search->most - 1);
    while (distance <= search->farthest) {
        const u8 *there = here - distance;
        if ((load64(there) & mask) == bytes) {
            u32 rank = rank_of(search, distance);
            if (!reached(search, rank, distance))
                return;
            u32 length = match_length(here, there, search->most);
            if (length > search->best) {
                search->best = length;
                search->distance = distance;
                if (length >= search->nice)
                    return;
            }
            u32 back = search->finder->runs[(search->position - distance) & RING];
            if (length < run) {
                u32 better = min32(min32(run, search->nice) - length, back);
                better = min32(better, search->chain - rank);
                /* These are not the newest of the bucket, so they must be nearer than the reach. */
                u32 limit = min32(search->farthest, search->finder->rules->reach - 1);
                better = min32(better, limit > distance ? limit - distance : 0);
                length += better;
                if (length == run)
                    length = match_length(here, there - better, search->most);
                if (length > search->best) {
                    search->best = length;
                    search->distance = distance + better;
                    if (length >= search->nice)
                        return;
                }
            }
            distance += back; /* to the first candidate of the run */
            if (distance > search->farthest)
                return;
        }
        u32 link = search->links[(search->position - distance) & RING];
        if (link == 0)
            return;
        distance += link;
    }
}

/* walk() checks the rank of a candidate that does not match only once in this many candidates. The
 * check does not affect the result: walk() refuses a better match that zlib does not reach. The
 * check only ends the walk earlier. */
enum { RANK_LOOKS = 8 };

/* Follows a chain from the candidate at `distance`. Sets `best` and `distance` of the search. */
static inline void walk(Search *search, u32 distance)
{
    const u8 *here = search->here;
    const u16 *links = search->links;
    u32 looks = RANK_LOOKS;
    /* A match longer than `best` includes the four bytes up to the one at index `best`. The loop
     * compares these first. */
    u32 last = load32(here + search->best - 3);
    do {
        const u8 *there = here - distance;
        u32 link = links[(search->position - distance) & RING];
        if (load32(there + search->best - 3) == last) {
            u32 length = match_length(here, there, search->most);
            if (length > search->best) {
                if (!reached(search, rank_of(search, distance), distance))
                    return;
                search->best = length;
                search->distance = distance;
                if (length >= search->nice)
                    return;
                last = load32(here + length - 3);
            }
        }
        if (UNLIKELY(--looks == 0)) {
            looks = RANK_LOOKS;
            if (rank_of(search, distance) > search->chain && same_bucket(search, there))
                return;
        }
        if (link == 0)
            return;
        distance += link;
    } while (distance <= search->farthest);
}

/* Finds the nearest match of exactly three bytes in the bucket itself. Returns 3, or 0 for none. */
static u32 search_three(const Search *search, u32 *distance)
{
    const u16 *links = search->finder->links3;
    u32 farthest = min32(search->farthest, TOO_FAR), away = 0;
    for (u32 rank = 1; rank <= search->chain; rank++) {
        u32 link = links[(search->position - away) & RING];
        away += link;
        if (link == 0 || away > farthest || !reached(search, rank, away))
            return 0;
        if (same_bucket(search, search->here - away)) {
            *distance = away;
            return SHORTEST_MATCH;
        }
    }
    return 0;
}

/* zlib's search for the last TAIL - 1 positions of the input: compares every position within
 * reach. */
static u32 search_tail(const Finder *finder, const Search *search, u32 held, u32 *distance)
{
    const u8 *in = finder->in;
    u32 position = search->position, rank = 0, least = max32(held, SHORTEST_MATCH - 1), best = least;
    u32 three = in[position] | in[position + 1] << 8 | (u32)in[position + 2] << 16;
    u32 bucket = bucket_of(finder->rules, three);
    for (u32 away = 1; away <= search->farthest; away++) {
        const u8 *there = in + position - away;
        if (bucket_of(finder->rules, there[0] | there[1] << 8 | (u32)there[2] << 16) != bucket)
            continue;
        if (!reached(search, ++rank, away))
            break;
        u32 length = match_length(search->here, there, search->most);
        if (length > best) {
            best = length;
            *distance = away;
            if (length >= search->nice)
                break;
        }
    }
    bool dropped = best <= least || (best < 6 && finder->rules->filtered) ||
                   (best == SHORTEST_MATCH && *distance > TOO_FAR);
    return dropped ? 0 : best;
}

/* Searches the chain of positions that share `least` bytes for a match longer than `best`. Returns
 * its length and sets `distance`, or returns 0. */
static inline u32 search_chain(Search *search, const u16 *links, u32 least, u32 best, u32 *distance)
{
    u32 first = links[search->position & RING];
    if (first == 0 || first > search->farthest)
        return 0;
    search->links = links;
    search->least = least;
    search->best = best;
    search->distance = 0;
    u64 bytes = load64(search->here);
    if (UNLIKELY(((bytes ^ bytes >> 8) & (((u64)1 << 8 * (least - 1)) - 1)) == 0))
        walk_runs(search, first);
    else
        walk(search, first);
    if (search->distance == 0)
        return 0;
    *distance = search->distance;
    return search->best;
}

u32 finder_search(const Finder *finder, u32 position, u32 held, u32 *distance)
{
    const Rules *rules = finder->rules;
    u32 left = finder->size - position, most = min32(left, LONGEST_MATCH);
    if (held >= most || left < SHORTEST_MATCH || position < 2)
        return 0;
    Search search;
    search.finder = finder;
    search.here = finder->in + position;
    search.position = position;
    search.farthest = min32(rules->reach, position - 1);
    search.chain = held >= rules->good ? rules->chain >> 2 : rules->chain;
    search.nice = min32(rules->nice, most);
    search.most = most;
    if (UNLIKELY(left < TAIL))
        return search_tail(finder, &search, held, distance);
    u32 found = search_chain(&search, finder->links6, 6, max32(held, 5), distance);
    if (found || rules->filtered || held >= 5)
        return found;
    search.nice = 5; /* no match is longer, so the nearest match of five bytes is the best */
    found = search_chain(&search, finder->links4, 4, max32(held, 3), distance);
    if (found || held >= SHORTEST_MATCH)
        return found;
    return search_three(&search, distance);
}

/* ---- Plain chains ------------------------------------------------------------------------ */

u32 plain_insert(Finder *finder, u32 position)
{
    const u8 *at = finder->in + position;
    u32 bucket = bucket_of(finder->rules, at[0] | at[1] << 8 | (u32)at[2] << 16);
    u32 newest = finder->heads3[bucket];
    finder->links3[position & RING] = (u16)take_head(&finder->heads3[bucket], position);
    return newest;
}

u32 plain_search(const Finder *finder, u32 position, u32 candidate, u32 *distance)
{
    const Rules *rules = finder->rules;
    const u8 *here = finder->in + position;
    u32 most = min32(finder->size - position, LONGEST_MATCH);
    u32 nice = min32(rules->nice, most), best = SHORTEST_MATCH - 1;
    u32 away = position - candidate, farthest = min32(rules->reach, position - 1);
    for (u32 rank = 1; away <= farthest && (away < rules->reach || rank == 1); rank++) {
        const u8 *there = here - away;
        if (there[best] == here[best] && there[best - 1] == here[best - 1] && there[0] == here[0]) {
            u32 length = match_length(here, there, most);
            if (length > best) {
                best = length;
                *distance = away;
                if (length >= nice)
                    break;
            }
        }
        u32 link = finder->links3[(position - away) & RING];
        if (rank == rules->chain || link == 0)
            break;
        away += link;
    }
    return best;
}
