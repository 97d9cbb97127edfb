#include "header.h"

void header_coder_open(HeaderCoder *headers, bool heap, bool joined)
{
    chances_reset(headers, offsetof(HeaderCoder, heap));
    headers->heap = heap;
    headers->joined = joined;
}

/* ---- Expected code lengths --------------------------------------------------------------- */

typedef struct {
    u64 frequency; /* shifted left by ten bits; the ten lowest bits hold the symbol of a leaf */
    u16 above;     /* number of the node above */
} Node;

static int by_frequency(const void *a, const void *b)
{
    u64 one = ((const Node *)a)->frequency, other = ((const Node *)b)->frequency;
    return one < other ? -1 : one > other;
}

/* Computes code lengths by the method of two queues: the symbols, sorted by frequency, and the
 * pairs of nodes, in the order in which they are made. The rarest symbols get the longest codes.
 * miniz, libdeflate and others use this method. They differ in how they shorten codes that are too
 * long; this function does it as miniz does. */
static void sorted_lengths(const u32 *frequency, int count, u32 longest, u8 *lengths)
{
    Node nodes[2 * LITERAL_CODES];
    u8 depths[2 * LITERAL_CODES];
    u32 used = 0, per_length[2 * LITERAL_CODES] = {0};
    memset(lengths, 0, (size_t)count);
    for (int symbol = 0; symbol < count; symbol++)
        if (frequency[symbol])
            nodes[used++].frequency = (u64)frequency[symbol] << 10 | (u32)symbol;
    if (used == 0)
        return;
    qsort(nodes, used, sizeof *nodes, by_frequency);
    u32 leaf = 0, pair = used, top = used;
    for (; top < 2 * used - 1; top++) {
        u64 sum = 0;
        for (int i = 0; i < 2; i++) {
            bool is_leaf = leaf < used && (pair == top || nodes[leaf].frequency >> 10 <=
                                                              nodes[pair].frequency >> 10);
            u32 taken = is_leaf ? leaf++ : pair++;
            nodes[taken].above = (u16)top;
            sum += nodes[taken].frequency >> 10;
        }
        nodes[top].frequency = sum << 10;
    }
    depths[top - 1] = used == 1; /* a single symbol has a code of one bit */
    for (u32 i = top - 1; i--;)
        depths[i] = (u8)(depths[nodes[i].above] + 1);
    for (u32 i = 0; i < used; i++)
        per_length[depths[i] < longest ? depths[i] : longest]++;
    u32 total = 0;
    for (u32 bits = longest; bits; bits--)
        total += per_length[bits] << (longest - bits);
    for (; total > 1u << longest && used > 1; total--) {
        per_length[longest]--;
        u32 bits = longest - 1;
        while (bits && per_length[bits] == 0)
            bits--;
        if (bits == 0)
            break;
        per_length[bits]--;
        per_length[bits + 1] += 2;
    }
    for (u32 bits = longest, i = 0; bits; bits--)
        for (u32 n = 0; n < per_length[bits] && i < used; n++, i++)
            lengths[nodes[i].frequency & 1023] = (u8)bits;
}

/* Computes the code lengths that the model expects for these frequencies, none above `longest`. */
static void expected_lengths(const HeaderCoder *headers, const u32 *frequency, int count,
                             u32 longest, u8 *lengths)
{
    u32 scaled[LITERAL_CODES], shift = 0;
    u64 sum = 0;
    if (!headers->heap) {
        sorted_lengths(frequency, count, longest, lengths);
        return;
    }
    for (int i = 0; i < count; i++)
        sum += frequency[i];
    while (sum >> shift > 0xffff - LITERAL_CODES) /* tree_lengths() takes sums up to 65535 */
        shift++;
    for (int i = 0; i < count; i++)
        scaled[i] = (frequency[i] >> shift) + (frequency[i] && shift);
    tree_lengths(scaled, count, longest, lengths);
}

/* ---- Coding ------------------------------------------------------------------------------ */

/* Codes the lengths of both codes: one bit if they are the expected ones, else each length. */
static void code_lengths(Coder *coder, HeaderCoder *headers, const u8 *expected, u8 *lengths)
{
    enum { ALL = LITERAL_CODES + DISTANCE_CODES };
    bool same = !coder->decoding && memcmp(expected, lengths, ALL) == 0;
    if (code_bit(coder, &headers->lengths_same, same)) {
        memcpy(lengths, expected, ALL);
        return;
    }
    for (int i = 0; i < ALL; i++)
        lengths[i] = (u8)code_tree(coder, headers->lengths[expected[i]], lengths[i], 4);
}

/* Codes how many lengths are written (`least` to `most`). Most encoders leave out the zeros at the
 * end. A count that differs takes `bits` bits. */
static u32 code_count(Coder *coder, Chance *chance, const u8 *lengths, u32 count, u32 least,
                      u32 most, u32 bits)
{
    u32 needed = most;
    while (needed > least && lengths[needed - 1] == 0)
        needed--;
    if (code_bit(coder, chance, count == needed))
        return needed;
    return min32(code_flat(coder, count - least, bits) + least, most);
}

/* Returns the symbol of the run code that zlib writes at `at`: that of the longest run. Sets `run`
 * to the number of code lengths that the symbol stands for. */
static u32 expected_op(const Header *header, u32 at, bool joined, u32 *run)
{
    const u8 *lengths = header->lengths;
    u32 border = header->literal_count, all = border + header->distance_count;
    u32 start = joined || at < border ? 0 : border, end = joined || at >= border ? all : border;
    u32 length = lengths[at], most = length ? 6 : 138;
    *run = 1;
    if (length && (at == start || lengths[at - 1] != length))
        return length;
    u32 count = 1;
    while (count < most && at + count < end && lengths[at + count] == length)
        count++;
    if (count < 3)
        return length;
    *run = count;
    return length ? 16 : count < 11 ? 17 : 18;
}

/* Codes the symbols of the run code. A symbol that differs from the expected one is coded as its
 * class: a length itself, 16, 17 or 18. Returns false if the record is damaged. */
static bool code_ops(Coder *coder, HeaderCoder *headers, Header *header)
{
    u32 all = header->literal_count + header->distance_count, op = 0, run;
    for (u32 at = 0; at < all; at += run, op++) {
        u32 expected = expected_op(header, at, headers->joined, &run);
        u32 symbol = header->ops[op].symbol, length = header->ops[op].length;
        if (code_bit(coder, &headers->op_same, symbol == expected && length == run)) {
            symbol = expected;
            length = run;
        } else {
            u32 class = code_tree(coder, headers->ops, symbol < 16 ? 0 : symbol - 15, 2);
            symbol = class ? class + 15 : header->lengths[at];
            length = class ? code_tree(coder, headers->op_lengths[class], length, 8) : 1;
            u32 least = class == 3 ? 11 : 3, most = class == 1 ? 6 : class == 2 ? 10 : 138;
            if (class && (length < least || length > most || length > all - at || at + class == 1))
                return false;
        }
        header->ops[op].symbol = (u8)symbol;
        header->ops[op].length = (u8)length;
        run = length;
    }
    header->op_count = op;
    return true;
}

/* Codes the lengths of the run code itself. */
static void code_run(Coder *coder, HeaderCoder *headers, Header *header)
{
    u32 frequency[RUN_CODES] = {0};
    u8 expected[RUN_CODES], ordered[RUN_CODES];
    for (u32 i = 0; i < header->op_count; i++)
        frequency[header->ops[i].symbol]++;
    expected_lengths(headers, frequency, RUN_CODES, 7, expected);
    bool same = !coder->decoding && memcmp(expected, header->run, RUN_CODES) == 0;
    if (code_bit(coder, &headers->run_same, same))
        memcpy(header->run, expected, RUN_CODES);
    else
        for (int i = 0; i < RUN_CODES; i++)
            header->run[i] = (u8)code_tree(coder, headers->run[expected[i]], header->run[i], 3);
    for (int i = 0; i < RUN_CODES; i++)
        ordered[i] = header->run[RUN_ORDER[i]];
    header->run_count =
        code_count(coder, &headers->run_count_same, ordered, header->run_count, 4, RUN_CODES, 4);
}

bool code_header(Coder *coder, HeaderCoder *headers, const Frequencies *frequencies,
                 Header *header)
{
    u8 expected[LITERAL_CODES + DISTANCE_CODES], lengths[LITERAL_CODES + DISTANCE_CODES] = {0};
    u8 *distances = lengths + LITERAL_CODES;
    if (coder->decoding) {
        memset(header, 0, sizeof *header);
    } else {
        memcpy(lengths, header->lengths, header->literal_count);
        memcpy(distances, header->lengths + header->literal_count, header->distance_count);
    }
    expected_lengths(headers, frequencies->literals, LITERAL_CODES, 15, expected);
    expected_lengths(headers, frequencies->distances, DISTANCE_CODES, 15, expected + LITERAL_CODES);
    code_lengths(coder, headers, expected, lengths);
    u32 count = header->literal_count;
    count = code_count(coder, &headers->counts_same[0], lengths, count, 257, LITERAL_CODES, 5);
    header->literal_count = count;
    count = header->distance_count;
    count = code_count(coder, &headers->counts_same[1], distances, count, 1, DISTANCE_CODES, 5);
    header->distance_count = count;
    if (coder->decoding) {
        memcpy(header->lengths, lengths, header->literal_count);
        memcpy(header->lengths + header->literal_count, distances, header->distance_count);
    }
    if (!code_ops(coder, headers, header))
        return false;
    code_run(coder, headers, header);
    return true;
}

void header_write(const Header *header, BitWriter *writer)
{
    u16 codes[RUN_CODES] = {0};
    bits_put(writer, header->literal_count - 257, 5);
    bits_put(writer, header->distance_count - 1, 5);
    bits_put(writer, header->run_count - 4, 4);
    for (u32 i = 0; i < header->run_count; i++)
        bits_put(writer, header->run[RUN_ORDER[i]], 3);
    tree_codes(header->run, RUN_CODES, codes);
    for (u32 i = 0; i < header->op_count; i++) {
        u32 symbol = header->ops[i].symbol, least = symbol == 18 ? 11 : 3;
        bits_put(writer, codes[symbol], header->run[symbol]);
        if (RUN_EXTRA[symbol])
            bits_put(writer, header->ops[i].length - least, RUN_EXTRA[symbol]);
    }
}
