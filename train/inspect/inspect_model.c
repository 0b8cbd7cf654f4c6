// From config.json, the header of the weights and the checksum of the tokenizer: no weight is read
// but the RoPE pairs of a converted model.
#include "data/tokenizer/tokenizer_file.h"
#include "infer/cache/kv_table.h"
#include "model/hf/hf.h"
#include "train/inspect/inspect.h"

#include <stdio.h>
#include <stdlib.h>

// The names of the literature: every query head with its own key head (MHA), groups of query heads
// with one (GQA), all with a single one (MQA).
static void print_attention(const ModelShape *s)
{
    const char *kind = shape_is_mla(s)               ? "MLA"
                       : s->n_kv_heads == s->n_heads ? "MHA"
                       : s->n_kv_heads == 1          ? "MQA"
                                                     : "GQA";
    inspect_label("attention");
    printf("%s, %d query and %d KV heads of width %d", kind, s->n_heads, s->n_kv_heads,
           s->head_dim);
    if (shape_is_shared(s))
        printf("; %d rotated slots shared by all heads, latent of %d%s", s->rope_pairs, s->latent,
               s->latent_norm ? " with RMSNorm" : "");
    else if (shape_is_mla(s))
        printf("; %d of %d RoPE pairs, d_kv %d, %s SVD", s->rope_pairs, s->head_dim / 2, s->d_kv,
               shape_svd_name(s->svd));
    if (s->attention_bias != BIAS_NONE)
        printf("; biases");
    if (s->qk_norm)
        printf("; RMSNorm of every head of queries and keys");
    putchar('\n');
}

// Also for checkpoints, whose manifest has the same shape.
void inspect_shape(const ModelShape *s)
{
    inspect_label("layers");
    printf("%d, width %d, feed-forward %d\n", s->n_layers, s->d_model, s->d_ffn);
    print_attention(s);
    inspect_label("vocabulary");
    printf("%d, head %s\n", s->vocab_size, s->tied_head ? "tied to the embedding" : "of its own");
    inspect_label("positions");
    printf("%d, RoPE theta %g", s->max_positions, s->rope_theta);
    if (s->rope_scaling.factor > 0)
        printf(", llama3 scaling by %g from %d", s->rope_scaling.factor,
               s->rope_scaling.original_positions);
    if (layer_set_count(&s->no_rope) > 0)
        printf(" (none in %d of %d layers)", layer_set_count(&s->no_rope), s->n_layers);
    if (s->sliding_window > 0)
        printf(", sliding window %d", s->sliding_window);
    printf(", RMSNorm epsilon %g\n", s->rms_eps);
    if (!shape_is_mla(s))
        return;
    inspect_label("healed on");
    if (s->healed_seq_len > 0)
        printf("sequences of %d tokens\n", s->healed_seq_len);
    else
        printf("no record of training since the conversion\n");
}

// The saving is against the same model with its full keys and values.
static void print_cache(const ModelShape *shape)
{
    const ModelShape original = shape_original(shape);
    const int64_t numbers = shape_cache_numbers(shape), before = shape_cache_numbers(&original);
    inspect_label("cache");
    printf("%lld numbers per token", (long long)numbers);
    if (shape_is_mla(shape))
        printf(", original %lld: saving %.2f %%", (long long)before,
               100.0 * (1.0 - (double)numbers / (double)before));
    putchar('\n');
    kv_table_print(stdout, shape);
}

// [n_layers, n_kv_heads, rope_pairs], owned by the caller.
static Status read_pairs(int32_t **out, const ModelShape *shape, const char *dir)
{
    size_t count = (size_t)model_n_pairs(shape);
    int32_t *pairs = malloc(count * sizeof *pairs);
    if (pairs == NULL)
        return fail(FAILED, "%s: no memory for %zu RoPE pairs", dir, count);
    Status status = hf_load_rope_pairs(pairs, shape, dir);
    if (status == OK)
        *out = pairs;
    else
        free(pairs);
    return status;
}

// What can fail is read before the first line is printed, so that an error does not follow half a
// page.
Status inspect_model(const char *dir)
{
    char size[INSPECT_SIZE_BYTES];
    ModelShape shape;
    DType dtype;
    int32_t *pairs = NULL;
    char tokenizer[SHA256_HEX_BYTES];
    TRY(hf_load_shape(&shape, dir));
    TRY(tokenizer_file_sha256(tokenizer, dir));
    TRY(hf_weights_dtype(&dtype, dir));
    if (shape_is_mla(&shape))
        TRY(read_pairs(&pairs, &shape, dir));
    int64_t n_params = params_count(&shape);
    printf("%s: Hugging Face model, %s\n", dir, shape_is_mla(&shape) ? "converted" : "original");
    inspect_shape(&shape);
    inspect_label("parameters");
    printf("%lld (%.2f M)\n", (long long)n_params, (double)n_params / 1e6);
    inspect_label("weights");
    printf("%s", dtype_name(dtype));
    if (dtype != DTYPE_OTHER)
        printf(", %s", inspect_size(size, n_params * dtype_size_bytes(dtype)));
    putchar('\n');
    inspect_label("tokenizer");
    printf("%s%s\n", tokenizer[0] != '\0' ? "sha256 " : "none in the directory", tokenizer);
    print_cache(&shape);
    if (pairs != NULL)
        inspect_pairs("RoPE pairs kept", &shape, pairs);
    free(pairs);
    return OK;
}
