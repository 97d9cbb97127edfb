/* Finds the model (model.h) that predicts a stream best. */
#ifndef FSMOUNT_KERNEL_FIT_H
#define FSMOUNT_KERNEL_FIT_H

#include "model.h"

/* A model, and the size in bytes of the record (correct.h) of the first tokens of the stream that
 * it was fitted to. */
typedef struct {
    Model model;
    u32 cost;
} Fitted;

/* Chooses a model for the stream `body` of the input `raw` by its first tokens. Candidates are the
 * first four of `given` (results for earlier streams) and the models of known encoders. If none of
 * them predicts the stream well, the function improves the best one number by number as long as
 * that helps. Sets `fitted` and returns true. Returns false if no model can read the stream, or
 * there is no memory. */
bool fit_model(const u8 *body, size_t body_size, const u8 *raw, u32 size, const Fitted *given,
               size_t given_count, Fitted *fitted);

#endif
