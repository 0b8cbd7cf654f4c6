// A model with a workspace and gradients, for tests of whole passes.
//
//     ModelRun run = testing_run_model(&model, 2, 19, RECOMPUTE_NONE, COMPUTE_FLOAT32);
//     const double loss = testing_add_gradients(&run, inputs, targets, 1.0f);
//     ... run.grads ...
//     testing_release_model_run(&run);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_TRANSFORMER_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_TRANSFORMER_H

#include "model/transformer/transformer.h"

enum { TESTING_MODEL_THREADS = 2 }; // at most, of a run

typedef struct ModelRun {
    const Model *model; // borrowed
    Model grads;        // a gradient has the parameters' layout
    Arena activations, scratch;
    Workspace ws;
} ModelRun;

ModelRun testing_run_model(const Model *model, int n_sequences, int n_tokens,
                           ActivationPolicy policy, ComputeType compute);
void testing_release_model_run(ModelRun *run);

// Adds to the run's gradients; returns the loss's sum.
double testing_add_gradients(ModelRun *run, const int32_t *inputs, const int32_t *targets,
                             float scale);

#endif
