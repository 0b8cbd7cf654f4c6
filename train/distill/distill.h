// Local distillation: each layer's converted attention is trained to give what the original
// attention gives, before anything is trained end to end. A layer reads the stream xc that the
// converted layers below make, and its target is
//
//     a(x) + rho (x - xc),
//
// a(x) the original attention on the original stream: with rho the layer also takes back part of
// what those below have lost. Loss: mean square of the difference over that of the target, both
// with each token divided by the mean square of x + a(x) or of xc, whichever is larger, as the norm
// that reads the stream divides by its root: else the few tokens of a stream whose values are a
// thousand times as large as those of others (massive activations, arXiv 2402.17762) would be all
// that is learned.
//
//     const DistillRequest request = {.config = &config, .tokens = tokens, .T = 512, .seed = 42,
//                                     .compute = COMPUTE_FLOAT32, .state_dir = "out/distill"};
//     TRY(distill_run(&mla, &original, &request));
//
// layers: sequential   layer after layer; the ranks share the windows of a step, up to as many
//                      ranks as windows (train/distill/distill_order.h).
// layers: apart        every layer reads the original's stream and owes nothing to those below
//                      (rho is 0): each rank distills layers of its own, as many at a time as there
//                      are ranks. Somewhat worse models, any number of ranks.
//
// The bits do not depend on the number of ranks, nor on interruptions (distill_state.h).
#ifndef MHA2MLA_TRAIN_DISTILL_DISTILL_H
#define MHA2MLA_TRAIN_DISTILL_DISTILL_H

#include "model/kernels/compute.h"
#include "train/config/distill_config.h"
#include "train/replica.h"

typedef struct DistillRequest {
    const DistillConfig *config; // borrowed, as the next
    const int32_t *tokens;       // [config->windows, T]
    int T;
    uint64_t seed;
    ComputeType compute;
    const char *state_dir; // of finished layers, made; NULL: none are kept
} DistillRequest;

// Changes the attention of every layer of `mla`, a conversion of `original`, which must have the
// same dims. BAD_INPUT: a token is not in the vocabulary. FAILED: memory is short, a gradient is
// not finite, or a layer's file cannot be written. STOPPED: on request; finished layers are kept.
// Collective.
Status distill_run(Replica *mla, const Model *original, const DistillRequest *request);

// Bytes that a rank of n_ranks takes for it besides both models: the most of all ranks. Not
// collective.
int64_t distill_bytes(const ModelShape *mla, const DistillConfig *config, int T,
                      ComputeType compute, int n_ranks, int n_threads);

// Tokens that are read, and tokens that the steps of each layer train on, over and over the same.
// Not collective.
int64_t distill_tokens(const DistillConfig *config, int T);
int64_t distill_trained_tokens(const DistillConfig *config, int T);

// Floating-point operations of the rank with the most of them. Not collective.
double distill_flops(const ModelShape *mla, const DistillConfig *config, int T, int n_ranks);

#endif
