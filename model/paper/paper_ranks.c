#include "model/paper/paper_ranks.h"

#include "model/paper/torch_file.h"

// What all rows of a file have in common.
typedef struct Ranks {
    const TorchTensor *tensor;
    const ModelShape *shape;
    const char *path;
} Ranks;

static Status check_dims(const Ranks *ranks)
{
    const ModelShape *s = ranks->shape;
    const int64_t *dims = ranks->tensor->dims;
    const bool is_scores = torch_file_is_float(ranks->tensor);
    const int last = is_scores ? s->head_dim / 2 : s->head_dim;
    if (dims[0] == s->n_layers && dims[1] == s->n_kv_heads && dims[2] == last)
        return OK;
    return fail(BAD_INPUT,
                "%s: %s of [%lld, %lld, %lld], the model needs [%d, %d, %d]: layers, KV heads, %s",
                ranks->path, is_scores ? "scores" : "ranks", (long long)dims[0], (long long)dims[1],
                (long long)dims[2], s->n_layers, s->n_kv_heads, last,
                is_scores ? "pairs" : "dims of a head");
}

static Status read_ranks(int32_t *pairs, const Ranks *ranks, int64_t row)
{
    const ModelShape *s = ranks->shape;
    const int half = s->head_dim / 2;
    int n_kept = 0;
    for (int p = 0; p < half; p++) {
        const double rank = torch_file_value(ranks->tensor, row * s->head_dim + p);
        if (rank != torch_file_value(ranks->tensor, row * s->head_dim + half + p))
            return fail(
                BAD_INPUT, "%s: layer %lld, KV head %lld: the dims of pair %d differ in rank",
                ranks->path, (long long)(row / s->n_kv_heads), (long long)(row % s->n_kv_heads), p);
        if (rank >= s->rope_pairs || rank < 0)
            continue;
        if (n_kept < s->rope_pairs)
            pairs[n_kept] = p;
        n_kept++;
    }
    return n_kept == s->rope_pairs
               ? OK
               : fail(BAD_INPUT, "%s: layer %lld, KV head %lld: %d pairs have ranks below %d",
                      ranks->path, (long long)(row / s->n_kv_heads),
                      (long long)(row % s->n_kv_heads), n_kept, s->rope_pairs);
}

// A pair is kept if fewer than P others come before it.
static Status read_scores(int32_t *pairs, const Ranks *ranks, int64_t row)
{
    const ModelShape *s = ranks->shape;
    const int half = s->head_dim / 2;
    int n_kept = 0;
    for (int p = 0; p < half; p++) {
        const double score = torch_file_value(ranks->tensor, row * half + p);
        int n_before = 0;
        if (score != score)
            return fail(BAD_INPUT, "%s: layer %lld, KV head %lld: the score of pair %d is NaN",
                        ranks->path, (long long)(row / s->n_kv_heads),
                        (long long)(row % s->n_kv_heads), p);
        for (int other = 0; other < half; other++) {
            const double value = torch_file_value(ranks->tensor, row * half + other);
            n_before += value > score || (value == score && other < p);
        }
        if (n_before < s->rope_pairs)
            pairs[n_kept++] = p;
    }
    CHECK(n_kept == s->rope_pairs, "%d of %d pairs", n_kept, s->rope_pairs);
    return OK;
}

Status paper_ranks_read(int32_t *pairs, const ModelShape *shape, const char *path)
{
    TorchTensor tensor;
    Status status;
    TRY(torch_file_open(&tensor, path));
    const Ranks ranks = {&tensor, shape, path};
    TRY_GOTO(close_file, check_dims(&ranks));
    for (int64_t row = 0; row < (int64_t)shape->n_layers * shape->n_kv_heads; row++)
        TRY_GOTO(close_file, torch_file_is_float(&tensor)
                                 ? read_scores(pairs + row * shape->rope_pairs, &ranks, row)
                                 : read_ranks(pairs + row * shape->rope_pairs, &ranks, row));
close_file:
    torch_file_close(&tensor);
    return status;
}
