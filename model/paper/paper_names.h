// What the paper's code calls a layer's tensors: one table for reading (paper_import.h) and writing
// (v12_layout.h).
//
//     PaperTensor parts[2];
//     int n_parts = paper_names(parts, &shape, &info, PAPER_V12);
//     for (int i = 0; i < n_parts; i++)
//         ... parts[i].name has rows first_row .. first_row + rows - 1 of the tensor `info` ...
#ifndef MHA2MLA_MODEL_PAPER_PAPER_NAMES_H
#define MHA2MLA_MODEL_PAPER_PAPER_NAMES_H

#include "model/hf/hf_config.h"
#include "model/params.h"

typedef struct PaperTensor {
    char name[PARAM_NAME_BYTES];
    int first_row, rows;
} PaperTensor;

// The tensors that make up one of ours: itself, under another name or its own, or, of split SVD's
// down-projection, one of half the rows for the keys and one for the values. Returns their number.
int paper_names(PaperTensor out[2], const ModelShape *shape, const ParamInfo *info,
                PaperLayout layout);

#endif
