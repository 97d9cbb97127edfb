#include "emit.h"

#include "../threads.h"
#include "tokens.h"
#include "trees.h"

/* ---- Where blocks end -------------------------------------------------------------------- */

/* The blocks so far, with memory for `room`, and the block that is not closed yet. */
typedef struct {
    Blocks *blocks;
    size_t room;
    Block open;
} Splitter;

/* Closes the open block. The next one begins in the word `token`, behind its first `skip` literals.
 * Returns false if there is no memory. */
static bool close_block(Splitter *split, u32 end, u32 step, size_t token, u32 skip, bool last)
{
    Blocks *blocks = split->blocks;
    if (blocks->count == split->room) {
        size_t room = split->room ? split->room * 2 : 64;
        Block *grown = realloc(blocks->blocks, room * sizeof *grown);
        if (!grown)
            return false;
        blocks->blocks = grown;
        split->room = room;
    }
    split->open.end = end;
    split->open.step = step;
    split->open.last = last;
    blocks->blocks[blocks->count++] = split->open;
    split->open.start = end;
    split->open.token = token;
    split->open.skip = skip;
    return true;
}

/* A block ends when its symbol buffer is full. Two details depend on the parser:
 * - The lazy parser (zlib's deflate_slow()) writes a literal one step after its position. It writes
 *   the very last literal after its loop and does not check there whether the buffer is full, so
 *   the last block may be full. The other parsers close the full block and add an empty last block.
 * - The step in which the parser closes the block differs. The step decides how much input zlib's
 *   window still holds (rules_window_start()). */
bool blocks_split(const Rules *rules, const u32 *words, size_t count, u32 size, Blocks *blocks)
{
    Splitter split = {blocks, 0, {0}};
    bool lazy = rules->kind == PARSE_LAZY;
    u32 left = rules->symbols, position = 0;
    bool fine = true;
    for (size_t token = 0; token < count && fine; token++) {
        u32 literals = word_literals(words[token]), used = 0;
        while (literals - used >= left && fine) {
            used += left;
            position += left;
            left = 0;
            if (lazy && position == size)
                break;
            fine = close_block(&split, position, lazy ? position : position - 1, token, used, false);
            left = rules->symbols;
        }
        left -= literals - used;
        position += literals - used;
        if (!word_is_match(words[token]))
            continue;
        u32 step = lazy ? position + 1 : position;
        position += word_length(words[token]);
        if (--left == 0) {
            fine = fine && close_block(&split, position, step, token + 1, 0, false);
            left = rules->symbols;
        }
    }
    return fine && close_block(&split, size, size, count, 0, true);
}

/* ---- Codes and kinds --------------------------------------------------------------------- */

/* Tables from lengths and distances to codes. emit_prepare() fills them once. */
static u8 LENGTH_CODES[LONGEST_MATCH + 1];
static u8 NEAR_CODES[257], FAR_CODES[257];
static u8 FIXED_LITERAL_LENGTHS[FIXED_LITERAL_CODES], FIXED_DISTANCE_LENGTHS[DISTANCE_CODES];

static inline u32 fast_distance_code(u32 distance)
{
    return distance <= 256 ? NEAR_CODES[distance] : FAR_CODES[(distance - 1) >> 7];
}

void emit_prepare(void)
{
    for (u32 length = SHORTEST_MATCH; length <= LONGEST_MATCH; length++)
        LENGTH_CODES[length] = (u8)length_code(length);
    for (u32 distance = 1; distance <= 256; distance++)
        NEAR_CODES[distance] = (u8)distance_code(distance);
    for (u32 high = 2; high < 256; high++)
        FAR_CODES[high] = (u8)distance_code((high << 7) + 1);
    for (int symbol = 0; symbol < FIXED_LITERAL_CODES; symbol++)
        FIXED_LITERAL_LENGTHS[symbol] =
            symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8;
    memset(FIXED_DISTANCE_LENGTHS, 5, sizeof FIXED_DISTANCE_LENGTHS);
}

static void count_symbols(const EmitJob *job, const Block *block, Frequencies *count)
{
    /* Four counters for each byte value. With one, each of several equal bytes in a row would have
     * to wait until the processor has finished the increment before. */
    u32 literals[4][256];
    u32 lengths[LONGEST_MATCH + 1];
    memset(literals, 0, sizeof literals);
    memset(lengths, 0, sizeof lengths);
    memset(count, 0, sizeof *count);
    const u32 *word = job->words + block->token;
    u32 skip = block->skip, position = block->start;
    while (position < block->end) {
        const u8 *at = job->in + position;
        u32 run = min32(word_literals(*word) - skip, block->end - position);
        skip = 0;
        position += run;
        for (; run >= 4; run -= 4, at += 4) {
            literals[0][at[0]]++;
            literals[1][at[1]]++;
            literals[2][at[2]]++;
            literals[3][at[3]]++;
        }
        for (; run; run--)
            literals[run][*at++]++;
        if (position == block->end)
            break;
        if (word_is_match(*word)) {
            lengths[word_length(*word)]++;
            count->distances[fast_distance_code(word_distance(*word))]++;
            position += word_length(*word);
        }
        word++;
    }
    for (int byte = 0; byte < 256; byte++)
        count->literals[byte] =
            literals[0][byte] + literals[1][byte] + literals[2][byte] + literals[3][byte];
    for (int length = SHORTEST_MATCH; length <= LONGEST_MATCH; length++)
        count->literals[257 + LENGTH_CODES[length]] += lengths[length];
    count->literals[END_OF_BLOCK] = 1;
}

static u64 symbol_bits(const Frequencies *count, const u8 *literals, const u8 *distances)
{
    u64 bits = 0;
    for (int symbol = 0; symbol < LITERAL_CODES; symbol++)
        bits += (u64)count->literals[symbol] * literals[symbol];
    for (int code = 0; code < 29; code++)
        bits += (u64)count->literals[257 + code] * LENGTH_EXTRA[code];
    for (int code = 0; code < DISTANCE_CODES; code++)
        bits += (u64)count->distances[code] * (distances[code] + (u32)DISTANCE_EXTRA[code]);
    return bits;
}

/* Chooses the kind of the block as zlib (1.2.12 and later) does in _tr_flush_block(): it compares
 * sizes in whole bytes; of equal sizes it prefers stored, then fixed. It cannot store a block whose
 * start has left the window. Sets `kind` and `bits`, and fills `codes`. */
static void plan_block(const EmitJob *job, Block *block, DynamicCodes *codes)
{
    Frequencies count;
    count_symbols(job, block, &count);
    dynamic_codes(count.literals, count.distances, codes);
    u64 dynamic = codes->header_bits + symbol_bits(&count, codes->literal, codes->distance);
    u64 fixed = symbol_bits(&count, FIXED_LITERAL_LENGTHS, FIXED_DISTANCE_LENGTHS);
    u64 dynamic_bytes = (dynamic + 3 + 7) >> 3, fixed_bytes = (fixed + 3 + 7) >> 3;
    bool prefer_fixed = fixed_bytes <= dynamic_bytes || job->rules->fixed;
    u64 stored = (u64)block->end - block->start;
    if (stored + 4 <= (prefer_fixed ? fixed_bytes : dynamic_bytes) &&
        block->start >= rules_window_start(job->rules, job->size, block->step)) {
        block->kind = BLOCK_STORED;
        block->bits = 3 + 32 + 8 * stored;
    } else {
        block->kind = prefer_fixed ? BLOCK_FIXED : BLOCK_DYNAMIC;
        block->bits = 3 + (prefer_fixed ? fixed : dynamic);
    }
}

/* ---- Bits -------------------------------------------------------------------------------- */

/* Collects bits in `hold`, lowest first. A flush stores all eight bytes of `hold` at `out`, but
 * moves `out` only behind the full ones. So `out` needs eight spare bytes at its end. */
typedef struct {
    u8 *out;
    u64 hold;
    u32 count;
} Writer;

static inline void put_more(Writer *writer, u64 value, u32 bits)
{
    writer->hold |= value << writer->count;
    writer->count += bits;
}

static inline void flush(Writer *writer)
{
    store64(writer->out, writer->hold);
    writer->out += writer->count >> 3;
    writer->hold >>= writer->count & ~7u;
    writer->count &= 7;
}

static void put_bits(void *writer, u32 value, u32 bits)
{
    put_more(writer, value, bits);
    flush(writer);
}

static void put_stored(Writer *writer, const Block *block, const u8 *in)
{
    u32 length = block->end - block->start;
    put_bits(writer, block->last, 3);
    if (writer->count)
        put_bits(writer, 0, 8 - writer->count);
    put_bits(writer, length & 0xffff, 16);
    put_bits(writer, ~length & 0xffff, 16);
    if (length)
        memcpy(writer->out, in + block->start, length);
    writer->out += length;
}

/* Returns an item of a WriteTable: a code with its extra bits in the lower 32 bits (at most 15 + 13
 * are used), and their number in the upper 32. */
static inline u64 entry(u32 code, u32 bits) { return (u64)code | (u64)bits << 32; }

typedef struct {
    u64 literals[256];
    u64 lengths[LONGEST_MATCH + 1];
    u64 distances[DISTANCE_CODES]; /* without the extra bits */
    u64 end;                       /* end of block */
    bool short_literals; /* no code is above 14 bits: four fit behind seven bits in `hold` */
} WriteTable;

static void write_table(const u8 *literal_lengths, int literal_count, const u8 *distance_lengths,
                        int distance_count, WriteTable *table)
{
    u16 codes[FIXED_LITERAL_CODES], distance_codes[DISTANCE_CODES];
    memset(codes, 0, sizeof codes);
    memset(distance_codes, 0, sizeof distance_codes);
    tree_codes(literal_lengths, literal_count, codes);
    tree_codes(distance_lengths, distance_count, distance_codes);
    u32 longest = 0;
    for (int byte = 0; byte < 256; byte++) {
        table->literals[byte] = entry(codes[byte], literal_lengths[byte]);
        longest = max32(longest, literal_lengths[byte]);
    }
    table->short_literals = longest <= 14;
    table->end = entry(codes[END_OF_BLOCK], literal_lengths[END_OF_BLOCK]);
    for (u32 length = SHORTEST_MATCH; length <= LONGEST_MATCH; length++) {
        u32 code = LENGTH_CODES[length], bits = literal_lengths[257 + code];
        u32 extra = (length - LENGTH_FIRST[code]) << bits;
        table->lengths[length] = entry(codes[257 + code] | extra, bits + LENGTH_EXTRA[code]);
    }
    for (int code = 0; code < DISTANCE_CODES; code++)
        table->distances[code] = entry(distance_codes[code], distance_lengths[code]);
}

static inline void put_entry(Writer *writer, u64 item)
{
    put_more(writer, (u32)item, (u32)(item >> 32));
}

static inline void put_literals(Writer *writer, const WriteTable *table, const u8 *at, u32 run)
{
    if (table->short_literals)
        for (; run >= 4; run -= 4, at += 4) {
            put_entry(writer, table->literals[at[0]]);
            put_entry(writer, table->literals[at[1]]);
            put_entry(writer, table->literals[at[2]]);
            put_entry(writer, table->literals[at[3]]);
            flush(writer);
        }
    for (; run; run--) {
        put_entry(writer, table->literals[*at++]);
        flush(writer);
    }
}

/* Writes the symbols of a block and the end-of-block code. A match takes at most 48 bits (15 + 5
 * and 15 + 13), so it fits into `hold` behind the seven bits that a flush can leave. */
static void put_symbols(Writer *to, const EmitJob *job, const Block *block, const WriteTable *table)
{
    Writer writer = *to;
    const u32 *word = job->words + block->token;
    u32 skip = block->skip, position = block->start;
    while (position < block->end) {
        u32 run = min32(word_literals(*word) - skip, block->end - position);
        skip = 0;
        put_literals(&writer, table, job->in + position, run);
        position += run;
        if (position == block->end)
            break;
        if (word_is_match(*word)) {
            u32 length = word_length(*word), distance = word_distance(*word);
            u32 code = fast_distance_code(distance);
            put_entry(&writer, table->lengths[length]);
            put_entry(&writer, table->distances[code]);
            put_more(&writer, distance - DISTANCE_FIRST[code], DISTANCE_EXTRA[code]);
            flush(&writer);
            position += length;
        }
        word++;
    }
    put_entry(&writer, table->end);
    flush(&writer);
    *to = writer;
}

static void put_block(Writer *writer, const EmitJob *job, const Block *block,
                      const DynamicCodes *codes)
{
    WriteTable table;
    if (block->kind == BLOCK_STORED) {
        put_stored(writer, block, job->in);
        return;
    }
    put_bits(writer, (u32)block->last | (u32)block->kind << 1, 3);
    if (block->kind == BLOCK_FIXED) {
        write_table(FIXED_LITERAL_LENGTHS, FIXED_LITERAL_CODES, FIXED_DISTANCE_LENGTHS,
                    DISTANCE_CODES, &table);
    } else {
        dynamic_header(codes, put_bits, writer);
        write_table(codes->literal, LITERAL_CODES, codes->distance, DISTANCE_CODES, &table);
    }
    put_symbols(writer, job, block, &table);
}

/* ---- Unchanged blocks -------------------------------------------------------------------- */

/* The old stream's block that `block` repeats, or NULL: it covers the same input, and all its
 * tokens and bytes were kept. Blocks are asked for in order; `at` and `kept` only move on. */
static const Block *find_old(const EmitJob *job, const Block *block, size_t *at, size_t *kept)
{
    const OldStream *old = job->old;
    while (*at < old->count && old->blocks[*at].start < block->start)
        ++*at;
    while (*kept < job->kept_count && job->kept[2 * *kept + 1] < block->end)
        ++*kept;
    if (*at == old->count || *kept == job->kept_count)
        return NULL;
    const Block *same = &old->blocks[*at];
    bool equal = same->start == block->start && same->end == block->end &&
                 same->last == block->last && job->kept[2 * *kept] <= block->start;
    return equal && same->kind != BLOCK_STORED ? same : NULL;
}

static void copy_bits(Writer *writer, const OldStream *old, u64 offset, u64 bits)
{
    while (bits) {
        u64 at = offset >> 3, value = 0;
        u32 some = bits < 48 ? (u32)bits : 48;
        if (at + 8 <= old->size)
            value = load64(old->body + at);
        else
            for (u32 i = 0; i < old->size - at; i++)
                value |= (u64)old->body[at + i] << 8 * i;
        put_more(writer, value >> (offset & 7) & (((u64)1 << some) - 1), some);
        flush(writer);
        offset += some;
        bits -= some;
    }
}

/* ---- The whole stream -------------------------------------------------------------------- */

typedef struct {
    size_t first, count; /* number of the first block, and how many */
    u8 *out;             /* begins with the byte in which the first block begins */
    u64 size;            /* bytes of `out`; the part may fill the last one only partly */
} Part;

typedef struct {
    EmitJob *job;
    DynamicCodes *codes;   /* for each block */
    const Block **same;    /* for each block: the block of the old stream to copy, or NULL */
    Part *parts;
} Emission;

static void plan_one(void *context, size_t index)
{
    Emission *emission = context;
    Block *block = &emission->job->blocks.blocks[index];
    const Block *same = emission->same[index];
    if (same) {
        block->kind = same->kind;
        block->bits = same->bits;
    } else {
        plan_block(emission->job, block, &emission->codes[index]);
    }
}

static void write_part(void *context, size_t index)
{
    Emission *emission = context;
    const EmitJob *job = emission->job;
    Part *part = &emission->parts[index];
    const Block *blocks = job->blocks.blocks;
    Writer writer = {part->out, 0, (u32)(blocks[part->first].offset & 7)};
    for (size_t i = part->first; i < part->first + part->count; i++) {
        const Block *same = emission->same[i];
        if (same)
            copy_bits(&writer, job->old, same->offset, same->bits);
        else
            put_block(&writer, job, &blocks[i], &emission->codes[i]);
    }
    if (writer.count)
        *writer.out++ = (u8)writer.hold;
}

/* Sets the offset of every block. Returns the length of the stream in bits. */
static u64 place_blocks(Blocks *blocks)
{
    u64 offset = 0;
    for (size_t i = 0; i < blocks->count; i++) {
        Block *block = &blocks->blocks[i];
        block->offset = offset;
        offset += block->bits;
        if (block->kind == BLOCK_STORED) /* padding follows the three header bits */
            offset += (8 - ((block->offset + 3) & 7)) & 7;
    }
    return offset;
}

/* Cuts the blocks into parts for the threads. Each part gets its own memory, because two neighbours
 * may share a byte. Returns false if there is no memory. */
static bool cut_parts(Emission *emission, size_t count, u64 bits)
{
    const Blocks *blocks = &emission->job->blocks;
    for (size_t i = 0; i < count; i++) {
        Part *part = &emission->parts[i];
        part->first = blocks->count * i / count;
        size_t next = blocks->count * (i + 1) / count;
        part->count = next - part->first;
        u64 end = next == blocks->count ? bits : blocks->blocks[next].offset;
        part->size = ((end + 7) >> 3) - (blocks->blocks[part->first].offset >> 3);
        part->out = malloc(part->size + sizeof(u64));
        if (!part->out)
            return false;
    }
    return true;
}

static u8 *join_parts(Emission *emission, size_t count, size_t size)
{
    if (count == 1) {
        u8 *only = emission->parts[0].out;
        emission->parts[0].out = NULL;
        return only;
    }
    u8 *body = malloc(size);
    if (!body)
        return NULL;
    u8 shared = 0; /* the last byte of the part before; the next part may begin in this byte */
    for (size_t i = 0; i < count; i++) {
        const Part *part = &emission->parts[i];
        u64 offset = emission->job->blocks.blocks[part->first].offset;
        if (!part->size)
            continue;
        memcpy(body + (offset >> 3), part->out, part->size);
        if (offset & 7)
            body[offset >> 3] |= shared;
        shared = body[(offset >> 3) + part->size - 1];
    }
    return body;
}

bool emit(EmitJob *job, u8 **body, size_t *body_size)
{
    Blocks *blocks = &job->blocks;
    size_t parts = min32((u32)job->threads, (u32)blocks->count);
    Emission emission = {job, malloc(blocks->count * sizeof(DynamicCodes)),
                         calloc(blocks->count, sizeof(Block *)), calloc(parts, sizeof(Part))};
    *body = NULL;
    if (emission.codes && emission.same && emission.parts) {
        size_t at = 0, kept = 0;
        if (job->old)
            for (size_t i = 0; i < blocks->count; i++)
                emission.same[i] = find_old(job, &blocks->blocks[i], &at, &kept);
        run_parallel(job->threads, blocks->count, plan_one, &emission);
        u64 bits = place_blocks(blocks);
        *body_size = (size_t)((bits + 7) >> 3);
        if (cut_parts(&emission, parts, bits)) {
            run_parallel(job->threads, parts, write_part, &emission);
            *body = join_parts(&emission, parts, *body_size);
        }
        for (size_t i = 0; i < parts; i++)
            free(emission.parts[i].out);
    }
    free(emission.codes);
    free(emission.same);
    free(emission.parts);
    return *body != NULL;
}

bool emit_stored(const u8 *in, u32 size, u8 **body, size_t *body_size)
{
    enum { MOST = 65535 };
    u32 position = 0;
    *body_size = size + 5 * ((size_t)size / MOST + (size % MOST || !size));
    Writer writer = {malloc(*body_size + sizeof(u64)), 0, 0};
    *body = writer.out;
    if (!writer.out)
        return false;
    do {
        Block block = {0};
        block.start = position;
        position += min32(size - position, MOST);
        block.end = position;
        block.last = position == size;
        put_stored(&writer, &block, in);
    } while (position < size);
    return true;
}
