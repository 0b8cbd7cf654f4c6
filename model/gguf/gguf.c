#include "model/gguf/gguf.h"

#include "model/gguf/gguf_block.h"
#include "model/gguf/gguf_original.h"
#include "model/gguf/gguf_vocabulary.h"

#include <stdlib.h>

enum { KEY_BYTES = 96 };

// What llama.cpp's deepseek2 does not have, with the way out.
static Status check_latent_attention(const Deepseek *d)
{
    const ModelShape *s = &d->model->shape;
    if (s->rope_scaling.factor > 0)
        return fail(BAD_INPUT,
                    "--format gguf has no scaled frequencies (llama3, factor %g) for latent "
                    "attention: llama.cpp's deepseek2 takes no table of them; use --format hf",
                    s->rope_scaling.factor);
    if (d->slots.stride == 0 && !shape_is_shared(s))
        return fail(BAD_INPUT,
                    "--format gguf is not for models converted per KV head, whose %d slots of "
                    "rotated pairs need a table of frequencies that llama.cpp's deepseek2 does "
                    "not take; convert with --form shared --rope shared-uniform",
                    d->slots.n_slots);
    if (d->slots.stride == 0)
        return fail(BAD_INPUT, "--format gguf needs the same rotated pairs, every n-th one from 0, "
                               "in all layers: llama.cpp has one plain RoPE for them; add "
                               "--plain-rope, or convert with --rope shared-uniform");
    if (d->nope == 0)
        return fail(BAD_INPUT, "all pairs of the model are rotated; --format gguf needs at least "
                               "one that is not");
    return OK;
}

Status gguf_create(Gguf *out, const Model *model, GgufType type, bool plain_rope)
{
    Gguf gguf = {.model = model, .type = type};
    if (!shape_is_mla(&model->shape)) {
        if (plain_rope)
            return fail(BAD_INPUT, "--plain-rope is for converted models, this one has its "
                                   "original attention");
        TRY(gguf_original_check(&model->shape));
        *out = gguf;
        return OK;
    }
    Status status;
    TRY(deepseek_create(&gguf.deepseek, model, DEEPSEEK_GGUF, plain_rope));
    TRY_GOTO(release, check_latent_attention(&gguf.deepseek));
    *out = gguf;
    return OK;
release:
    deepseek_release(&gguf.deepseek);
    return status;
}

void gguf_release(Gguf *gguf)
{
    if (shape_is_mla(&gguf->model->shape))
        deepseek_release(&gguf->deepseek);
}

static const char *architecture(const Gguf *gguf)
{
    const ModelShape *shape = &gguf->model->shape;
    return shape_is_mla(shape) ? "deepseek2" : gguf_original_architecture(shape);
}

void gguf_describe(const Gguf *gguf)
{
    const ModelShape *s = &gguf->model->shape;
    const Deepseek *d = &gguf->deepseek;
    if (!shape_is_mla(s)) {
        printf("GGUF: architecture %s\n", architecture(gguf));
        return;
    }
    printf(
        "GGUF: architecture deepseek2, %d rotated slots, of which a layer uses %d; KV cache %lld "
        "numbers per token (own format %lld)\n",
        d->slots.n_slots, d->slots.row, (long long)s->n_layers * (d->latent + d->rho),
        (long long)shape_cache_numbers(s));
}

// ---- metadata ----------------------------------------------------------------------------------

typedef struct ShapeKey {
    const char *key; // after the architecture and a dot
    int64_t value;
} ShapeKey;

static const char *with_architecture(char out[KEY_BYTES], const Gguf *gguf, const char *key)
{
    snprintf(out, KEY_BYTES, "%s.%s", architecture(gguf), key);
    return out;
}

static void put_keys(GgufMeta *meta, const Gguf *gguf, const ShapeKey *keys, size_t n_keys)
{
    char key[KEY_BYTES];
    for (size_t i = 0; i < n_keys; i++)
        gguf_put_u32(meta, with_architecture(key, gguf, keys[i].key), keys[i].value);
}

// One KV head, of the latent and the rotated keys; keys ending in _mla are those of a head as it
// was. Layers without experts: all are leading dense ones. A rank of q that is 0 says that q is one
// matrix; llama.cpp refuses most models without the key.
static void put_latent_attention(GgufMeta *meta, const Gguf *gguf)
{
    const ModelShape *s = &gguf->model->shape;
    const Deepseek *d = &gguf->deepseek;
    const ShapeKey keys[] = {
        {"attention.head_count_kv", 1},
        {"attention.key_length", d->latent + d->rho},
        {"attention.value_length", d->latent},
        {"attention.key_length_mla", d->nope + d->rho},
        {"attention.value_length_mla", s->head_dim},
        {"attention.kv_lora_rank", d->latent},
        {"attention.q_lora_rank", 0},
        {"rope.dimension_count", d->rho},
        {"leading_dense_block_count", s->n_layers},
        {"expert_feed_forward_length", s->d_ffn},
        {"expert_shared_count", 0},
    };
    put_keys(meta, gguf, keys, sizeof keys / sizeof keys[0]);
}

static void put_original_attention(GgufMeta *meta, const Gguf *gguf)
{
    const ModelShape *s = &gguf->model->shape;
    const ShapeKey keys[] = {
        {"attention.head_count_kv", s->n_kv_heads},
        {"attention.key_length", s->head_dim},
        {"attention.value_length", s->head_dim},
        {"rope.dimension_count", s->head_dim},
    };
    put_keys(meta, gguf, keys, sizeof keys / sizeof keys[0]);
}

// general.file_type, whose values are llama.cpp's.
static int64_t file_type(GgufType type)
{
    switch (type) {
    case GGUF_F32:
        return 0;
    case GGUF_F16:
        return 1;
    case GGUF_Q8_0:
        return 7;
    case GGUF_BF16:
        return 32;
    }
    CHECK(false, "type %d", (int)type);
}

static void put_shape(GgufMeta *meta, const Gguf *gguf)
{
    const ModelShape *s = &gguf->model->shape;
    const bool is_mla = shape_is_mla(s);
    const ShapeKey keys[] = {
        {"vocab_size", s->vocab_size},     {"context_length", shape_longest(s)},
        {"embedding_length", s->d_model},  {"block_count", s->n_layers},
        {"feed_forward_length", s->d_ffn}, {"attention.head_count", s->n_heads},
    };
    char key[KEY_BYTES];
    gguf_put_text(meta, "general.architecture", architecture(gguf));
    gguf_put_u32(meta, "general.file_type", file_type(gguf->type));
    if (gguf->type == GGUF_Q8_0)
        gguf_put_u32(meta, "general.quantization_version", 2);
    put_keys(meta, gguf, keys, sizeof keys / sizeof keys[0]);
    if (is_mla)
        put_latent_attention(meta, gguf);
    else
        put_original_attention(meta, gguf);
    gguf_put_f32(meta, with_architecture(key, gguf, "attention.layer_norm_rms_epsilon"),
                 is_mla ? gguf->deepseek.eps : s->rms_eps);
    gguf_put_f32(meta, with_architecture(key, gguf, "rope.freq_base"),
                 is_mla ? gguf->deepseek.slots.theta : s->rope_theta);
}

// ---- tensors -----------------------------------------------------------------------------------

static GgufType type_of(const Gguf *gguf, const TensorSpec *spec)
{
    const bool is_narrow = gguf->type == GGUF_F16 || gguf->type == GGUF_Q8_0;
    const bool is_mla = shape_is_mla(&gguf->model->shape);
    if (spec->n_dims == 1 || (is_narrow && is_mla && deepseek_has_tiny_rows(&gguf->deepseek, spec)))
        return GGUF_F32;
    return gguf->type == GGUF_Q8_0 && spec->dims[spec->n_dims - 1] % Q8_0_NUMBERS != 0 ? GGUF_F16
                                                                                       : gguf->type;
}

// What the numbers are checked against before anything is written: scales of Q8_0 are F16.
static DType checked_dtype(GgufType type)
{
    return type == GGUF_F32 ? DTYPE_F32 : type == GGUF_BF16 ? DTYPE_BF16 : DTYPE_F16;
}

static Status list_tensors(TensorList *out, const Gguf *gguf)
{
    return shape_is_mla(&gguf->model->shape)
               ? deepseek_list_tensors(out, &gguf->deepseek, DTYPE_F32)
               : gguf_original_list_tensors(out, gguf->model, DTYPE_F32);
}

Status gguf_save(const Gguf *gguf, const char *tokenizer_dir, const char *path)
{
    Status status;
    GgufMeta meta;
    TensorList tensors;
    TRY(gguf_meta_create(&meta));
    put_shape(&meta, gguf);
    TRY_GOTO(release_meta,
             gguf_put_vocabulary(&meta, tokenizer_dir, gguf->model->shape.vocab_size));
    TRY_GOTO(release_meta, list_tensors(&tensors, gguf));
    GgufType *types = malloc((size_t)tensors.n_specs * sizeof *types);
    if (types == NULL) {
        status = fail(FAILED, "%s: no memory for %d tensors", path, tensors.n_specs);
        goto release_tensors;
    }
    for (int i = 0; i < tensors.n_specs; i++) {
        types[i] = type_of(gguf, &tensors.specs[i]);
        tensors.specs[i].dtype = checked_dtype(types[i]);
    }
    TRY_GOTO(free_types, tensor_list_check(&tensors));
    status = gguf_write(path, &meta, &tensors, types);
free_types:
    free(types);
release_tensors:
    tensor_list_release(&tensors);
release_meta:
    gguf_meta_release(&meta);
    return status;
}
