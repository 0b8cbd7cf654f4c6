// The table is the only place that knows which tensors exist. Its order is the order of the flat
// vector, so it also says which tensors are neighbours and can be multiplied together.
#include "model/params.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A row of the table is placed once, or once per layer, if the shape has it. Names are those of
// transformers' Llama, those of the latent follow the published MHA2MLA code (v1.2).
typedef enum ParamWhen { ALWAYS, ORIGINAL_ONLY, MLA_ONLY, UNTIED_ONLY } ParamWhen;
typedef enum ParamScope { BEFORE_LAYERS, IN_LAYER, AFTER_LAYERS } ParamScope;

typedef struct ParamDesc {
    const char *name; // IN_LAYER: without "model.layers.N."
    ParamScope scope;
    ParamWhen when;
    ShapeDim rows, cols; // DIM_ONE as cols: a vector
    size_t field;        // offset of its pointer in LayerParams (IN_LAYER) or Params
} ParamDesc;

#define OF_LAYER(member) offsetof(LayerParams, member)
#define OF_MODEL(member) offsetof(Params, member)

static const ParamDesc table[] = {
    {"model.embed_tokens.weight", BEFORE_LAYERS, ALWAYS, DIM_V, DIM_D, OF_MODEL(embed)},
    {"input_layernorm.weight", IN_LAYER, ALWAYS, DIM_D, DIM_ONE, OF_LAYER(attn_norm)},
    {"self_attn.q_proj.weight", IN_LAYER, ALWAYS, DIM_QUERY, DIM_D, OF_LAYER(q)},
    {"self_attn.k_proj.weight", IN_LAYER, ORIGINAL_ONLY, DIM_KV, DIM_D, OF_LAYER(k)},
    {"self_attn.v_proj.weight", IN_LAYER, ORIGINAL_ONLY, DIM_KV, DIM_D, OF_LAYER(v)},
    {"self_attn.k_r_proj.weight", IN_LAYER, MLA_ONLY, DIM_K_ROPE, DIM_D, OF_LAYER(k_r)},
    {"self_attn.kv_proj.down_kv.weight", IN_LAYER, MLA_ONLY, DIM_LATENT, DIM_D, OF_LAYER(down_kv)},
    {"self_attn.kv_proj.latent_norm.weight", IN_LAYER, MLA_ONLY, DIM_NORM, DIM_ONE,
     OF_LAYER(latent_norm)},
    {"self_attn.kv_proj.up_k.weight", IN_LAYER, MLA_ONLY, DIM_K_NOPE, DIM_UP_INPUT, OF_LAYER(up_k)},
    {"self_attn.kv_proj.up_v.weight", IN_LAYER, MLA_ONLY, DIM_UP_VALUE, DIM_UP_INPUT,
     OF_LAYER(up_v)},
    {"self_attn.o_proj.weight", IN_LAYER, ALWAYS, DIM_D, DIM_Q, OF_LAYER(o)},
    {"self_attn.q_norm.weight", IN_LAYER, ALWAYS, DIM_HEAD_NORM, DIM_ONE, OF_LAYER(q_norm)},
    {"self_attn.k_norm.weight", IN_LAYER, ALWAYS, DIM_HEAD_NORM, DIM_ONE, OF_LAYER(k_norm)},
    {"self_attn.q_proj.bias", IN_LAYER, ALWAYS, DIM_Q_BIAS, DIM_ONE, OF_LAYER(q_bias)},
    {"self_attn.k_proj.bias", IN_LAYER, ORIGINAL_ONLY, DIM_KV_BIAS, DIM_ONE, OF_LAYER(k_bias)},
    {"self_attn.v_proj.bias", IN_LAYER, ORIGINAL_ONLY, DIM_KV_BIAS, DIM_ONE, OF_LAYER(v_bias)},
    {"self_attn.k_r_proj.bias", IN_LAYER, MLA_ONLY, DIM_K_R_BIAS, DIM_ONE, OF_LAYER(k_r_bias)},
    {"self_attn.o_proj.bias", IN_LAYER, ALWAYS, DIM_O_BIAS, DIM_ONE, OF_LAYER(o_bias)},
    {"post_attention_layernorm.weight", IN_LAYER, ALWAYS, DIM_D, DIM_ONE, OF_LAYER(ffn_norm)},
    {"mlp.gate_proj.weight", IN_LAYER, ALWAYS, DIM_F, DIM_D, OF_LAYER(gate)},
    {"mlp.up_proj.weight", IN_LAYER, ALWAYS, DIM_F, DIM_D, OF_LAYER(up)},
    {"mlp.down_proj.weight", IN_LAYER, ALWAYS, DIM_D, DIM_F, OF_LAYER(down)},
    {"model.norm.weight", AFTER_LAYERS, ALWAYS, DIM_D, DIM_ONE, OF_MODEL(norm)},
    {"lm_head.weight", AFTER_LAYERS, UNTIED_ONLY, DIM_V, DIM_D, OF_MODEL(head)},
};

enum { TABLE_ROWS = sizeof table / sizeof table[0] };

static int64_t n_elements(const ParamDesc *desc, const ModelShape *shape)
{
    return (int64_t)shape_dim(shape, desc->rows) * shape_dim(shape, desc->cols);
}

// A tensor without elements is left out: with all pairs kept by RoPE (P = E/2) there is no up_k.
static bool is_present(const ParamDesc *desc, const ModelShape *shape)
{
    if (n_elements(desc, shape) == 0)
        return false;
    switch (desc->when) {
    case ALWAYS:
        return true;
    case ORIGINAL_ONLY:
        return !shape_is_mla(shape);
    case MLA_ONLY:
        return shape_is_mla(shape);
    case UNTIED_ONLY:
        return !shape->tied_head;
    }
    return false;
}

// A visitor of walk(): `offset` is that of the tensor in the flat vector.
typedef void (*Visit)(void *context, const ParamDesc *desc, int layer, int64_t offset);

// Calls visit for every tensor in the order of the flat vector; returns the vector's length.
static int64_t walk(const ModelShape *shape, Visit visit, void *context)
{
    // Scope by scope, the layers one after another: a layer is then one contiguous range, the unit
    // in which gradients are reduced and sharded.
    int64_t offset = 0;
    for (int scope = BEFORE_LAYERS; scope <= AFTER_LAYERS; scope++) {
        int repeats = scope == IN_LAYER ? shape->n_layers : 1;
        for (int repeat = 0; repeat < repeats; repeat++) {
            for (int i = 0; i < TABLE_ROWS; i++) {
                if ((int)table[i].scope != scope || !is_present(&table[i], shape))
                    continue;
                visit(context, &table[i], scope == IN_LAYER ? repeat : -1, offset);
                offset += n_elements(&table[i], shape);
            }
        }
    }
    return offset;
}

static void count_tensor(void *context, const ParamDesc *desc, int layer, int64_t offset)
{
    (void)desc, (void)layer, (void)offset;
    ++*(int *)context;
}

int params_n_tensors(const ModelShape *shape)
{
    int n = 0;
    walk(shape, count_tensor, &n);
    return n;
}

int64_t params_count(const ModelShape *shape)
{
    int n = 0;
    return walk(shape, count_tensor, &n);
}

// The visitor of params_info(): copies tensor number `countdown`. A walk costs L times the rows of
// the table, microseconds, so nothing is cached.
typedef struct InfoSearch {
    const ModelShape *shape;
    int countdown;
    ParamInfo info;
} InfoSearch;

static void find_tensor(void *context, const ParamDesc *desc, int layer, int64_t offset)
{
    InfoSearch *search = context;
    if (search->countdown-- != 0)
        return;
    ParamInfo info = {
        .layer = layer,
        .rows = shape_dim(search->shape, desc->rows),
        .cols = shape_dim(search->shape, desc->cols),
        .is_vector = desc->cols == DIM_ONE,
        .is_bias = strstr(desc->name, ".bias") != NULL,
        .field = desc->field,
        .offset = offset,
    };
    if (layer < 0)
        snprintf(info.name, sizeof info.name, "%s", desc->name);
    else
        snprintf(info.name, sizeof info.name, "model.layers.%d.%s", layer, desc->name);
    search->info = info;
}

ParamInfo params_info(const ModelShape *shape, int index)
{
    InfoSearch search = {.shape = shape, .countdown = index};
    walk(shape, find_tensor, &search);
    // The countdown passes 0 exactly when the tensor was met.
    CHECK(search.countdown < 0, "tensor %d of %d", index, params_n_tensors(shape));
    return search.info;
}

int64_t params_largest(const ModelShape *shape)
{
    int64_t most = 0;
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        const int64_t count = (int64_t)info.rows * info.cols;
        most = count > most ? count : most;
    }
    return most;
}

// The visitor of params_find(): the layer is parsed from the name once, the rest is compared with
// the table's.
typedef struct NameSearch {
    InfoSearch found; // countdown 1: not found yet
    const char *name;
    int layer;
} NameSearch;

static void compare_name(void *context, const ParamDesc *desc, int layer, int64_t offset)
{
    NameSearch *search = context;
    if (layer != search->layer || search->found.countdown < 0 ||
        strcmp(desc->name, search->name) != 0)
        return;
    search->found.countdown = 0;
    find_tensor(&search->found, desc, layer, offset);
}

bool params_find(ParamInfo *out, const ModelShape *shape, const char *name)
{
    NameSearch search = {.found = {.shape = shape, .countdown = 1}, .name = name, .layer = -1};
    int length = 0;
    // %n is stored only if the text up to it matched, so a length of 0 means a name outside the
    // layers. "model.layers.-1." would parse as the -1 that stands for them.
    if (sscanf(name, "model.layers.%d.%n", &search.layer, &length) == 1 && length > 0)
        search.name = name + length;
    if (length > 0 && search.layer < 0)
        return false;
    walk(shape, compare_name, &search);
    if (search.found.countdown > 0)
        return false;
    *out = search.found.info;
    return true;
}

typedef struct LayerRange {
    int layer;
    int64_t first, end;
    const ModelShape *shape;
} LayerRange;

// The visitor of params_layer_range(): tensors of a layer follow one another, so first and end
// suffice.
static void extend_range(void *context, const ParamDesc *desc, int layer, int64_t offset)
{
    LayerRange *range = context;
    if (layer != range->layer)
        return;
    if (range->first < 0)
        range->first = offset;
    range->end = offset + n_elements(desc, range->shape);
}

void params_layer_range(const ModelShape *shape, int layer, int64_t *first, int64_t *count)
{
    LayerRange range = {.layer = layer, .first = -1, .shape = shape};
    walk(shape, extend_range, &range);
    CHECK(range.first >= 0, "layer %d of %d", layer, shape->n_layers);
    *first = range.first;
    *count = range.end - range.first;
}

typedef struct LayerTensors {
    int layer, index, first, count;
} LayerTensors;

static void count_in_layer(void *context, const ParamDesc *desc, int layer, int64_t offset)
{
    LayerTensors *tensors = context;
    (void)desc, (void)offset;
    if (layer == tensors->layer && tensors->count++ == 0)
        tensors->first = tensors->index;
    tensors->index++;
}

void params_layer_tensors(const ModelShape *shape, int layer, int *first, int *count)
{
    LayerTensors tensors = {.layer = layer};
    walk(shape, count_in_layer, &tensors);
    *first = tensors.first;
    *count = tensors.count;
}

static void point_tensor(void *context, const ParamDesc *desc, int layer, int64_t offset)
{
    Params *params = context;
    char *owner = layer < 0 ? (char *)params : (char *)&params->layers[layer];
    // Members are addressed by offset: the table is then the only list of tensors.
    *(float **)(void *)(owner + desc->field) = params->flat + offset;
}

Status params_place(Params *out, const ModelShape *shape, float *flat)
{
    Params params = {.flat = flat};
    params.layers = calloc((size_t)shape->n_layers, sizeof *params.layers);
    if (params.layers == NULL)
        return fail(FAILED, "no memory for %d layers", shape->n_layers);
    params.count = walk(shape, point_tensor, &params);
    // The table has no row for a tied head: it shares the memory of the embedding, and so do their
    // gradients.
    if (shape->tied_head)
        params.head = params.embed;
    *out = params;
    return OK;
}

void params_release(Params *params)
{
    free(params->layers);
    *params = (Params){0};
}
