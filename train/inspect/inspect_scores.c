// Scores are shown by what they are for: the pairs that a conversion of usual size would keep.
#include "base/hdf5_file.h"
#include "model/convert/rope_select.h"
#include "model/model.h"
#include "train/inspect/inspect.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>

// By the dataset that only such a file has. HDF5 prints its errors unless it is told not to, and
// most files asked about are not HDF5.
bool inspect_is_scores(const char *path)
{
    hid_t file;
    if (hdf5_open(&file, path) != OK)
        return false;
    const bool is_scores = H5Lexists(file, "q_norm", H5P_DEFAULT) > 0;
    H5Fclose(file);
    return is_scores;
}

// Which pairs the scores choose says more than the sums themselves. The usual number of pairs is a
// sixteenth of the head width, 4 of 32 for heads of 64; rope_select() works on a shape, so the copy
// has this number.
static Status print_selection(const RopeScores *scores, const char *path)
{
    ModelShape shape = scores->shape;
    char what[128];
    shape.rope_pairs = shape.head_dim >= 16 ? shape.head_dim / 16 : 1;
    const size_t count = (size_t)model_n_pairs(&shape);
    int32_t *pairs = malloc(count * sizeof *pairs);
    if (pairs == NULL)
        return fail(FAILED, "%s: no memory for %zu RoPE pairs", path, count);
    const Status status = rope_select(pairs, &shape, shape.rope_pairs, ROPE_2NORM, scores);
    snprintf(what, sizeof what, "Kept by --rope 2-norm --rope-pairs %d", shape.rope_pairs);
    if (status == OK)
        inspect_pairs(what, &shape, pairs);
    free(pairs);
    return status != OK ? fail_within(status, "%s", path) : OK;
}

// The shape comes from the file itself: scores do not name the model they were made of.
Status inspect_scores(const char *path)
{
    RopeScores scores;
    TRY(rope_scores_read(&scores, NULL, path));
    const ModelShape *s = &scores.shape;
    printf("%s: RoPE scores, sums of pair norms over calibration text\n", path);
    inspect_label("layers");
    printf("%d\n", s->n_layers);
    inspect_label("attention");
    printf("%d query and %d KV heads of width %d: %d RoPE pairs\n", s->n_heads, s->n_kv_heads,
           s->head_dim, s->head_dim / 2);
    inspect_label("tokens");
    printf("%.0f (%.2f M)\n", *scores.n_tokens, *scores.n_tokens / 1e6);
    const Status status = print_selection(&scores, path);
    rope_scores_release(&scores);
    return status;
}
