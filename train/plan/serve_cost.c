// Bytes come from the code that allocates them (infer/), FLOP from the parameter table.
#include "train/plan/serve_cost.h"

#include "base/intmath.h"
#include "infer/infer.h"
#include "model/params.h"

#include <math.h>

enum { MAX_BATCH = 1 << 20 };

// ---- memory ------------------------------------------------------------------------------------

// A step has a token of each sequence, a chunk of the prompt SERVE_PROMPT_CHUNK of one.
static int64_t buffers_bytes(const ModelShape *shape, int batch, int n_threads)
{
    const int n_tokens = batch > SERVE_PROMPT_CHUNK ? batch : SERVE_PROMPT_CHUNK;
    const int64_t logits = (int64_t)batch * shape->vocab_size * (int64_t)sizeof(float);
    return infer_bytes(shape, n_tokens, batch, n_threads) + logits;
}

// Floats of the largest tensor, which is narrowed to the weights' type as it is read
// (infer/weights.h).
static int64_t loading_bytes(const ModelShape *shape)
{
    return params_largest(shape) * (int64_t)sizeof(float);
}

// Loading is over before the cache and the buffers are used.
static int64_t total_bytes(const ModelShape *shape, int64_t sequence_bytes, int batch,
                           const ServeLoad *load)
{
    const int64_t serving = buffers_bytes(shape, batch, load->n_threads) + batch * sequence_bytes;
    return load->process_bytes + infer_weights_bytes(shape, load->dtype, load->compute) +
           max_int64(serving, loading_bytes(shape));
}

// By bisection: what a batch takes grows with it.
static int largest_batch(const ModelShape *shape, int64_t sequence_bytes, const ServeLoad *load)
{
    int fits = 0, exceeds = MAX_BATCH + 1;
    while (exceeds - fits > 1) {
        const int middle = fits + (exceeds - fits) / 2;
        if (total_bytes(shape, sequence_bytes, middle, load) <= load->memory_bytes)
            fits = middle;
        else
            exceeds = middle;
    }
    return fits;
}

// ---- time --------------------------------------------------------------------------------------

// Numbers in the weights of one layer's matrices.
typedef struct LayerWeights {
    double plain; // multiplied with every token once
    double up;    // MLA's up-projections
} LayerWeights;

static LayerWeights layer_weights(const ModelShape *s)
{
    const double D = s->d_model, rows = shape_dim(s, DIM_QUERY) + shape_dim(s, DIM_Q);
    LayerWeights layer = {.plain = D * rows + 3 * D * s->d_ffn};
    if (!shape_is_mla(s)) {
        layer.plain += 2 * D * shape_dim(s, DIM_KV);
        return layer;
    }
    layer.plain += D * (shape_dim(s, DIM_K_ROPE) + shape_dim(s, DIM_LATENT));
    layer.up = shape_dim(s, DIM_UP_INPUT) * (shape_dim(s, DIM_K_NOPE) + shape_dim(s, DIM_UP_VALUE));
    return layer;
}

static double head_weights(const ModelShape *s)
{
    return (double)s->d_model * s->vocab_size;
}

// Of a query head over one cached position in one layer, absorbed where there is a latent.
static double position_flops(const ModelShape *s)
{
    if (!shape_is_mla(s))
        return 4.0 * s->head_dim;
    return 4.0 * shape_dim(s, DIM_UP_INPUT) + 4.0 * s->rope_pairs;
}

// The up-projections of a head are absorbed into each query head that reads them.
static double absorbed_up(const ModelShape *s)
{
    return layer_weights(s).up * s->n_heads / shape_up_heads(s);
}

// FLOP of what runs in the format of products, and of what is float32 with all of them.
typedef struct PromptFlops {
    double products, absorbed;
} PromptFlops;

// Attention is absorbed for n tokens, or the keys and values of all depth + n are expanded once for
// them: whichever costs less, as in infer/attention/attend.h. An expanded key has 2P dims and those
// without position.
static PromptFlops chunk_flops(const ModelShape *s, int n, int depth)
{
    const LayerWeights layer = layer_weights(s);
    const double key_width = 2 * s->rope_pairs + shape_head_nope(s), L = s->n_layers;
    const double pairs = (double)n * depth + 0.5 * n * (n + 1.0);
    const double expanded =
        2 * (n + (double)depth) * layer.up + s->n_heads * 2 * (key_width + s->head_dim) * pairs;
    const double absorbed = 2 * n * absorbed_up(s) + s->n_heads * position_flops(s) * pairs;
    return expanded <= absorbed
               ? (PromptFlops){.products = L * (2 * n * layer.plain + expanded)}
               : (PromptFlops){.products = L * 2 * n * layer.plain, .absorbed = L * absorbed};
}

static PromptFlops prompt_flops(const ModelShape *s, int n, int depth)
{
    PromptFlops flops = {0};
    for (int first = 0; first < n; first += SERVE_PROMPT_CHUNK) {
        const PromptFlops chunk =
            chunk_flops(s, min_int(n - first, SERVE_PROMPT_CHUNK), depth + first);
        flops.products += chunk.products;
        flops.absorbed += chunk.absorbed;
    }
    return flops;
}

double serve_prompt_flops(const ModelShape *s, int n, int depth)
{
    const PromptFlops flops = prompt_flops(s, n, depth);
    return flops.products + flops.absorbed;
}

static double roofline(double bytes, double flops, double bytes_per_s, double flops_per_s)
{
    return fmax(bytes / bytes_per_s, flops / flops_per_s);
}

ServeCost serve_cost(const ModelShape *shape, const KvFormat *format, const ServeLoad *load,
                     const Rates *rates, double efficiency)
{
    const double flops_per_s = rates->product_flops * efficiency,
                 attention_per_s = rates->attention_flops * efficiency, batch = load->batch;
    const LayerWeights layer = layer_weights(shape);
    // The embedding is the head, or only looked up.
    const double L = shape->n_layers, head = head_weights(shape);
    const double weights_read = L * (layer.plain + layer.up) + head;
    const double weights_multiplied = L * (layer.plain + absorbed_up(shape)) + head;
    const int64_t sequence_bytes = kv_format_sequence_bytes(format, shape, load->context);
    const double attention_flops =
        batch * load->context * L * shape->n_heads * position_flops(shape);
    const double cache_bytes = batch * (double)sequence_bytes;
    const PromptFlops prompt = prompt_flops(shape, load->context, 0);
    ServeCost cost = {
        .weights_bytes = infer_weights_bytes(shape, load->dtype, load->compute),
        .cache_bytes = load->batch * sequence_bytes,
        .buffers_bytes = buffers_bytes(shape, load->batch, load->n_threads),
        .total_bytes = total_bytes(shape, sequence_bytes, load->batch, load),
        .largest_batch = largest_batch(shape, sequence_bytes, load),
        .weights_s = roofline(weights_read * (double)dtype_size_bytes(load->dtype),
                              2 * batch * weights_multiplied, rates->read_bytes, flops_per_s),
        .attention_s = roofline(cache_bytes, attention_flops, rates->read_bytes, attention_per_s),
        .is_compute_bound = attention_flops / attention_per_s > cache_bytes / rates->read_bytes,
        .prompt_s = (prompt.products + 2 * head) / flops_per_s + prompt.absorbed / attention_per_s,
    };
    cost.tokens_per_s = batch / (cost.weights_s + cost.attention_s);
    return cost;
}
