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

// Tensors whose gradients one product computes, by the place of their pointers in LayerParams.
enum { MAX_PER_PRODUCT = 5 };
static const struct {
    size_t fields[MAX_PER_PRODUCT];
    int n;
} products[] = {
    {{FIELD(q), FIELD(k), FIELD(v), FIELD(k_r), FIELD(down_kv)}, 5},
    {{FIELD(up_k), FIELD(up_v)}, 2},
    {{FIELD(gate), FIELD(up)}, 2},
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
static bool has_gradient(const ModelShape *shape, const Trainable *trained, int index)
{
    const ParamInfo info = params_info(shape, index);
    if (info.layer < 0)
        return trainable_has(trained, info.name);
    const int n_tensors = params_n_tensors(shape);
    for (int t = index - MAX_PER_PRODUCT; t <= index + MAX_PER_PRODUCT; t++) {
        if (t < 0 || t >= n_tensors)
            continue;
        const ParamInfo other = params_info(shape, t);
        if (other.layer == info.layer && are_of_one_product(info.field, other.field) &&
            trainable_has(trained, other.name))
            return true;
    }
    return false;
}

void trainable_mask(Params *grads, const ModelShape *shape, const Trainable *trained)
{
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        char *owner = info.layer < 0 ? (char *)grads : (char *)&grads->layers[info.layer];
        if (!has_gradient(shape, trained, t))
            *(float **)(void *)(owner + info.field) = NULL;
    }
    if (shape->tied_head)
        grads->head = grads->embed;
}

double trainable_flops(const Trainable *trained, const ModelShape *shape, int T)
{
    double frozen = 0; // weights of products
    const int n_tensors = trained->n_patterns > 0 ? params_n_tensors(shape) : 0;
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(shape, t);
        const bool is_product = !info.is_vector && (t > 0 || shape->tied_head);
        if (is_product && !has_gradient(shape, trained, t))
            frozen += (double)info.rows * info.cols;
    }
    return shape_train_flops(shape, T) - 2.0 * T * frozen;
}
