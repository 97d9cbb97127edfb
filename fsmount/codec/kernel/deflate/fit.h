/* Which model guesses a stream best. */
#ifndef FSMOUNT_KERNEL_FIT_H
#define FSMOUNT_KERNEL_FIT_H

#include "model.h"

/* A model, and how many bytes the record of a stream's first tokens took with it. */
typedef struct {
    Model model;
    u32 cost;
} Fitted;

/* The best model there is for the beginning of the stream: one of `given`, which were fitted to
 * earlier streams; a known encoder's; or the nearest of them, changed number by number as long as
 * that helps. False: no model reads the stream. */
bool fit_model(const u8 *body, size_t body_size, const u8 *raw, u32 size, const Fitted *given,
               size_t given_count, Fitted *fitted);

#endif
