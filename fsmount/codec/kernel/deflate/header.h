/* Coding what stands in front of a dynamic block, as far as it is not as expected.
 *
 * Encoders differ in how they build their codes. Expected are the lengths that zlib's heap or a
 * sorted list gives for the block's symbols, no more lengths than needed, and runs as long as can
 * be.
 */
#ifndef FSMOUNT_KERNEL_HEADER_H
#define FSMOUNT_KERNEL_HEADER_H

#include "bits.h"
#include "coder.h"
#include "reader.h"

typedef struct {
    Chance lengths_same, counts_same[2], op_same, run_same, run_count_same;
    Chance lengths[16][16]; /* by the expected one */
    Chance ops[4];
    Chance op_lengths[4][256];
    Chance run[8][8];
    bool heap, joined;      /* of the model */
} HeaderCoder;

void header_coder_open(HeaderCoder *headers, bool heap, bool joined);

/* Codes the header of a block in which symbols are as frequent as this. False: damaged. */
bool code_header(Coder *coder, HeaderCoder *headers, const Frequencies *frequencies,
                 Header *header);

void header_write(const Header *header, BitWriter *writer);

#endif
