// Models of the paper's own code (github.com/JT-Ushio/MHA2MLA, v1.0 and v1.2), read as models of
// this program. What they lack is which RoPE pairs were kept, and v1.0 has its queries in the order
// of the original model; the other tensors have other names alone (model/paper/paper_names.h).
//
//     PaperConfig paper;
//     Model model;
//     TRY(paper_config_read(&paper, dir));
//     TRY_GOTO(release, paper_load(&model, &paper, dir, &(PaperPairs){.ranks = "qk_rank.pth"}));
//     status = hf_save(&model, dir, DTYPE_BF16, "out/");
#ifndef MHA2MLA_MODEL_PAPER_PAPER_IMPORT_H
#define MHA2MLA_MODEL_PAPER_PAPER_IMPORT_H

#include "model/model.h"
#include "model/paper/paper_config.h"

// Where the pairs come from, if the config does not say them itself; at most one of both.
typedef struct PaperPairs {
    const char *ranks; // file of ranks or scores (model/paper/paper_ranks.h); NULL: the one beside
                       // the weights that the config names
    const char *list;  // "0,4,8": of every KV head, in place of what the config says; or NULL
} PaperPairs;

// The caller releases the model. BAD_INPUT names the file and what is missing or does not fit.
Status paper_load(Model *out, const PaperConfig *paper, const char *dir, const PaperPairs *given);

#endif
