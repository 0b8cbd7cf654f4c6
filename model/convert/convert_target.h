// What a conversion ends in: which form of latent attention, and how wide, either as widths or as
// the share of the original's KV cache that is to be left. Given a share, the widths that are
// missing follow from it, n = floor(share x 2 K E) numbers per token and layer:
//
//     per head   P = E / 16 pairs of every KV head, as MHA2MLA has them for every cache, and
//                d_kv = floor(n / K) - 2P
//     shared     two fifths of the numbers for rotated keys, P = floor(n / 5) slots, but at most
//                K E / 8, twice what MHA2MLA keeps; the latent has the rest, R = n - 2P
//
//     const ConvertTarget target = {.form = FORM_SHARED, .cache = .125};
//     ModelShape shape;
//     TRY(convert_target_shape(&shape, &original, &target));
#ifndef MHA2MLA_MODEL_CONVERT_CONVERT_TARGET_H
#define MHA2MLA_MODEL_CONVERT_CONVERT_TARGET_H

#include "model/shape.h"

typedef enum ConvertForm {
    FORM_PER_HEAD,
    FORM_SHARED,
    FORM_AUTO // recipe_complete() replaces it, recipe.h
} ConvertForm;

extern const char *const convert_form_names[]; // by value of the enum, closed by NULL

typedef struct ConvertTarget {
    ConvertForm form;
    int rope_pairs, d_kv; // per head, of a KV head; 0: not given
    SvdKind svd;          // per head
    int slots, latent;    // shared, of a layer; 0: not given
    bool latent_norm;     // shared
    double cache;         // share of the original's, in 0..1; 0: not given
} ConvertTarget;

// BAD_INPUT names what does not fit: widths of the other form, missing ones without a share, a
// share that the given widths do not have, or the shape's own bounds.
Status convert_target_shape(ModelShape *out, const ModelShape *original,
                            const ConvertTarget *target);

// "shared form: 4 slots and a latent of 8, 16 of 128 numbers per token and layer (12.5 %)"
enum { TARGET_TEXT_BYTES = 128 };
void convert_target_describe(char out[TARGET_TEXT_BYTES], const ModelShape *shape);

#endif
