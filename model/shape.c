// What follows from a shape alone: dims, limits, the size of the KV cache and the cost of a step.
// Only the plain fields are stored (model/shape.h); whatever can be derived is a function here, so
// that no two fields can contradict each other.
#include "model/shape.h"

#include "base/intmath.h"
#include "base/log.h"
#include "model/shape_fields.h"

#include <string.h>

int shape_dim(const ModelShape *s, ShapeDim dim)
{
    switch (dim) {
    case DIM_ONE:
        return 1;
    case DIM_D:
        return s->d_model;
    case DIM_F:
        return s->d_ffn;
    case DIM_V:
        return s->vocab_size;
    // Products of two dims fit an int within the bounds of model/shape_fields.c; products of three
    // are formed in int64_t by the callers.
    case DIM_Q:
        return s->n_heads * s->head_dim;
    case DIM_KV:
        return s->n_kv_heads * s->head_dim;
    case DIM_QUERY:
        return s->n_heads * (s->head_dim + (shape_is_shared(s) ? 2 * s->rope_pairs : 0));
    case DIM_K_ROPE:
        return shape_rope_heads(s) * 2 * s->rope_pairs;
    case DIM_K_NOPE:
        return shape_up_heads(s) * shape_head_nope(s);
    case DIM_UP_VALUE:
        return shape_up_heads(s) * s->head_dim;
    case DIM_LATENT:
        return shape_is_shared(s) ? s->latent : s->n_kv_heads * s->d_kv;
    case DIM_NORM:
        return s->latent_norm ? s->latent : 0;
    case DIM_HEAD_NORM:
        return s->qk_norm ? s->head_dim : 0;
    case DIM_Q_BIAS:
        return s->attention_bias != BIAS_NONE ? shape_dim(s, DIM_QUERY) : 0;
    case DIM_KV_BIAS:
        return s->attention_bias != BIAS_NONE ? shape_dim(s, DIM_KV) : 0;
    case DIM_K_R_BIAS:
        return s->attention_bias != BIAS_NONE ? shape_dim(s, DIM_K_ROPE) : 0;
    case DIM_O_BIAS:
        return s->attention_bias >= (shape_is_mla(s) ? BIAS_QKV : BIAS_QKV_OUT) ? s->d_model : 0;
    case DIM_UP_INPUT:
        // Split SVD stores two latents side by side: the first half of the columns serves the keys,
        // the second the values.
        return shape_dim(s, DIM_LATENT) / (s->svd == SVD_SPLIT ? 2 : 1);
    }
    CHECK(false, "dim %d", (int)dim);
}

const char *const shape_svd_names[] = {[SVD_JOINT] = "joint", [SVD_SPLIT] = "split", NULL};

const char *shape_svd_name(SvdKind svd)
{
    return shape_svd_names[svd];
}

// Names are compared exactly: they come from JSON or the config, where the case is fixed.
bool shape_svd_parse(SvdKind *out, const char *name)
{
    for (int i = 0; shape_svd_names[i] != NULL; i++)
        if (strcmp(name, shape_svd_names[i]) == 0) {
            *out = (SvdKind)i;
            return true;
        }
    return false;
}

// A latent wider than the rank of the matrix it factorizes would hold zeros.
static int largest_d_kv(const ModelShape *s)
{
    int rows_k = shape_dim(s, DIM_K_NOPE), rows_v = shape_dim(s, DIM_KV);
    int rank = s->svd == SVD_JOINT ? min_int(rows_k + rows_v, s->d_model)
                                   : 2 * min_int(min_int(rows_k, rows_v), s->d_model);
    return rank / s->n_kv_heads;
}

// All slots together are at most the pairs of all KV heads, and the latent the rank of their keys
// and values: more would be copies and zeros.
static Status check_shared(const ModelShape *s, const char *where)
{
    const int max_slots =
        min_int(s->n_kv_heads * (s->head_dim / 2), (int)shape_fields[SHAPE_ROPE_PAIRS].most);
    const int max_latent = min_int(2 * shape_dim(s, DIM_KV), s->d_model);
    if (s->d_kv != 0 || s->svd != SVD_JOINT)
        return fail(BAD_INPUT,
                    "%s: latent is %d, but d_kv is %d and svd %s; the shared form has d_kv 0 and "
                    "joint",
                    where, s->latent, s->d_kv, shape_svd_name(s->svd));
    if (s->qk_norm)
        return fail(
            BAD_INPUT,
            "%s: the shared form cannot hold qk_norm: its slots mix KV heads, each of which "
            "has an RMSNorm of its own; use the per-head form",
            where);
    if (s->rope_pairs < 1 || s->rope_pairs > max_slots)
        return fail(BAD_INPUT, "%s: rope_pairs is %d, allowed are 1 to %d slots of the shared form",
                    where, s->rope_pairs, max_slots);
    if (s->latent > max_latent)
        return fail(BAD_INPUT, "%s: latent is %d, allowed are 1 to %d (rank of keys and values)",
                    where, s->latent, max_latent);
    return OK;
}

// The latent is bounded by the rank, not by the head: d_kv above it would store zeros, and the
// bound keeps the widths of shape_fields.c in range. Split SVD gives keys and values half of it
// each.
static Status check_mla(const ModelShape *s, const char *where)
{
    if (shape_is_shared(s))
        return check_shared(s, where);
    if (s->latent_norm)
        return fail(BAD_INPUT, "%s: latent_norm is true, but latent is 0 (not the shared form)",
                    where);
    if (s->rope_pairs < 1 || s->rope_pairs > s->head_dim / 2)
        return fail(BAD_INPUT, "%s: rope_pairs is %d, allowed are 1 to %d (head width %d)", where,
                    s->rope_pairs, s->head_dim / 2, s->head_dim);
    int max_d_kv = largest_d_kv(s);
    if (max_d_kv < 1)
        return fail(BAD_INPUT,
                    "%s: %s SVD has no keys left to compress with rope_pairs %d; keep "
                    "fewer pairs or use joint",
                    where, shape_svd_name(s->svd), s->rope_pairs);
    if (s->d_kv < 1 || s->d_kv > max_d_kv)
        return fail(BAD_INPUT, "%s: d_kv is %d, allowed are 1 to %d with rope_pairs %d and %s SVD",
                    where, s->d_kv, max_d_kv, s->rope_pairs, shape_svd_name(s->svd));
    if (s->svd == SVD_SPLIT && shape_dim(s, DIM_LATENT) % 2 != 0)
        return fail(BAD_INPUT, "%s: d_kv is %d, split SVD needs an even d_kv x %d KV heads", where,
                    s->d_kv, s->n_kv_heads);
    return OK;
}

// Bounds first: they keep zeros from the divisions below.
Status shape_check_heads(const ModelShape *s, const char *where)
{
    static const ShapeFieldId ids[] = {SHAPE_N_LAYERS, SHAPE_N_HEADS, SHAPE_N_KV_HEADS,
                                       SHAPE_HEAD_DIM};
    for (int i = 0; i < 4; i++)
        TRY(shape_field_check(&shape_fields[ids[i]], s, where));
    if (s->head_dim % 2 != 0)
        return fail(BAD_INPUT, "%s: head width is %d, RoPE needs an even one", where, s->head_dim);
    if (s->n_heads % s->n_kv_heads != 0)
        return fail(BAD_INPUT, "%s: %d query heads do not divide among %d KV heads", where,
                    s->n_heads, s->n_kv_heads);
    return OK;
}

// What makes a wavelength's place among the two borders a number between 0 and 1.
static Status check_rope_scaling(const RopeScaling *scaling, const char *where)
{
    if (scaling->factor == 0)
        return OK;
    if (scaling->factor < 1 || scaling->low_freq_factor <= 0 || scaling->original_positions < 1)
        return fail(BAD_INPUT,
                    "%s: RoPE is scaled by factor %g, low_freq_factor %g, %d original positions; "
                    "allowed are a factor from 1 and positive numbers",
                    where, scaling->factor, scaling->low_freq_factor, scaling->original_positions);
    if (scaling->high_freq_factor <= scaling->low_freq_factor)
        return fail(BAD_INPUT, "%s: high_freq_factor of RoPE is %g, not above low_freq_factor %g",
                    where, scaling->high_freq_factor, scaling->low_freq_factor);
    return OK;
}

Status shape_check(const ModelShape *s, const char *where)
{
    // The heads come first, although the loop checks their bounds again: their message says more.
    TRY(shape_check_heads(s, where));
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        TRY(shape_field_check(&shape_fields[i], s, where));
    TRY(check_rope_scaling(&s->rope_scaling, where));
    if (shape_is_mla(s))
        return check_mla(s, where);
    if (s->latent_norm)
        return fail(BAD_INPUT, "%s: latent_norm is true, but the attention is the original one",
                    where);
    if (s->rope_pairs != s->head_dim / 2)
        return fail(BAD_INPUT, "%s: rope_pairs is %d, original attention (d_kv 0) keeps all %d",
                    where, s->rope_pairs, s->head_dim / 2);
    return OK;
}

// Positions the model has never seen give losses that say nothing of it.
Status shape_check_length(const ModelShape *s, int64_t T, const char *setting, const char *model)
{
    const int longest = shape_longest(s);
    if (T <= longest)
        return OK;
    return fail(BAD_INPUT, "%s is %lld, more than %s %d of %s", setting, (long long)T,
                longest < s->max_positions ? "sliding_window" : "max_position_embeddings", longest,
                model);
}

// Training on shorter sequences later does not undo what longer ones have taught, so the maximum is
// kept and not the last length.
void shape_set_healed(ModelShape *s, int T)
{
    if (shape_is_mla(s) && T > s->healed_seq_len)
        s->healed_seq_len = T;
}

void shape_warn_healed(const ModelShape *s, int64_t T, const char *setting, const char *model)
{
    if (shape_is_mla(s) && s->healed_seq_len > 0 && T > s->healed_seq_len)
        log_warn("%s is %lld, but %s was healed on sequences of %d tokens: its loss rises from "
                 "there on; train it on longer ones (data.seq_len)",
                 setting, (long long)T, model, s->healed_seq_len);
}

static Status check_convertible(const ModelShape *original)
{
    if (shape_is_shared(original))
        return fail(BAD_INPUT,
                    "the model has latent attention already (latent %d); convert its original",
                    original->latent);
    if (shape_is_mla(original))
        return fail(BAD_INPUT,
                    "the model has latent attention already (d_kv %d); convert its original",
                    original->d_kv);
    return OK;
}

Status shape_convert(ModelShape *out, const ModelShape *original, int rope_pairs, int d_kv,
                     SvdKind svd)
{
    TRY(check_convertible(original));
    ModelShape s = *original;
    s.rope_pairs = rope_pairs;
    s.d_kv = d_kv;
    s.svd = svd;
    TRY(check_mla(&s, "conversion"));
    *out = s;
    return OK;
}

Status shape_convert_shared(ModelShape *out, const ModelShape *original, int slots, int latent,
                            bool latent_norm)
{
    TRY(check_convertible(original));
    ModelShape s = *original;
    s.rope_pairs = slots;
    s.latent = latent;
    s.latent_norm = latent_norm;
    if (latent < 1)
        return fail(BAD_INPUT, "conversion: latent is %d, allowed are 1 to %d", latent,
                    min_int(2 * shape_dim(original, DIM_KV), original->d_model));
    TRY(check_mla(&s, "conversion"));
    *out = s;
    return OK;
}

// A conversion leaves all other fields as they were.
ModelShape shape_original(const ModelShape *s)
{
    ModelShape original = *s;
    original.rope_pairs = original.head_dim / 2;
    original.d_kv = 0;
    original.svd = SVD_JOINT;
    original.latent = 0;
    original.latent_norm = false;
    original.healed_seq_len = 0;
    return original;
}

// What decoding has to keep: rotated keys and the latent, or keys and values. The NoPE keys and the
// values are computed from the latent again.
int64_t shape_cache_numbers(const ModelShape *s)
{
    const int per_layer =
        shape_is_mla(s) ? shape_dim(s, DIM_K_ROPE) + shape_dim(s, DIM_LATENT) + shape_key_factors(s)
                        : 2 * shape_dim(s, DIM_KV);
    return (int64_t)s->n_layers * per_layer;
}

double shape_train_flops(const ModelShape *s, int T)
{
    // Weights per layer: q and o have D Q each, the SwiGLU feed-forward has three matrices of D F.
    // RMSNorms, RoPE and softmax are O(N D) or O(T^2 H) and left out, as is usual for such counts
    // (Kaplan et al., arXiv 2001.08361).
    double D = s->d_model, Q = shape_dim(s, DIM_Q), query = shape_dim(s, DIM_QUERY);
    // MLA: k_r and the down-projection read D, the up-projections read the latent; counted on
    // expanded keys and values, whichever form the layers use, so that runs are compared by the
    // same number.
    double attention = shape_is_mla(s)
                           ? D * (shape_dim(s, DIM_K_ROPE) + shape_dim(s, DIM_LATENT)) +
                                 (double)shape_dim(s, DIM_UP_INPUT) *
                                     (shape_dim(s, DIM_K_NOPE) + shape_dim(s, DIM_UP_VALUE))
                           : 2 * D * shape_dim(s, DIM_KV);
    double weights =
        s->n_layers * (D * (query + Q) + attention + 3 * D * s->d_ffn) + D * s->vocab_size;
    // Forward is one multiply-add per weight and token, backward two; scores and values touch
    // (T + 1) / 2 keys per query on average, and their backward is two products for each.
    double scores = s->n_layers * 0.5 * (query + Q) * (T + 1.0);
    return 6.0 * T * (weights + scores);
}
