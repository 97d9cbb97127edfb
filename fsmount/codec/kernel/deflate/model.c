#include "model.h"

#include "finder.h"
#include "tokens.h"

/* Mask for positions in the ring of links. Searches look ahead of the position by up to one and a
 * half matches, so the ring is twice as large as the window. */
enum { CHAIN_RING = 0xffff };

bool model_valid(const Model *model)
{
    return model->kind < GUESSES && (model->hashed == 3 || model->hashed == 4) &&
           model->hash_bits >= 8 && model->hash_bits <= 24 && model->least >= 3 &&
           model->least <= LONGEST_MATCH && model->chain >= 1 && model->chain <= 4096 &&
           model->good_chain >= 1 && model->good_chain <= model->chain && model->group >= 1 &&
           model->group <= 8 && model->reach <= 32768 && model->unseen <= 2 && model->heap <= 1 &&
           model->insert_end <= 2 && model->joined <= 1;
}

static u32 hash(const Model *model, const u8 *at)
{
    u32 mask = ((u32)1 << model->hash_bits) - 1;
    if (model->hashed == 4) {
        u32 value = at[0] | (u32)at[1] << 8 | (u32)at[2] << 16 | (u32)at[3] << 24;
        return value * 2654435761u >> 16 & mask;
    }
    u32 shift = (model->hash_bits + 2u) / 3;
    return ((u32)at[0] << 2 * shift ^ (u32)at[1] << shift ^ at[2]) & mask;
}

bool guesser_open(Guesser *guesser, const Model *model, const u8 *in, u32 size)
{
    memset(guesser, 0, sizeof *guesser);
    guesser->in = in;
    guesser->size = size;
    guesser->model = *model;
    guesser->ahead = NOWHERE;
    guesser->heads = calloc((size_t)1 << model->hash_bits, sizeof(u32));
    guesser->links = calloc(CHAIN_RING + 1, sizeof(u32));
    return guesser->heads && guesser->links;
}

void guesser_close(Guesser *guesser)
{
    free(guesser->heads);
    free(guesser->links);
}

/* Enters all positions before `end` at which enough bytes are left for the hash. */
static void fill(Guesser *guesser, u32 end)
{
    const Model *model = &guesser->model;
    u32 hashed = model->hashed;
    if (guesser->size < hashed)
        return;
    end = min32(end, guesser->size - hashed + 1);
    for (u32 position = guesser->filled; position < end; position++) {
        u32 *head = &guesser->heads[hash(model, guesser->in + position)];
        guesser->links[position & CHAIN_RING] = *head;
        *head = position + 1;
    }
    guesser->filled = max32(guesser->filled, end);
}

/* Enters the first position of a token, and skips the positions that the encoder does not enter. A
 * later search enters the other positions. */
static void enter(Guesser *guesser, u32 position, u32 length)
{
    const Model *model = &guesser->model;
    fill(guesser, position + 1);
    if (length > model->insert && length > model->insert_end)
        guesser->filled = max32(guesser->filled, position + length - model->insert_end);
}

u32 guess_candidate(const Guesser *guesser, u32 position, u32 candidate)
{
    u32 link = guesser->links[candidate & CHAIN_RING];
    if (link == 0 || link - 1 >= candidate || position - (link - 1) > guesser->model.reach)
        return NOWHERE;
    candidate = link - 1;
    u32 unseen = guesser->model.unseen;
    if (unseen && (unseen == 1 ? candidate == 0 : (candidate & 0xffff) == 0))
        return NOWHERE;
    return candidate;
}

/* Finds the longest match at `position` that is longer than `held` bytes; of equally long ones the
 * nearest. It looks at as many candidates as the model says. A length of 0 means none. */
static Match search(Guesser *guesser, u32 position, u32 held)
{
    const Model *model = &guesser->model;
    const u8 *in = guesser->in, *at = in + position;
    Match best = {0, 0};
    u32 left = guesser->size - position;
    if (left < model->hashed)
        return best;
    fill(guesser, position + 1);
    u32 most = min32(left, LONGEST_MATCH), length = max32(held, SHORTEST_MATCH - 1);
    u32 nice = min32(model->nice, most);
    u32 budget = held >= model->good ? model->good_chain : model->chain, spared = 0;
    if (length >= most)
        return best;
    for (u32 candidate = position;;) {
        if (spared == 0 && budget-- == 0)
            break;
        spared = spared ? spared - 1 : model->group - 1u;
        candidate = guess_candidate(guesser, position, candidate);
        if (candidate == NOWHERE)
            break;
        guesser->steps++;
        const u8 *there = in + candidate;
        if (there[length] != at[length] || there[length - 1] != at[length - 1])
            continue;
        spared = 0;
        if (there[0] != at[0] || there[1] != at[1])
            continue;
        u32 found = match_length(at, there, most);
        if (found > length) {
            length = found;
            best.length = found;
            best.distance = position - candidate;
            if (found >= nice)
                break;
        }
    }
    if (best.length < model->least || (best.length == 3 && best.distance > model->far))
        best.length = 0;
    return best;
}

/* Returns the match at `position`: the one that the guess before found there, or else a new
 * search's. */
static Match look(Guesser *guesser, u32 position)
{
    return guesser->ahead == position ? guesser->found : search(guesser, position, 0);
}

static Match guess_lazy(Guesser *guesser, u32 position, bool *deferred)
{
    Match here = look(guesser, position);
    guesser->ahead = NOWHERE;
    if (here.length && here.length < guesser->model.lazy && position + 1 < guesser->size) {
        Match next = search(guesser, position + 1, here.length);
        if (next.length > here.length) {
            guesser->ahead = position + 1;
            guesser->found = next;
            *deferred = true;
            here.length = 0;
        }
    }
    return here;
}

/* Returns by how many bytes the match `next` at `start` can move back over a match that begins at
 * `position` (zlib-ng's fizzle_matches()). zlib-ng moves it only if at most one byte of the first
 * match is left. */
static u32 moved_back(const Guesser *guesser, u32 position, u32 start, Match next)
{
    const u8 *in = guesser->in;
    u32 moved = 0, reach = guesser->model.reach;
    u32 limit = start > reach ? start - reach : 0;
    while (moved < start - position && start - moved > limit && next.length + moved < 256 &&
           start - moved - next.distance > 1 &&
           in[start - moved - 1] == in[start - moved - 1 - next.distance])
        moved++;
    return moved;
}

static Match guess_medium(Guesser *guesser, u32 position, bool *deferred)
{
    Match here = look(guesser, position);
    guesser->ahead = NOWHERE;
    for (;;) {
        u32 start = position + max32(here.length, 1);
        if (start >= guesser->size || guesser->size - position <= WINDOW_RESERVE)
            return here;
        enter(guesser, position, start - position);
        Match next = search(guesser, start, 0);
        u32 moved = here.length && next.length ? moved_back(guesser, position, start, next) : 0;
        if (moved && here.length - moved <= 1) {
            next.length += moved;
            if (here.length == moved) {
                here = next;
                continue;
            }
            here.length = 0;
            *deferred = true;
            start = position + 1;
        }
        guesser->ahead = start;
        guesser->found = next;
        return here;
    }
}

Match guess(Guesser *guesser, u32 position, bool *deferred)
{
    *deferred = false;
    return guesser->model.kind == GUESS_MEDIUM ? guess_medium(guesser, position, deferred)
                                               : guess_lazy(guesser, position, deferred);
}

void guess_learn(Guesser *guesser, u32 position, u32 length)
{
    enter(guesser, position, length);
    if (guesser->ahead != position + length)
        guesser->ahead = NOWHERE;
}
