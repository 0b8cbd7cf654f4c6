// Training's form of a latent layer: where the latent is no wider than a head, its up-projections
// are taken over by what reads them, so that queries read the latent themselves and the output
// projection its weighted sums,
//
//     q_h <- U_k^T q_h,  W_o,h <- W_o,h U_v,      U <- [1; 0]   (the first rows of the identity).
//
// Every score and output stays what it was, and U need not be trained: the product has as many
// degrees of freedom without it, and Adam sees numbers of one scale. Afterwards
//
//     q_h <- Q q_h,  W_o,h <- W_o,h Q^T,          U <- Q
//
// with orthonormal columns Q that span those of the U there was: no row is left at zero, from which
// later training could not move it.
//
//     Absorption absorption = absorb_start(&shape, basis);      // basis [absorb_count(&shape)]
//     TRY(absorb_layer(&absorption, &weights));
//     ... train all but the up-projections that absorption.keys and .values name ...
//     TRY(absorb_undo(&absorption, &weights));
#ifndef MHA2MLA_TRAIN_DISTILL_ABSORB_H
#define MHA2MLA_TRAIN_DISTILL_ABSORB_H

#include "model/params.h"

typedef struct Absorption {
    ModelShape shape;
    bool keys, values; // which up-projections are taken over
    float *basis;      // borrowed: Q of up_k, then of up_v
} Absorption;

// Floats of a basis.
int64_t absorb_count(const ModelShape *shape);

Absorption absorb_start(const ModelShape *shape, float *basis);

// Of one layer, in place. FAILED: memory is short or LAPACK did not succeed.
Status absorb_layer(const Absorption *absorption, LayerParams *weights);
Status absorb_undo(const Absorption *absorption, LayerParams *weights);

#endif
