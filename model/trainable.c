// Whether a tensor is trained follows from its name alone, so nothing is stored: whoever needs the
// set (partition, checkpoint, plan) goes through the table of tensors with the same patterns.
#include "model/trainable.h"

#include <fnmatch.h>
#include <string.h>

// Words that stand for patterns. attention: projections, not the norm of their input.
static const struct {
    const char *word, *pattern;
} words[] = {{"all", "*"}, {"attention", "*.self_attn.*"}};

static bool matches(const char *pattern, const char *name)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(pattern, words[i].word) == 0)
            pattern = words[i].pattern;
    return fnmatch(pattern, name, 0) == 0;
}

bool trainable_has(const Trainable *trained, const char *name)
{
    for (int i = 0; i < trained->n_patterns; i++)
        if (matches(trained->patterns[i], name))
            return true;
    return trained->n_patterns == 0;
}

static bool is_used(const char *pattern, const ModelShape *shape)
{
    for (int t = 0; t < params_n_tensors(shape); t++)
        if (matches(pattern, params_info(shape, t).name))
            return true;
    return false;
}

// An example of a name tells the user what patterns are held against.
Status trainable_check(const Trainable *trained, const ModelShape *shape)
{
    for (int i = 0; i < trained->n_patterns; i++)
        if (!is_used(trained->patterns[i], shape))
            return fail(BAD_INPUT,
                        "train.trainable: '%.200s' matches no tensor of the model; write all, "
                        "attention, or patterns of names such as %s",
                        trained->patterns[i], params_info(shape, 2).name);
    return OK;
}

int64_t trainable_count(const Trainable *trained, const ModelShape *shape)
{
    int64_t count = 0;
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        if (trainable_has(trained, info.name))
            count += (int64_t)info.rows * info.cols;
    }
    return count;
}

bool trainable_has_all(const Trainable *trained, const ModelShape *shape)
{
    return trained->n_patterns == 0 || trainable_count(trained, shape) == params_count(shape);
}

bool trainable_differs(ParamInfo *out, const Trainable *a, const Trainable *b,
                       const ModelShape *shape)
{
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        if (trainable_has(a, info.name) != trainable_has(b, info.name)) {
            *out = info;
            return true;
        }
    }
    return false;
}

// ---- gradients ---------------------------------------------------------------------------------

#define FIELD(member) offsetof(LayerParams, member)

// Tensors whose gradients one product, or one sum over rows, computes, by the place of their
// pointers in LayerParams.
enum { MAX_PER_PRODUCT = 5 };
static const struct {
    size_t fields[MAX_PER_PRODUCT];
    int n;
} products[] = {
    {{FIELD(q), FIELD(k), FIELD(v), FIELD(k_r), FIELD(down_kv)}, 5},
    {{FIELD(up_k), FIELD(up_v)}, 2},
    {{FIELD(gate), FIELD(up)}, 2},
    {{FIELD(q_bias), FIELD(k_bias), FIELD(v_bias), FIELD(k_r_bias)}, 4},
};

// Whether both tensors of a layer are computed by one product.
static bool are_of_one_product(size_t a, size_t b)
{
    for (size_t p = 0; p < sizeof products / sizeof *products; p++) {
        bool has_a = false, has_b = false;
        for (int i = 0; i < products[p].n; i++) {
            has_a |= products[p].fields[i] == a;
            has_b |= products[p].fields[i] == b;
        }
        if (has_a && has_b)
            return true;
    }
    return a == b;
}

// Whether backward computes the gradient of tensor `index`. Those of one product lie side by side,
// so that only near neighbours are asked.
static bool has_gradient(const Trainable *trained, const ModelShape *shape, int index)
{
    const ParamInfo info = params_info(shape, index);
    if (info.layer < 0 || trainable_has(trained, info.name))
        return trainable_has(trained, info.name);
    int first, count;
    params_layer_tensors(shape, info.layer, &first, &count);
    for (int t = first; t < first + count; t++) {
        const ParamInfo other = params_info(shape, t);
        if (are_of_one_product(info.field, other.field) && trainable_has(trained, other.name))
            return true;
    }
    return false;
}

int64_t trainable_tensor_gradients(const Trainable *trained, const ModelShape *shape, int tensor)
{
    const ParamInfo info = params_info(shape, tensor);
    return has_gradient(trained, shape, tensor) ? (int64_t)info.rows * info.cols : 0;
}

// Of tensors [first, end).
static int64_t gradients_of(const Trainable *trained, const ModelShape *shape, int first, int end)
{
    int64_t n = 0;
    for (int t = first; t < end; t++)
        n += trainable_tensor_gradients(trained, shape, t);
    return n;
}

int64_t trainable_gradients(const Trainable *trained, const ModelShape *shape)
{
    return gradients_of(trained, shape, 0, params_n_tensors(shape));
}

int64_t trainable_layer_gradients(const Trainable *trained, const ModelShape *shape, int layer)
{
    int first, count;
    if (layer >= 0 && layer < shape->n_layers) {
        params_layer_tensors(shape, layer, &first, &count);
        return gradients_of(trained, shape, first, first + count);
    }
    params_layer_tensors(shape, layer < 0 ? 0 : shape->n_layers - 1, &first, &count);
    return layer < 0 ? gradients_of(trained, shape, 0, first)
                     : gradients_of(trained, shape, first + count, params_n_tensors(shape));
}

Status trainable_place(Params *out, const ModelShape *shape, const Trainable *trained, float *flat)
{
    Params params;
    int64_t used = 0;
    TRY(params_place(&params, shape, flat));
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        const int64_t count = trainable_tensor_gradients(trained, shape, t);
        *params_field(&info, &params) = count > 0 ? flat + used : NULL;
        used += count;
    }
    if (shape->tied_head)
        params.head = params.embed;
    params.count = used;
    *out = params;
    return OK;
}

double trainable_flops(const Trainable *trained, const ModelShape *shape, int T)
{
    double frozen = 0; // weights of products
    const int n_tensors = trained->n_patterns > 0 ? params_n_tensors(shape) : 0;
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(shape, t);
        const bool is_product = !info.is_vector && (t > 0 || shape->tied_head);
        if (is_product && !has_gradient(trained, shape, t))
            frozen += (double)info.rows * info.cols;
    }
    return shape_train_flops(shape, T) - 2.0 * T * frozen;
}
