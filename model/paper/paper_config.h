// What config.json says of a conversion by the paper's code: which pairs were kept, and how the
// rest was factorized.
//
//     PaperConfig paper;
//     TRY(paper_config_read(&paper, dir));
//     if (!paper.is_by_ranks)
//         use(paper.is_kept);              // by the dims of a head
//     paper_config_release(&paper);
#ifndef MHA2MLA_MODEL_PAPER_PAPER_CONFIG_H
#define MHA2MLA_MODEL_PAPER_PAPER_CONFIG_H

#include "base/file.h"
#include "model/hf/hf_config.h"

typedef struct PaperConfig {
    PaperLayout layout;
    const char *strategy;        // "2-norm", ...: as v1.2 calls it; static
    ModelShape shape;            // converted
    bool is_by_ranks;            // the pairs of every KV head are in a file of ranks or scores
    int32_t *pairs;              // owned [P], of every KV head; NULL if is_by_ranks
    char ranks_path[PATH_BYTES]; // as the config names that file; "": it does not
} PaperConfig;

// BAD_INPUT names what is missing, out of bounds or not supported: the directory is in none of the
// layouts, grouped queries were made to single ones (is_gqa2mha2mla), keys or values were not
// factorized. The caller releases *out.
Status paper_config_read(PaperConfig *out, const char *dir);
void paper_config_release(PaperConfig *paper);

// "v1.0" or "v1.2".
const char *paper_version(PaperLayout layout);

#endif
