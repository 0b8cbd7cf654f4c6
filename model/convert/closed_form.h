// The low-rank part of the method `closed`: blocks of rows of keys and values, each with the metric
// that its error has in the layer's output, through one latent (alternating.h).
//
//     keys of head u      W_kc,j [n, D],  A = key_weight sum_h B_h A_h B_h^T,  C_K of its pool
//     values of head u    W_v,j [E, D],   A = sum_h W_o,h^T W_o,h,             C_V of its pool
//
// over the heads u that have up-projections of their own, KV heads or, in the shared form, query
// heads; j is u's KV head, h its query heads. Pools of less than these heads are averaged. B_h is
// the query's map (pair_choice.h), A_h the second moment of queries. In the shared form n = E, and
// A is zero for the rows of rotated pairs, so that their up-projection is the best there is for
// keys that queries do not read yet. The latent is scaled in the end so that its own second moment
// is the identity.
#ifndef MHA2MLA_MODEL_CONVERT_CLOSED_FORM_H
#define MHA2MLA_MODEL_CONVERT_CLOSED_FORM_H

#include "model/convert/statistics.h"
#include "model/params.h"

typedef struct ClosedForm {
    const ModelShape *shape;     // of the converted model
    const int32_t *pairs;        // per head: [K, P] kept
    const int32_t *slots;        // shared: [P], model/convert/slots.h; NULL: queries read all rows
    const double *maps;          // [H, 2, E/2]
    const float *kv;             // [K n + K E, D] rows of W_kc and W_v
    const float *o;              // [D, H E]
    LayerStatistics *statistics; // used up: its moments are shrunk in place
    double key_weight;
} ClosedForm;

// Fills down_kv, up_k and up_v from the start that down_kv holds. FAILED if LAPACK does not
// succeed or memory is short.
Status closed_form_layer(LayerParams *to, const ClosedForm *form);

// Adds to a measuring arena what it works in.
void closed_form_measure(Arena *arena, const ModelShape *shape, int n_pools);

#endif
