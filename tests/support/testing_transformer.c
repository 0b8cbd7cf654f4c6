#include "tests/support/testing_transformer.h"

#include "tests/support/testing.h"

ModelRun testing_run_model(const Model *model, int n_sequences, int n_tokens,
                           ActivationPolicy policy, ComputeType compute)
{
    ModelRun run = {.model = model,
                    .activations = arena_start("activations"),
                    .scratch = arena_start("scratch")};
    assert_ok(model_create(&run.grads, &model->shape));
    for (int pass = 0; pass < 2; pass++) {
        workspace_place(&run.ws, &run.activations, &run.scratch, &model->shape, n_sequences,
                        n_tokens, TESTING_MODEL_THREADS, policy, compute);
        if (pass == 0) {
            assert_ok(arena_allocate(&run.activations));
            assert_ok(arena_allocate(&run.scratch));
        }
    }
    transformer_start(&run.ws, model);
    return run;
}

void testing_release_model_run(ModelRun *run)
{
    model_release(&run->grads);
    arena_release(&run->activations);
    arena_release(&run->scratch);
}

double testing_add_gradients(ModelRun *run, const int32_t *inputs, const int32_t *targets,
                             float scale)
{
    transformer_forward(&run->ws, run->model, inputs, NULL);
    double sum = transformer_loss(&run->ws, run->model, targets, scale, &run->grads.params);
    transformer_backward(&run->ws, run->model, inputs, &run->grads.params);
    return sum;
}
