/* Codes the header of a dynamic block (RFC 1951 section 3.2.7) as its differences from the expected
 * header.
 *
 * Encoders differ in how they build their Huffman codes. The expected header has the code lengths
 * that zlib's heap or a sorted list gives for the symbols of the block, no more lengths than
 * needed, and the longest possible runs of equal lengths.
 */
#ifndef FSMOUNT_KERNEL_HEADER_H
#define FSMOUNT_KERNEL_HEADER_H

#include "bits.h"
#include "coder.h"
#include "reader.h"

typedef struct {
    Chance lengths_same, counts_same[2], op_same, run_same, run_count_same;
    Chance lengths[16][16]; /* code length, by the expected length */
    Chance ops[4];          /* class of a symbol of the run code */
    Chance op_lengths[4][256];
    Chance run[8][8];       /* length in the run code, by the expected length */
    bool heap, joined;      /* the model's numbers of these names (model.h) */
} HeaderCoder;

/* Sets all contexts to equal probabilities. */
void header_coder_open(HeaderCoder *headers, bool heap, bool joined);

/* Codes the header of a block whose symbols have these frequencies. When the coder decodes, it
 * fills `header`; else it reads it. Returns false if the record is damaged. */
bool code_header(Coder *coder, HeaderCoder *headers, const Frequencies *frequencies,
                 Header *header);

/* Writes the header as RFC 1951 section 3.2.7 says, without the three bits that begin a block. */
void header_write(const Header *header, BitWriter *writer);

#endif
