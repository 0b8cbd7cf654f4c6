// model/hf_config: a config.json is refused in one line, or its shape survives saving and loading.
#include "tests/fuzz/fuzzing.h"

#include "base/json.h"
#include "model/hf/hf.h"
#include "model/hf/hf_config.h"

#include <stdlib.h>
#include <string.h>

static bool is_same(const ModelShape *a, const ModelShape *b)
{
    return a->n_layers == b->n_layers && a->d_model == b->d_model && a->n_heads == b->n_heads &&
           a->n_kv_heads == b->n_kv_heads && a->head_dim == b->head_dim && a->d_ffn == b->d_ffn &&
           a->vocab_size == b->vocab_size && a->max_positions == b->max_positions &&
           a->rope_pairs == b->rope_pairs && a->d_kv == b->d_kv && a->svd == b->svd &&
           a->tied_head == b->tied_head && a->rope_theta == b->rope_theta &&
           a->rms_eps == b->rms_eps && a->healed_seq_len == b->healed_seq_len;
}

// With the input as base, or from the shape alone.
static void check_round_trip(const ModelShape *shape, const char *base_dir)
{
    json_t *config;
    ModelShape back;
    CHECK(hf_config_make(&config, shape, base_dir, DTYPE_BF16) == OK, "%s", fail_text());
    char *text = json_dumps(config, 0);
    CHECK(text != NULL, "no memory");
    fuzz_file("config.json", text, strlen(text));
    CHECK(hf_load_shape(&back, fuzz_dir()) == OK, "%s: %s", fail_text(), text);
    CHECK(is_same(shape, &back), "another shape came back from %s", text);
    free(text);
    json_decref(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ModelShape shape;
    fuzz_file("config.json", data, size);
    Status status = hf_load_shape(&shape, fuzz_dir());
    if (status != OK)
        return fuzz_check_refusal(status);
    CHECK(shape_check(&shape, "what was loaded") == OK, "%s", fail_text());
    check_round_trip(&shape, fuzz_dir());
    check_round_trip(&shape, NULL);
    return 0;
}
