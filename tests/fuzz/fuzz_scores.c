// model/convert/rope_scores: a damaged file of scores is refused in one line, or it is of a model
// whose dims are in bounds and pairs are selected by it or refused. An input is a byte of settings,
// then edits of tests/fuzz/base/scores.h5 (tests/fuzz/fuzzing_hdf5.h).
#include "tests/fuzz/fuzzing_hdf5.h"

#include "model/convert/rope_scores.h"
#include "model/convert/rope_select.h"

#include <stdlib.h>

enum { OF_A_MODEL = 1 }; // a bit of the settings: read for the model that the base is of

static Hdf5Base base;

// That of tests/fuzz/base/scores.h5.
static const ModelShape model = {
    .n_layers = 2, .n_heads = 4, .n_kv_heads = 2, .head_dim = 8, .rope_pairs = 4};

static void load_base(void)
{
    static const char *const names[] = {"version",    "n_layers", "n_heads",
                                        "n_kv_heads", "head_dim", "n_tokens"};
    hdf5_base_load(&base, FUZZ_DIR "/base/scores.h5");
    hdf5_base_add_chunk(&base, "q_norm");
    hdf5_base_add_chunk(&base, "k_norm");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        hdf5_base_add_attribute(&base, names[i]);
    hdf5_base_add_dims(&base, "q_norm");
    hdf5_base_add_dims(&base, "k_norm");
    hdf5_base_add_rest(&base);
}

static void check_selection(const RopeScores *scores)
{
    const ModelShape *s = &scores->shape;
    const int half = s->head_dim / 2, P = half > 1 ? half / 2 : 1;
    const int64_t count = (int64_t)s->n_layers * s->n_kv_heads * P;
    int32_t *pairs = malloc((size_t)count * sizeof *pairs);
    CHECK(pairs != NULL, "no memory");
    const Status status = rope_select(pairs, s, P, ROPE_2NORM, scores);
    if (status != OK)
        fuzz_check_refusal(status);
    for (int64_t i = 0; i < count && status == OK; i++) {
        CHECK(pairs[i] >= 0 && pairs[i] < half, "pair %d of %d", (int)pairs[i], half);
        CHECK(i % P == 0 || pairs[i - 1] < pairs[i], "pair %d twice", (int)pairs[i]);
    }
    free(pairs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[HDF5_MOST_BYTES];
    FuzzInput input = {data, size};
    const uint8_t settings = fuzz_take_byte(&input);
    RopeScores scores;
    if (base.size == 0)
        load_base();
    const size_t n_bytes = hdf5_base_edit(file, &base, settings, &input);
    const char *path = fuzz_file("scores.h5", file, n_bytes);
    const Status status =
        rope_scores_read(&scores, (settings & OF_A_MODEL) != 0 ? &model : NULL, path);
    if (status != OK)
        return fuzz_check_refusal(status);
    CHECK(shape_check_heads(&scores.shape, "what was read") == OK, "%s", fail_text());
    check_selection(&scores);
    rope_scores_release(&scores);
    return 0;
}
