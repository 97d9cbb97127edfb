#include "trees.h"

const u8 LENGTH_EXTRA[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                             2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
const u16 LENGTH_FIRST[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                              31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
const u8 DISTANCE_EXTRA[30] = {0, 0, 0, 0, 1, 1, 2,  2,  3,  3,  4,  4,  5,  5,  6,
                               6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
const u16 DISTANCE_FIRST[30] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,
                                33,  49,  65,  97,  129, 193,  257,  385,  513,  769,
                                1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
const u8 RUN_EXTRA[19] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 7};

/* The order of the lengths of the run code in a header (RFC 1951 section 3.2.7). */
const u8 RUN_ORDER[RUN_CODES] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                        11, 4,  12, 3, 13, 2, 14, 1, 15};

/* Returns the number of the highest bit that is set; `value` must not be 0. */
static u32 highest_bit(u32 value)
{
    u32 bit = 0;
    while (value >>= 1)
        bit++;
    return bit;
}

u32 length_code(u32 length)
{
    if (length == 258)
        return 28;
    u32 offset = length - 3;
    if (offset < 8)
        return offset;
    u32 bit = highest_bit(offset); /* from 8 on, each power of two has four codes */
    return 4 * (bit - 1) + (offset >> (bit - 2) & 3);
}

u32 distance_code(u32 distance)
{
    u32 offset = distance - 1;
    if (offset < 4)
        return offset;
    u32 bit = highest_bit(offset); /* from 4 on, each power of two has two codes */
    return 2 * bit + (offset >> (bit - 1) & 1);
}

/* A node in the heap is one number: the frequency, then the depth of its subtree, then its name in
 * the ten lowest bits. zlib (its macro smaller()) compares frequencies, and depths if the
 * frequencies are equal. If both are equal, each of the two nodes is "smaller" than the other. So a
 * is smaller than b if a <= (b | NAME). */
enum { NAME_BITS = 10, DEPTH_BITS = 5, NAME = (1 << NAME_BITS) - 1 };
enum { MOST_NODES = 2 * LITERAL_CODES + 1 };
#define DEPTH ((u32)((1 << DEPTH_BITS) - 1) << NAME_BITS)

/* Moves the hole down the heap until `item` fits in, and puts `item` there (zlib's
 * pqdownheap()). */
static inline void sift_down(u32 *heap, u32 size, u32 hole, u32 item)
{
    u32 child;
    while ((child = hole * 2) <= size) {
        /* heap[size + 1] is a sentinel that is larger than all nodes, so a second child exists. */
        child += heap[child + 1] <= (heap[child] | NAME);
        if (item <= (heap[child] | NAME))
            break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = item;
}

/* Shortens codes that are longer than `longest` and lengthens others to make space (zlib's
 * gen_bitlen()). `order` has the nodes in the order in which they left the heap, rarest first. The
 * function assigns all lengths again, the longest to the rarest symbols. */
static void limit_lengths(const u16 *order, int count, u32 *per_length, int overflow, u32 longest,
                          u8 *lengths)
{
    do {
        u32 bits = longest - 1;
        while (per_length[bits] == 0)
            bits--;
        per_length[bits]--;
        per_length[bits + 1] += 2;
        per_length[longest]--;
        overflow -= 2;
    } while (overflow > 0);
    for (u32 bits = longest; bits; bits--)
        for (u32 left = per_length[bits]; left;) {
            u32 node = *order++;
            if ((int)node < count) {
                lengths[node] = (u8)bits;
                left--;
            }
        }
}

int tree_lengths(const u32 *frequency, int count, u32 longest, u8 *lengths)
{
    u32 heap[LITERAL_CODES + 2];
    u16 order[MOST_NODES], above[MOST_NODES];
    u8 depth_of[MOST_NODES];
    u32 size = 0;
    int last = -1;
    memset(lengths, 0, (size_t)count);
    for (int symbol = 0; symbol < count; symbol++)
        if (frequency[symbol]) {
            last = symbol;
            heap[++size] = frequency[symbol] << (NAME_BITS + DEPTH_BITS) | (u32)symbol;
        }
    /* A code needs at least two symbols. zlib adds unused ones among the symbols 0, 1 and 2. */
    while (size < 2) {
        u32 forced = last < 2 ? (u32)++last : 0;
        heap[++size] = 1u << (NAME_BITS + DEPTH_BITS) | forced;
    }
    heap[size + 1] = 0xffffffffu;
    for (u32 at = size / 2; at; at--)
        sift_down(heap, size, at, heap[at]);
    u32 used = 0;
    u32 node = (u32)count;
    for (; size >= 2; node++) {
        u32 first = heap[1], item = heap[size];
        heap[size--] = 0xffffffffu;
        sift_down(heap, size, 1, item);
        u32 second = heap[1];
        order[used++] = (u16)(first & NAME);
        order[used++] = (u16)(second & NAME);
        above[first & NAME] = above[second & NAME] = (u16)node;
        u32 depth = max32(first & DEPTH, second & DEPTH) + (1u << NAME_BITS);
        u32 sum = (first >> (NAME_BITS + DEPTH_BITS)) + (second >> (NAME_BITS + DEPTH_BITS));
        sift_down(heap, size, 1, sum << (NAME_BITS + DEPTH_BITS) | depth | node);
    }
    u32 per_length[17] = {0};
    int overflow = 0;
    depth_of[node - 1] = 0; /* the root */
    for (u32 i = used; i--;) {
        u32 child = order[i];
        u32 bits = depth_of[above[child]] + 1u;
        if (bits > longest) {
            bits = longest;
            overflow++;
        }
        depth_of[child] = (u8)bits;
        if ((int)child < count) {
            lengths[child] = (u8)bits;
            per_length[bits]++;
        }
    }
    if (overflow)
        limit_lengths(order, count, per_length, overflow, longest, lengths);
    return last;
}

void tree_codes(const u8 *lengths, int count, u16 *codes)
{
    u32 per_length[16] = {0}, next[16];
    for (int symbol = 0; symbol < count; symbol++)
        per_length[lengths[symbol]]++;
    u32 code = 0;
    per_length[0] = 0;
    for (int bits = 1; bits < 16; bits++)
        next[bits] = code = (code + per_length[bits - 1]) << 1;
    for (int symbol = 0; symbol < count; symbol++) {
        u32 bits = lengths[symbol];
        if (!bits)
            continue;
        u32 value = next[bits]++;
        value = (value & 0x5555) << 1 | (value >> 1 & 0x5555);
        value = (value & 0x3333) << 2 | (value >> 2 & 0x3333);
        value = (value & 0x0f0f) << 4 | (value >> 4 & 0x0f0f);
        value = (value & 0x00ff) << 8 | (value >> 8 & 0x00ff);
        codes[symbol] = (u16)(value >> (16 - bits));
    }
}

/* Receives the symbols of the run code: first to count them, later to write them. */
typedef void RunSink(void *context, u32 symbol, u32 extra);

/* Turns the code lengths 0..last into symbols of the run code, as zlib's scan_tree() and
 * send_tree() do. zlib ends a run after 138 zeros, or after 7 equal lengths (then 6 for each
 * repetition). No run goes from one tree into the other. */
static void run_symbols(const u8 *lengths, int last, RunSink *sink, void *context)
{
    u32 before = 16; /* a value that no length has */
    int at = 0;
    while (at <= last) {
        u32 length = lengths[at];
        u32 most = length == 0 ? 138 : length == before ? 6 : 7;
        u32 least = length == 0 || length == before ? 3 : 4;
        u32 run = 1;
        while (run < most && at + (int)run <= last && lengths[at + (int)run] == length)
            run++;
        at += (int)run;
        if (run < least) {
            while (run--)
                sink(context, length, 0);
        } else if (length) {
            if (length != before) {
                sink(context, length, 0);
                run--;
            }
            sink(context, 16, run - 3);
        } else if (run <= 10) {
            sink(context, 17, run - 3);
        } else {
            sink(context, 18, run - 11);
        }
        before = length;
    }
}

static void count_run(void *context, u32 symbol, u32 extra)
{
    (void)extra;
    ((u32 *)context)[symbol]++;
}

void dynamic_codes(const u32 *literals, const u32 *distances, DynamicCodes *codes)
{
    u32 runs[RUN_CODES] = {0};
    codes->last_literal = tree_lengths(literals, LITERAL_CODES, 15, codes->literal);
    codes->last_distance = tree_lengths(distances, DISTANCE_CODES, 15, codes->distance);
    run_symbols(codes->literal, codes->last_literal, count_run, runs);
    run_symbols(codes->distance, codes->last_distance, count_run, runs);
    tree_lengths(runs, RUN_CODES, 7, codes->run);
    codes->run_count = RUN_CODES;
    while (codes->run_count > 4 && codes->run[RUN_ORDER[codes->run_count - 1]] == 0)
        codes->run_count--;
    u32 bits = 5 + 5 + 4 + 3 * codes->run_count;
    for (int symbol = 0; symbol < RUN_CODES; symbol++)
        bits += runs[symbol] * ((u32)codes->run[symbol] + RUN_EXTRA[symbol]);
    codes->header_bits = bits;
}

typedef struct {
    const u8 *lengths;
    u16 codes[RUN_CODES];
    PutBits *put;
    void *writer;
} RunWriter;

static void write_run(void *context, u32 symbol, u32 extra)
{
    RunWriter *runs = context;
    runs->put(runs->writer, runs->codes[symbol], runs->lengths[symbol]);
    if (RUN_EXTRA[symbol])
        runs->put(runs->writer, extra, RUN_EXTRA[symbol]);
}

void dynamic_header(const DynamicCodes *codes, PutBits *put, void *writer)
{
    RunWriter runs = {codes->run, {0}, put, writer};
    put(writer, (u32)codes->last_literal - 256, 5);
    put(writer, (u32)codes->last_distance, 5);
    put(writer, codes->run_count - 4, 4);
    for (u32 i = 0; i < codes->run_count; i++)
        put(writer, codes->run[RUN_ORDER[i]], 3);
    tree_codes(codes->run, RUN_CODES, runs.codes);
    run_symbols(codes->literal, codes->last_literal, write_run, &runs);
    run_symbols(codes->distance, codes->last_distance, write_run, &runs);
}
