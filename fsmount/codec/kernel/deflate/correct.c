#include "correct.h"

#include "coder.h"
#include "emit.h"
#include "finder.h"
#include "header.h"
#include "reader.h"
#include "tokens.h"

/* Returns a match as a token: the length in the upper 16 bits, the distance in the lower. A literal
 * is the token 0. */
static u32 token_of(Match match) { return match.length << 16 | match.distance; }

/* Number of candidates that code_distance() looks at to name a distance by its place in the
 * chain. */
enum { MOST_STEPS = 1024 };

/* Classes of guesses. Guesses of one class are right about equally often, so they share
 * contexts. */
enum { CLASS_LITERAL, CLASS_DEFERRED, CLASS_MATCH, CLASSES = CLASS_MATCH + 8 };

static u32 class_of(Match guessed, bool deferred)
{
    u32 length = guessed.length;
    if (!length)
        return deferred ? CLASS_DEFERRED : CLASS_LITERAL;
    return CLASS_MATCH + (length < 6     ? length - 3
                          : length < 9   ? 3
                          : length < 17  ? 4
                          : length < 65  ? 5
                          : length < 258 ? 6
                                         : 7);
}

typedef struct {
    Chance hit[CLASSES][8];        /* guess is right; by which of the last three were right */
    Chance literal[CLASSES][8];    /* wrong guess of a match: the token is a literal */
    Chance same_distance[CLASSES]; /* wrong guess of a match: only its length is wrong */
    Chance same_length[CLASSES];   /* wrong guess of a match: only its distance is wrong */
    Chance longer;                 /* the length is greater than the guessed one */
    NumberChances off;             /* difference of the length from the guessed one, minus 1 */
    Chance lengths[256];
    NumberChances hops;            /* place of a distance in the chain */
    Chance distances[32];          /* distance codes of RFC 1951 */
    /* Of a block: it is the last; its kind, by the kind of the block before; it has as many symbols
     * as the block before. */
    Chance last, kinds[4][4], full;
    NumberChances symbols, stored; /* symbols of a block, bytes of a stored block */
    Chance padding;                /* some padding bit is not 0 */
} Chances;

/* A walk over the tokens of a stream. The same functions make a record (the coder encodes) and
 * apply it (the coder decodes). */
typedef struct {
    Coder coder;
    Chances chances;
    HeaderCoder headers;
    Guesser guesser;
    u32 position, past;    /* in the input; last three guesses as bits, newest lowest, 1: right */
    u32 left;              /* correct_cost(): tokens that are left to code; else 0 */
    Reader reader;         /* making a record: the stream */
    BitWriter out;         /* applying a record: the stream */
    u32 *tokens;           /* of the current block: `count`, with memory for `room` */
    size_t count, room;
    u32 before;            /* symbols in the block before */
    BlockKind kind;        /* of the current block, or of the block before */
} Walk;

/* Appends a token of the current block. Returns false if there is no memory. */
static bool walk_push(Walk *walk, u32 token)
{
    if (walk->count == walk->room) {
        size_t room = walk->room ? walk->room * 2 : 1 << 14;
        u32 *grown = realloc(walk->tokens, room * sizeof *grown);
        if (!grown)
            return false;
        walk->tokens = grown;
        walk->room = room;
    }
    walk->tokens[walk->count++] = token;
    return true;
}

/* ---- Tokens ------------------------------------------------------------------------------ */

/* Returns whether the token is a match that the input has at the walk's position. */
static bool fits(const Walk *walk, u32 token)
{
    const u8 *at = walk->guesser.in + walk->position;
    u32 length = token >> 16, distance = token & 0xffff;
    return length >= SHORTEST_MATCH && length <= LONGEST_MATCH && distance >= 1 &&
           distance <= walk->position && length <= walk->guesser.size - walk->position &&
           match_length(at, at - distance, length) == length;
}

/* Codes the distance of a match of `length` bytes: its place among the candidates that match as
 * many bytes (1: the first), or 0 and then the distance itself. Returns 0 if the record is
 * damaged. */
static u32 code_distance(Walk *walk, u32 length, u32 distance)
{
    const Guesser *guesser = &walk->guesser;
    Coder *coder = &walk->coder;
    const u8 *at = guesser->in + walk->position;
    u32 candidate = walk->position, place = 0, found = 0;
    bool decoding = coder->decoding;
    u32 wanted = decoding ? code_number(coder, &walk->chances.hops, 0) : 0;
    bool searched = guesser->size - walk->position >= guesser->model.hashed;
    for (u32 steps = 0; searched && steps < MOST_STEPS && (!decoding || place < wanted); steps++) {
        candidate = guess_candidate(guesser, walk->position, candidate);
        if (candidate == NOWHERE)
            break;
        if (match_length(at, guesser->in + candidate, length) < length)
            continue;
        place++;
        found = walk->position - candidate;
        if (!decoding && found == distance)
            break;
    }
    if (decoding && wanted)
        return place == wanted ? found : 0;
    if (!decoding) {
        wanted = found == distance ? place : 0;
        code_number(coder, &walk->chances.hops, wanted);
        if (wanted)
            return distance;
    }
    u32 code = decoding ? 0 : distance_code(distance);
    code = code_tree(coder, walk->chances.distances, code, 5);
    if (code >= DISTANCE_CODES)
        return 0;
    return DISTANCE_FIRST[code] +
           code_flat(coder, distance - DISTANCE_FIRST[code], DISTANCE_EXTRA[code]);
}

/* Codes a token that differs from the guessed one. Returns 0 for a literal. A damaged record may
 * give 0 or a match that does not fit. */
static u32 code_miss(Walk *walk, Match guessed, u32 class, u32 token)
{
    Coder *coder = &walk->coder;
    Chances *chances = &walk->chances;
    u32 length = token >> 16, distance = token & 0xffff;
    if (guessed.length) {
        if (code_bit(coder, &chances->literal[class][walk->past], token == 0))
            return 0;
        if (code_bit(coder, &chances->same_distance[class], distance == guessed.distance)) {
            bool longer = code_bit(coder, &chances->longer, length > guessed.length);
            u32 off = longer ? length - guessed.length : guessed.length - length;
            off = code_number(coder, &chances->off, off - 1) + 1;
            length = longer ? guessed.length + off : guessed.length - off;
            return (length & 0x1ff) << 16 | guessed.distance;
        }
    }
    if (guessed.length &&
        code_bit(coder, &chances->same_length[class], length == guessed.length))
        length = guessed.length;
    else
        length = code_tree(coder, chances->lengths, length - 3, 8) + 3;
    if (length > walk->guesser.size - walk->position) {
        coder->failed = true; /* the record is damaged */
        return 0;
    }
    return length << 16 | code_distance(walk, length, distance);
}

/* Codes the token at the walk's position and moves behind it. Returns false if the record is
 * damaged or there is no memory. */
static bool code_token(Walk *walk, u32 *token)
{
    bool deferred;
    Match guessed = guess(&walk->guesser, walk->position, &deferred);
    u32 class = class_of(guessed, deferred);
    u32 likely = guessed.length ? token_of(guessed) : 0;
    bool hit = code_bit(&walk->coder, &walk->chances.hit[class][walk->past], *token == likely);
    *token = hit ? likely : code_miss(walk, guessed, class, *token);
    walk->past = (walk->past << 1 | hit) & 7;
    if (*token && !hit && !fits(walk, *token))
        return false;
    u32 length = *token ? *token >> 16 : 1;
    guess_learn(&walk->guesser, walk->position, length);
    walk->position += length;
    return !walk->coder.failed;
}

/* ---- Blocks ------------------------------------------------------------------------------ */

/* When making a record: reads the tokens of a block with these codes and compares them with the
 * input. Returns false if the block does not fit the input, or there is no memory. */
static bool read_tokens(Walk *walk, const Code *literals, const Code *distances)
{
    Reader *reader = &walk->reader;
    const u8 *raw = walk->guesser.in;
    u32 position = walk->position, size = walk->guesser.size;
    for (;;) {
        refill(reader);
        u32 symbol = get_symbol(reader, literals);
        if (symbol == END_OF_BLOCK)
            return !overrun(reader);
        if (position == size || overrun(reader))
            return false;
        if (symbol < END_OF_BLOCK) {
            if (raw[position++] != symbol || !walk_push(walk, 0))
                return false;
            continue;
        }
        u32 distance, length = read_match(reader, distances, symbol, &distance);
        /* RFC 1951 has two codes for a length of 258: 285, and 284 with extra bits of 31. A record
         * cannot hold the second one. No known encoder writes it. */
        const u8 *at = raw + position;
        if (!length || (length == LONGEST_MATCH && symbol != LITERAL_CODES - 1) ||
            distance > position || length > size - position ||
            match_length(at, at - distance, length) < length ||
            !walk_push(walk, length << 16 | distance))
            return false;
        position += length;
    }
}

static bool read_block(Walk *walk, Header *header)
{
    Code literals, distances;
    walk->count = 0;
    if (walk->kind == BLOCK_FIXED)
        fixed_codes(&literals, &distances);
    else if (!read_header(&walk->reader, header) ||
             !header_codes(header, &literals, &distances))
        return false;
    return read_tokens(walk, &literals, &distances);
}

/* Codes the bits up to the next whole byte. They are zeros in nearly every stream. */
static void code_padding(Walk *walk)
{
    bool decoding = walk->coder.decoding;
    u32 bits = decoding ? bits_to_byte(&walk->out) : walk->reader.count & 7;
    u32 value = decoding ? 0 : get(&walk->reader, bits);
    if (code_bit(&walk->coder, &walk->chances.padding, value != 0))
        value = code_flat(&walk->coder, value, bits);
    if (decoding)
        bits_put(&walk->out, value, bits);
}

static bool code_stored(Walk *walk)
{
    Coder *coder = &walk->coder;
    const u8 *in = walk->guesser.in + walk->position;
    u32 length = 0, left = walk->guesser.size - walk->position;
    code_padding(walk);
    if (!coder->decoding) {
        length = get_bits(&walk->reader, 16);
        if ((length ^ 0xffff) != get_bits(&walk->reader, 16) || overrun(&walk->reader))
            return false;
    }
    length = code_number(coder, &walk->chances.stored, length);
    if (length > 0xffff || length > left)
        return false;
    if (coder->decoding) {
        bits_put(&walk->out, length | (length ^ 0xffff) << 16, 32);
        bits_put_bytes(&walk->out, in, length);
    } else {
        const u8 *bytes = read_bytes(&walk->reader, length);
        if (!bytes || memcmp(bytes, in, length) != 0)
            return false;
    }
    for (u32 i = 0; i < length; i++)
        guess_learn(&walk->guesser, walk->position++, 1);
    return true;
}

static void count_symbols(const Walk *walk, u32 start, Frequencies *frequencies)
{
    const u8 *at = walk->guesser.in + start;
    memset(frequencies, 0, sizeof *frequencies);
    frequencies->literals[END_OF_BLOCK] = 1;
    for (size_t i = 0; i < walk->count; i++) {
        u32 token = walk->tokens[i];
        if (token) {
            frequencies->literals[257 + length_code(token >> 16)]++;
            frequencies->distances[distance_code(token & 0xffff)]++;
            at += token >> 16;
        } else {
            frequencies->literals[*at++]++;
        }
    }
}

static void write_tokens(Walk *walk, u32 start, const u8 *lengths, u32 literal_count)
{
    u16 literals[FIXED_LITERAL_CODES] = {0}, distances[DISTANCE_CODES] = {0};
    const u8 *at = walk->guesser.in + start, *far = lengths + literal_count;
    BitWriter *out = &walk->out;
    tree_codes(lengths, (int)literal_count, literals);
    tree_codes(far, DISTANCE_CODES, distances);
    for (size_t i = 0; i < walk->count; i++) {
        u32 token = walk->tokens[i];
        if (!token) {
            bits_put(out, literals[*at], lengths[*at]);
            at++;
            continue;
        }
        u32 length = token >> 16, distance = token & 0xffff, code = length_code(length);
        bits_put(out, literals[257 + code], lengths[257 + code]);
        bits_put(out, length - LENGTH_FIRST[code], LENGTH_EXTRA[code]);
        code = distance_code(distance);
        bits_put(out, distances[code], far[code]);
        bits_put(out, distance - DISTANCE_FIRST[code], DISTANCE_EXTRA[code]);
        at += length;
    }
    bits_put(out, literals[END_OF_BLOCK], lengths[END_OF_BLOCK]);
}

static bool code_tokens(Walk *walk, bool last)
{
    Coder *coder = &walk->coder;
    u32 size = walk->guesser.size, count = (u32)walk->count;
    if (!last) {
        if (code_bit(coder, &walk->chances.full, count == walk->before))
            count = walk->before;
        else
            count = code_number(coder, &walk->chances.symbols, count);
        walk->before = count;
    }
    if (coder->decoding)
        walk->count = 0;
    for (size_t i = 0; last ? walk->position < size : i < count; i++) {
        u32 token = 0;
        if (!coder->decoding && i == walk->count)
            return false;
        if (!coder->decoding)
            token = walk->tokens[i];
        if (walk->position >= size || !code_token(walk, &token) ||
            (coder->decoding && !walk_push(walk, token)))
            return false;
        if (walk->left && --walk->left == 0)
            return true;
    }
    return true;
}

static void write_block(Walk *walk, u32 start, const Header *header)
{
    if (walk->kind == BLOCK_DYNAMIC) {
        header_write(header, &walk->out);
        write_tokens(walk, start, header->lengths, header->literal_count);
    } else {
        u8 lengths[FIXED_LITERAL_CODES + DISTANCE_CODES];
        fixed_lengths(lengths);
        memset(lengths + FIXED_LITERAL_CODES, 5, DISTANCE_CODES);
        write_tokens(walk, start, lengths, FIXED_LITERAL_CODES);
    }
}

static bool code_block(Walk *walk, bool *last)
{
    Coder *coder = &walk->coder;
    u32 kind = 0, start = walk->position;
    Header header;
    if (!coder->decoding) {
        *last = get_bits(&walk->reader, 1);
        kind = get(&walk->reader, 2);
    }
    *last = code_bit(coder, &walk->chances.last, *last);
    kind = code_tree(coder, walk->chances.kinds[walk->kind], kind, 2);
    if (kind > BLOCK_DYNAMIC)
        return false;
    walk->kind = (BlockKind)kind;
    if (coder->decoding)
        bits_put(&walk->out, (u32)*last | kind << 1, 3);
    if (kind == BLOCK_STORED)
        return code_stored(walk);
    if ((!coder->decoding && !read_block(walk, &header)) || !code_tokens(walk, *last))
        return false;
    if (kind == BLOCK_DYNAMIC) {
        Frequencies frequencies;
        count_symbols(walk, start, &frequencies);
        if (!code_header(coder, &walk->headers, &frequencies, &header))
            return false;
    }
    if (coder->decoding)
        write_block(walk, start, &header);
    return true;
}

/* ---- Streams ----------------------------------------------------------------------------- */

static bool walk_open(Walk *walk, const Model *model, const u8 *raw, u32 size)
{
    chances_reset(&walk->chances, sizeof walk->chances);
    header_coder_open(&walk->headers, model->heap, model->joined);
    walk->past = 7;
    walk->kind = BLOCK_DYNAMIC;
    return guesser_open(&walk->guesser, model, raw, size);
}

/* Returns the largest number of blocks that a record may have. No known encoder writes more. The
 * limit bounds the work for a damaged record, whose blocks may all be empty. */
static u32 most_blocks(u32 size) { return 1024 + size / 16; }

static bool code_stream(Walk *walk)
{
    u32 blocks = most_blocks(walk->guesser.size);
    bool last = false, stop = walk->left != 0;
    while (!last && !(stop && walk->left == 0))
        if (blocks-- == 0 || !code_block(walk, &last) || walk->coder.failed || walk->out.failed)
            return false;
    if (stop)
        return true;
    code_padding(walk);
    return walk->position == walk->guesser.size && !walk->coder.failed && !walk->out.failed;
}

static void walk_close(Walk *walk)
{
    guesser_close(&walk->guesser);
    free(walk->tokens);
}

/* Codes the numbers of a model. Plain 16-bit numbers would take more bytes than the rest of many
 * records. */
static void code_model(Coder *coder, Model *model)
{
    NumberChances chances;
    u16 numbers[MODEL_NUMBERS];
    chances_reset(&chances, sizeof chances);
    memcpy(numbers, model, sizeof numbers);
    for (int i = 0; i < MODEL_NUMBERS; i++)
        numbers[i] = (u16)code_number(coder, &chances, numbers[i]);
    memcpy(model, numbers, sizeof numbers);
}

static CorrectResult make(Walk *walk, const Model *model, const u8 *body, size_t body_size,
                          const u8 *raw, u32 size)
{
    Model copy = *model;
    walk->reader.at = body;
    walk->reader.end = body + body_size;
    coder_encode(&walk->coder);
    if (!walk_open(walk, model, raw, size))
        return CORRECT_NO_MEMORY;
    code_model(&walk->coder, &copy);
    bool fine = code_stream(walk);
    coder_finish(&walk->coder);
    if (walk->coder.failed)
        return CORRECT_NO_MEMORY;
    return fine ? CORRECT_DONE : CORRECT_NOT;
}

CorrectResult correct_make(const Model *model, const u8 *body, size_t body_size, const u8 *raw,
                           u32 size, u8 **record, size_t *record_size)
{
    Walk *walk = calloc(1, sizeof *walk);
    CorrectResult result =
        walk ? make(walk, model, body, body_size, raw, size) : CORRECT_NO_MEMORY;
    if (result == CORRECT_DONE && !read_ended(&walk->reader))
        result = CORRECT_NOT;
    if (result == CORRECT_DONE) {
        *record = walk->coder.out;
        *record_size = walk->coder.size;
    } else if (walk) {
        free(walk->coder.out);
    }
    if (walk)
        walk_close(walk);
    free(walk);
    return result;
}

size_t correct_cost(const Model *model, const u8 *body, size_t body_size, const u8 *raw, u32 size,
                    u32 tokens, u64 *steps)
{
    Walk *walk = calloc(1, sizeof *walk);
    size_t cost = 0;
    if (walk) {
        walk->left = tokens;
        if (make(walk, model, body, body_size, raw, size) == CORRECT_DONE)
            cost = walk->coder.size;
        *steps += walk->guesser.steps;
        free(walk->coder.out);
        walk_close(walk);
    }
    free(walk);
    return cost;
}

static CorrectResult apply(Walk *walk, const u8 *record, size_t record_size, const u8 *raw, u32 size)
{
    Model model;
    memset(&model, 0, sizeof model);
    coder_decode(&walk->coder, record, record_size);
    code_model(&walk->coder, &model);
    if (!model_valid(&model))
        return CORRECT_NOT;
    if (!walk_open(walk, &model, raw, size))
        return CORRECT_NO_MEMORY;
    return code_stream(walk) ? CORRECT_DONE : walk->out.failed ? CORRECT_NO_MEMORY : CORRECT_NOT;
}

CorrectResult correct_apply(const u8 *record, size_t record_size, const u8 *raw, u32 size, u8 **body,
                            size_t *body_size)
{
    Walk *walk = calloc(1, sizeof *walk);
    CorrectResult result = walk ? apply(walk, record, record_size, raw, size) : CORRECT_NO_MEMORY;
    if (result == CORRECT_DONE) {
        *body = walk->out.bytes;
        *body_size = walk->out.size;
    } else if (walk) {
        free(walk->out.bytes);
    }
    if (walk)
        walk_close(walk);
    free(walk);
    return result;
}
