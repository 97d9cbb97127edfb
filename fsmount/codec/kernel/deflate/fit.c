#include "fit.h"

#include "correct.h"

enum { HASH3 = 15, REACH = 32768 - WINDOW_RESERVE, ANY = 32768 };

/* zlib's lazy and greedy parsers (deflate_slow() and deflate_fast()). */
#define ZLIB(least, chain, good, lazy, nice, insert) \
    {GUESS_LAZY, 3, HASH3, least, chain, good, (chain + 3) / 4, 1, lazy, nice, \
     4096, REACH, insert, 0, 1, 1, 0}
/* zlib-ng hashes four bytes, so it finds no match shorter than four. */
#define NG(kind, chain, good, lazy, nice, insert) \
    {kind, 4, 16, 4, chain, good, (chain + 3) / 4, 1, lazy, nice, ANY, REACH, insert, 1, 1, 1, 0}
/* miniz counts three candidates as one probe. With a good match it takes a quarter of the probes,
 * not of the candidates. */
#define MINIZ(probes, lazy) \
    {GUESS_LAZY, 3, HASH3, 3, (probes + 2) / 3, 32, (probes / 4 + 2) / 3, 3, lazy, 258, \
     8191, ANY - LONGEST_MATCH, 258, 0, 2, 0, 1}

/* Chromium's version of zlib, which Node.js uses. It hashes four bytes. */
#define NODE(least, chain, good, lazy, nice, far) \
    {GUESS_LAZY, 4, HASH3, least, chain, good, (chain + 3) / 4, 1, lazy, nice, \
     far, REACH, 258, 0, 1, 1, 0}
/* libdeflate weighs lengths against distances. The model cannot express that. */
#define LIBDEFLATE(chain, lazy, nice) \
    {GUESS_LAZY, 3, 24, 3, chain, 258, chain, 1, lazy, nice, 8192, ANY, 258, 0, 0, 0, 0}

static const Model KNOWN[] = {
    MINIZ(128, 128),  /* Chromium; Rust's png at its default */
    NG(GUESS_MEDIUM, 128, 258, 0, 128, 256), /* zlib-ng 2.0 to 2.2, level 6 */
    NG(GUESS_MEDIUM, 128, 258, 0, 128, 258), /* zlib-ng after 2.2, level 6 */
    ZLIB(6, 128, 8, 16, 128, 258),
    ZLIB(3, 128, 8, 16, 128, 258),
    NG(GUESS_LAZY, 1, 258, 0, 258, 0),       /* from here on zlib-ng, level 1 first */
    NG(GUESS_LAZY, 4, 258, 0, 8, 4),
    NG(GUESS_LAZY, 6, 258, 0, 16, 96),
    NG(GUESS_LAZY, 24, 258, 0, 32, 192),
    NG(GUESS_MEDIUM, 32, 258, 0, 32, 256),
    NG(GUESS_LAZY, 256, 8, 32, 128, 258),
    NG(GUESS_LAZY, 1024, 32, 128, 258, 258),
    /* level 9 */
    {GUESS_LAZY, 3, HASH3, 3, 4096, 32, 1024, 1, 258, 258, ANY, REACH, 258, 0, 1, 1, 0},
    MINIZ(16, 128), MINIZ(32, 128), MINIZ(256, 128), MINIZ(768, 128), MINIZ(1500, 128),
    MINIZ(6, 0), MINIZ(32, 0),
    NODE(3, 128, 8, 16, 128, 4096), NODE(4, 128, 8, 16, 128, ANY), NODE(3, 4096, 32, 258, 258, 4096),
    LIBDEFLATE(35, 258, 65), LIBDEFLATE(100, 258, 130), LIBDEFLATE(300, 258, 258),
    ZLIB(3, 4, 258, 0, 8, 4), ZLIB(3, 8, 258, 0, 16, 5), ZLIB(3, 32, 258, 0, 32, 6),
    ZLIB(3, 32, 8, 16, 32, 258), ZLIB(3, 256, 8, 32, 128, 258),
    ZLIB(3, 1024, 32, 128, 258, 258), ZLIB(6, 1024, 32, 128, 258, 258),
    ZLIB(3, 4096, 32, 258, 258, 258), ZLIB(6, 4096, 32, 258, 258, 258),
};
enum { KNOWN_COUNT = sizeof KNOWN / sizeof *KNOWN };

/* Number of models from the caller that fit_model() tries. */
enum { MOST_GIVEN = 4 };

/* A change of a model that improve() tries: the place of a number in the model, and its new
 * value. */
typedef struct {
    u16 place, value;
} Step;
#define PLACE(name) (offsetof(Model, name) / sizeof(u16))

static const Step STEPS[] = {
    {PLACE(hashed), 3}, {PLACE(hashed), 4},
    {PLACE(hash_bits), 15}, {PLACE(hash_bits), 16}, {PLACE(hash_bits), 24},
    {PLACE(kind), GUESS_LAZY}, {PLACE(kind), GUESS_MEDIUM},
    {PLACE(lazy), 0}, {PLACE(lazy), 16}, {PLACE(lazy), 32}, {PLACE(lazy), 128}, {PLACE(lazy), 258},
    {PLACE(chain), 1}, {PLACE(chain), 2}, {PLACE(chain), 4}, {PLACE(chain), 8}, {PLACE(chain), 16},
    {PLACE(chain), 35}, {PLACE(chain), 64}, {PLACE(chain), 128}, {PLACE(chain), 256},
    {PLACE(chain), 1024}, {PLACE(chain), 4096},
    {PLACE(good), 8}, {PLACE(good), 32}, {PLACE(good), 258},
    {PLACE(nice), 16}, {PLACE(nice), 32}, {PLACE(nice), 65}, {PLACE(nice), 130}, {PLACE(nice), 258},
    {PLACE(least), 3}, {PLACE(least), 4}, {PLACE(least), 5}, {PLACE(least), 6},
    {PLACE(far), 4096}, {PLACE(far), 8192}, {PLACE(far), ANY},
    {PLACE(insert), 0}, {PLACE(insert), 32}, {PLACE(insert), 258},
    {PLACE(insert_end), 0}, {PLACE(insert_end), 1},
    {PLACE(unseen), 0}, {PLACE(unseen), 1},
    {PLACE(heap), 0}, {PLACE(heap), 1}, {PLACE(joined), 0}, {PLACE(joined), 1},
};

/* FIRST: tokens for the comparison of all models. MORE: tokens for the choice among the BEST models
 * and for improving the chosen one. LAST: tokens for the final check of the improved model. */
enum { FIRST = 2000, MORE = 20000, LAST = 80000, BEST = 5 };
/* Sizes in bytes, model included. If the record of the FIRST tokens is below SMALL_FIRST, a given
 * model is taken at once. If the record of MORE tokens is at most SMALL, the model is not
 * improved. */
enum { SMALL_FIRST = 60, SMALL = 150 };
/* A longer chain costs time now and whenever the record is read. So improve() makes the chain at
 * most LONGER times as long in one step, and only if the record shrinks by more than 1 / WORTH. It
 * stops when all guesses together have looked at MOST_STEPS candidates. */
enum { LONGER = 4, WORTH = 64, MOST_STEPS = 200000000 };

typedef struct {
    const u8 *body, *raw;
    size_t body_size;
    u32 size;
    u64 steps;
} Stream;

/* Returns the size in bytes of the record of the first `tokens` tokens; 0: this model cannot be
 * used. */
static u32 cost(Stream *stream, const Model *model, u32 tokens)
{
    if (!model_valid(model))
        return 0;
    return (u32)correct_cost(model, stream->body, stream->body_size, stream->raw, stream->size,
                             tokens, &stream->steps);
}

/* Tries each change of STEPS once and keeps those that make the record smaller. */
static void improve(Stream *stream, Fitted *fitted)
{
    for (size_t i = 0; i < sizeof STEPS / sizeof *STEPS && stream->steps < MOST_STEPS; i++) {
        u16 numbers[MODEL_NUMBERS], place = STEPS[i].place, value = STEPS[i].value;
        Model changed;
        memcpy(numbers, &fitted->model, sizeof numbers);
        if (numbers[place] == value ||
            (place == PLACE(chain) && value > LONGER * fitted->model.chain))
            continue;
        numbers[place] = value;
        memcpy(&changed, numbers, sizeof numbers);
        if (place == PLACE(chain))
            changed.good_chain = (u16)((value + 3) / 4);
        if (place == PLACE(hashed))
            changed.hash_bits = 16;
        u32 found = cost(stream, &changed, MORE);
        u32 least = changed.chain > fitted->model.chain ? fitted->cost / WORTH : 0;
        if (found && found + least < fitted->cost) {
            fitted->cost = found;
            fitted->model = changed;
        }
    }
}

bool fit_model(const u8 *body, size_t body_size, const u8 *raw, u32 size, const Fitted *given,
               size_t given_count, Fitted *fitted)
{
    Stream stream = {body, raw, body_size, size, 0};
    const Model *models[MOST_GIVEN + KNOWN_COUNT];
    u32 costs[MOST_GIVEN + KNOWN_COUNT], count = 0;
    u32 before = 0; /* cost of the chosen model where it was fitted; 0: it is not a given one */
    given_count = given_count < MOST_GIVEN ? given_count : MOST_GIVEN;
    for (size_t i = 0; i < given_count; i++) {
        costs[count] = cost(&stream, &given[i].model, FIRST);
        if (costs[count] && costs[count] < SMALL_FIRST) {
            *fitted = given[i];
            return true;
        }
        models[count++] = &given[i].model;
    }
    for (int i = 0; i < KNOWN_COUNT; i++) {
        costs[count] = cost(&stream, &KNOWN[i], FIRST);
        models[count++] = &KNOWN[i];
    }
    fitted->cost = 0;
    for (int n = 0; n < BEST; n++) {
        u32 chosen = 0;
        for (u32 i = 1; i < count; i++)
            if (costs[i] && (!costs[chosen] || costs[i] < costs[chosen]))
                chosen = i;
        if (!costs[chosen])
            break;
        costs[chosen] = 0;
        u32 found = cost(&stream, models[chosen], MORE);
        if (found && (!fitted->cost || found < fitted->cost)) {
            fitted->cost = found;
            fitted->model = *models[chosen];
            before = chosen < given_count ? given[chosen].cost : 0;
        }
    }
    if (fitted->cost <= SMALL || fitted->cost < before + before / 2)
        return fitted->cost != 0;
    Fitted known = *fitted;
    u32 gained = fitted->cost;
    while (fitted->cost > SMALL && gained > fitted->cost / 16 && stream.steps < MOST_STEPS) {
        u32 start = fitted->cost;
        improve(&stream, fitted);
        gained = start - fitted->cost;
    }
    /* A model that fits the first tokens closely may fit later tokens worse than the known one. */
    if (cost(&stream, &known.model, LAST) < cost(&stream, &fitted->model, LAST))
        *fitted = known;
    return true;
}
