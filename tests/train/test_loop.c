// Training steps on any number of ranks: the same bits as one rank that does everything in order,
// with and without overlap; stopping and resuming; steps that are skipped; and numbers that are not
// finite.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"
#include "tests/support/testing_run.h"

#include "base/json.h"
#include "optim/clip.h"
#include "train/checkpoint/resume.h"
#include "train/loop.h"
#include "train/stop.h"

#include <math.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { T = TESTING_RUN_T, G = TESTING_RUN_BATCH };

static Comm comm;
static const char *const no_overrides[] = {NULL};

// ---- One rank that does everything in order, without any of train/'s code ----

typedef struct Plain {
    Model model;
    Partition partition; // of one rank: all of every bucket
    Mixture *mixture;
    Arena arena;
    Workspace ws;
    Batch batch;
    Params grads;
    float *flat, *sum, *m, *v; // [params_count]
    double *squares;
    double loss, grad_norm; // of the newest step
    int n_updates;
} Plain;

static void place_plain(Plain *p, const ModelShape *shape, ComputeType compute)
{
    const int64_t count = params_count(shape);
    workspace_place(&p->ws, &p->arena, &p->arena, shape, 1, T, omp_get_max_threads(),
                    RECOMPUTE_NONE, compute);
    batch_place(&p->batch, &p->arena, 1, T);
    p->flat = arena_floats(&p->arena, count);
    p->sum = arena_floats(&p->arena, count);
    p->m = arena_floats(&p->arena, count);
    p->v = arena_floats(&p->arena, count);
    p->squares = arena_place(&p->arena, partition_n_blocks(&p->partition), sizeof(double));
}

static void plain_start(Plain *p, const Config *config)
{
    const ModelShape *shape = &config->model.init.shape;
    *p = (Plain){.arena = arena_start("plain")};
    assert_ok(model_create(&p->model, shape));
    model_init_random(&p->model, config->model.init.initializer_range, (uint64_t)config->run.seed);
    assert_ok(partition_create(&p->partition, shape, 1, 0));
    assert_ok(mixture_open(&p->mixture, config->data.sources, config->data.n_sources, T,
                           (uint64_t)config->run.seed, NULL, shape->vocab_size));
    place_plain(p, shape, config->train.compute);
    assert_ok(arena_allocate(&p->arena));
    place_plain(p, shape, config->train.compute);
    memset(p->m, 0, (size_t)params_count(shape) * sizeof *p->m);
    memset(p->v, 0, (size_t)params_count(shape) * sizeof *p->v);
    assert_ok(params_place(&p->grads, shape, p->flat));
    transformer_start(&p->ws, &p->model);
}

static void plain_stop(Plain *p)
{
    params_release(&p->grads);
    arena_release(&p->arena);
    mixture_close(p->mixture);
    partition_release(&p->partition);
    model_release(&p->model);
}

// Adds the gradients of the micro-batches of a group, from 0.
static double plain_group(Plain *p, int step, int first, int end)
{
    double loss = 0;
    for (int i = first; i < end; i++) {
        assert_ok(mixture_read(p->mixture, (int64_t)(step - 1) * G + i, p->batch.sample));
        batch_set(&p->batch, 0);
        p->ws.fresh_gradients = i == first;
        transformer_forward(&p->ws, &p->model, p->batch.inputs, NULL);
        loss += transformer_loss(&p->ws, &p->model, p->batch.targets, 1.0f / (G * T), &p->grads);
        transformer_backward(&p->ws, &p->model, p->batch.inputs, &p->grads);
    }
    return loss;
}

static double plain_norm(Plain *p)
{
    double sum = 0;
    int64_t n = 0;
    for (int i = 0; i < p->partition.n_buckets; i++) {
        const Bucket *bucket = &p->partition.buckets[i];
        clip_sum_squares(p->squares + n, p->sum + bucket->first, bucket->count);
        n += clip_n_blocks(bucket->count);
    }
    for (int64_t i = 0; i < n; i++)
        sum += p->squares[i];
    return sqrt(sum);
}

static void plain_step(Plain *p, const Config *config, int step, bool is_skipped)
{
    const OptimConfig *optim = &config->optim;
    const int n_groups = config->train.sum_groups;
    const int64_t count = p->grads.count;
    p->loss = 0;
    for (int g = 0; g < n_groups; g++) {
        p->loss += plain_group(p, step, g * G / n_groups, (g + 1) * G / n_groups);
        for (int64_t i = 0; i < count; i++)
            p->sum[i] = g == 0 ? p->flat[i] : p->sum[i] + p->flat[i];
    }
    p->loss /= G * T;
    p->grad_norm = plain_norm(p);
    if (is_skipped)
        return;
    p->n_updates++;
    adamw_update(p->model.params.flat, p->m, p->v, p->sum, count, &optim->adamw,
                 schedule_lr(&optim->schedule, step), clip_scale(p->grad_norm, optim->clip),
                 p->n_updates);
}

// All parameters, and this rank's moments, are bit by bit those of the plain steps.
static void check_same_bits(const TestingRun *run, const Plain *p)
{
    const Trainer *t = &run->trainer;
    assert_memory_equal(run->replica.model.params.flat, p->model.params.flat,
                        (size_t)p->grads.count * sizeof(float));
    for (int i = 0; i < t->partition.n_buckets; i++) {
        const Bucket *bucket = &t->partition.buckets[i];
        const size_t bytes = (size_t)bucket->own_count * sizeof(float);
        assert_memory_equal(t->memory.m + bucket->moments_first, p->m + bucket->own_first, bytes);
        assert_memory_equal(t->memory.v + bucket->moments_first, p->v + bucket->own_first, bytes);
    }
}

// ---- Whole runs ----

static void check_run(const char *const *overrides)
{
    TestingRun run;
    Plain p;
    testing_run_config(&run, &comm, overrides);
    testing_run_start(&run, NULL);
    assert_ok(loop_run(&run.trainer));
    plain_start(&p, &run.config);
    for (int step = 1; step <= TESTING_RUN_STEPS; step++)
        plain_step(&p, &run.config, step, false);
    check_same_bits(&run, &p);
    assert_int_equal(run.trainer.progress.step, TESTING_RUN_STEPS);
    assert_true(fabs(run.trainer.progress.loss / p.loss - 1) < 1e-14); // order of sums; seen 0
    assert_true(run.trainer.progress.grad_norm == p.grad_norm);
    plain_stop(&p);
    testing_run_stop(&run);
    testing_run_release(&run);
}

static void test_run_has_the_bits_of_one_rank_in_order(void **state)
{
    (void)state;
    check_run(no_overrides);
}

static void test_groups_of_micro_batches(void **state)
{
    (void)state;
    const char *const five[] = {"train.sum_groups=5", NULL}; // of one or two micro-batches
    const char *const four[] = {"train.sum_groups=4", NULL}; // a single round on four ranks
    check_run(five);
    check_run(four);
}

static void test_run_without_overlap(void **state)
{
    (void)state;
    const char *const blocking[] = {"train.overlap=false", "train.sum_groups=5", NULL};
    check_run(blocking);
}

static void test_every_rank_with_its_own_parameters(void **state)
{
    (void)state;
    const char *const apart[] = {"train.ranks_per_copy=1", NULL};
    const char *const blocking[] = {"train.ranks_per_copy=1", "train.overlap=false", NULL};
    check_run(apart);
    check_run(blocking);
}

// Other ranks' parameters arrive rounded; at the end of the run they are exact.
static void test_run_in_bfloat16(void **state)
{
    (void)state;
    const char *const shared[] = {"train.compute=bfloat16", NULL};
    const char *const pairs[] = {"train.compute=bfloat16", "train.ranks_per_copy=2", NULL};
    const char *const apart[] = {"train.compute=bfloat16", "train.ranks_per_copy=1", NULL};
    const char *const blocking[] = {"train.compute=bfloat16", "train.ranks_per_copy=1",
                                    "train.overlap=false", "train.sum_groups=5", NULL};
    check_run(shared);
    check_run(pairs);
    check_run(apart);
    check_run(blocking);
}

static void test_recomputed_activations(void **state)
{
    (void)state;
    const char *const layers[] = {"train.recompute=layer", NULL};
    const char *const attention[] = {"train.recompute=attention", NULL};
    check_run(layers);
    check_run(attention);
}

static void test_saves_and_validation_between_steps_change_nothing(void **state)
{
    (void)state;
    const char *const overrides[] = {"checkpoint.every=1", "checkpoint.keep=2", NULL};
    TestingRun run;
    Plain p;
    double loss;
    testing_run_config(&run, &comm, overrides);
    char *shards[] = {run.shard};
    run.config.data.validation = (ValidationConfig){
        .given = true, .shards = shards, .n_shards = 1, .every = 2, .sequences = 5};
    testing_run_start(&run, NULL);
    assert_ok(loop_run(&run.trainer));
    plain_start(&p, &run.config);
    for (int step = 1; step <= TESTING_RUN_STEPS; step++)
        plain_step(&p, &run.config, step, false);
    check_same_bits(&run, &p);
    assert_ok(validation_measure(&loss, &run.config, &comm, &p.model, NULL));
    assert_int_equal(run.trainer.progress.valid_step, TESTING_RUN_STEPS);
    assert_true(run.trainer.progress.valid_loss == loss);
    assert_int_equal(run.trainer.saver.saved_step, TESTING_RUN_STEPS);
    plain_stop(&p);
    testing_run_stop(&run);
    run.config.data.validation = (ValidationConfig){0}; // its list is not the config's own
    testing_run_release(&run);
}

// ---- What happens in the middle of a run ----

// Acts when a step begins, before the callback that the workspace has already.
typedef struct Interruption {
    LayerCallback usual;
    Trainer *trainer;
    int step;
    void (*act)(Trainer *trainer);
} Interruption;

static void interrupt(void *context, int layer)
{
    const Interruption *i = context;
    if (layer == -1 && i->trainer->progress.step + 1 == i->step)
        i->act(i->trainer);
    if (i->usual.call != NULL)
        i->usual.call(i->usual.context, layer);
}

static void interrupt_at(Interruption *out, Trainer *trainer, int step, void (*act)(Trainer *))
{
    *out = (Interruption){trainer->memory.ws.before_layer, trainer, step, act};
    trainer->memory.ws.before_layer = (LayerCallback){interrupt, out};
}

static void ask_last_rank_to_stop(Trainer *trainer)
{
    (void)trainer;
    if (comm.rank == comm.size - 1)
        raise(SIGUSR1);
}

static void check_stop_and_resume(const char *const *overrides)
{
    TestingRun run;
    Plain p;
    Interruption interruption;
    Checkpoint checkpoint;
    bool is_found;
    stop_install();
    testing_run_config(&run, &comm, overrides);
    testing_run_start(&run, NULL);
    interrupt_at(&interruption, &run.trainer, 2, ask_last_rank_to_stop);
    assert_fails(STOPPED, "SIGUSR1", loop_run(&run.trainer));
    assert_int_equal(run.trainer.progress.step, 2);
    assert_int_equal(run.trainer.saver.saved_step, 2);
    testing_run_stop(&run);

    stop_install(); // forgets the request
    assert_ok(resume_find(&checkpoint, &is_found, run.dir, &comm));
    assert_true(is_found);
    testing_run_start(&run, &checkpoint);
    assert_int_equal(run.trainer.progress.step, 2);
    assert_ok(loop_run(&run.trainer));
    plain_start(&p, &run.config);
    for (int step = 1; step <= TESTING_RUN_STEPS; step++)
        plain_step(&p, &run.config, step, false);
    check_same_bits(&run, &p);
    plain_stop(&p);
    checkpoint_close(&checkpoint);
    testing_run_stop(&run);
    testing_run_release(&run);
}

static void test_stopped_run_resumes_with_the_same_bits(void **state)
{
    (void)state;
    const char *const blocking[] = {"train.overlap=false", NULL};
    const char *const apart[] = {"train.compute=bfloat16", "train.ranks_per_copy=1", NULL};
    check_stop_and_resume(no_overrides);
    check_stop_and_resume(blocking);
    check_stop_and_resume(apart);
}

static void test_run_that_is_stopped_before_its_first_step(void **state)
{
    (void)state;
    TestingRun run;
    Checkpoint checkpoint;
    bool is_found;
    stop_install();
    testing_run_config(&run, &comm, no_overrides);
    testing_run_start(&run, NULL);
    ask_last_rank_to_stop(&run.trainer);
    assert_fails(STOPPED, "SIGUSR1", loop_run(&run.trainer));
    testing_run_stop(&run);
    stop_install();
    assert_ok(resume_find(&checkpoint, &is_found, run.dir, &comm));
    assert_true(is_found);
    assert_int_equal(checkpoint.manifest.state.step, 0);
    checkpoint_close(&checkpoint);
    testing_run_release(&run);
}

// The norm of the first step is far above this history's mean; then the history is replaced.
static void accept_from_now_on(Trainer *trainer)
{
    trainer->progress.spikes.mean = 1e9;
}

static void test_spike_is_skipped(void **state)
{
    (void)state;
    const char *const overrides[] = {"train.skip_spikes=3", "train.spike_window=2", NULL};
    TestingRun run;
    Plain p;
    Interruption interruption;
    testing_run_config(&run, &comm, overrides);
    testing_run_start(&run, NULL);
    run.trainer.progress.spikes = (SpikeHistory){.mean = 1e-9, .n_accepted = 2};
    interrupt_at(&interruption, &run.trainer, 2, accept_from_now_on);
    assert_ok(loop_run(&run.trainer));
    assert_int_equal(run.trainer.progress.spikes.n_skipped, 1);
    assert_int_equal(run.trainer.progress.spikes.n_accepted, 2 + TESTING_RUN_STEPS - 1);
    plain_start(&p, &run.config);
    for (int step = 1; step <= TESTING_RUN_STEPS; step++)
        plain_step(&p, &run.config, step, step == 1);
    check_same_bits(&run, &p);
    plain_stop(&p);
    testing_run_stop(&run);
    testing_run_release(&run);
}

// ---- Errors ----

// A token that occurs once, as an input.
static void write_token_once(const TestingRun *run, int32_t token)
{
    int32_t tokens[TESTING_RUN_TOKENS];
    testing_run_tokens(tokens);
    tokens[5 * T + 3] = token;
    testing_run_write_shard(run, tokens);
}

// The sample of the run in which a token is; the mixture shuffles them.
static int64_t find_sample(Mixture *mixture, int32_t token)
{
    int32_t tokens[T + 1];
    for (int64_t i = 0; i < TESTING_RUN_SAMPLES; i++) {
        assert_ok(mixture_read(mixture, i, tokens));
        for (int j = 0; j < T; j++)
            if (tokens[j] == token)
                return i;
    }
    fail_msg("no sample has token %d", (int)token);
    return -1;
}

// The rank that computes a micro-batch.
static int rank_of(const BatchSchedule *schedule, int m)
{
    for (int round = 0; round < schedule->n_rounds; round++)
        for (int rank = 0; rank < schedule->n_ranks; rank++) {
            const MicroBatches group = batch_schedule_group(schedule, round, rank);
            if (m >= group.first && m < group.first + group.count)
                return rank;
        }
    return -1;
}

static void check_nonfinite(const char *const *overrides)
{
    TestingRun run;
    Plain p;
    char expected[256], name[64];
    json_t *root;
    testing_run_config(&run, &comm, overrides);
    write_token_once(&run, TESTING_RUN_RARE);
    testing_run_start(&run, NULL);
    plain_start(&p, &run.config);
    const int64_t sample = find_sample(run.trainer.mixture, TESTING_RUN_RARE);
    const int step = (int)(sample / G) + 1,
              rank = rank_of(&run.trainer.schedule, (int)(sample % G));
    float *rows[] = {run.replica.model.params.embed, p.model.params.embed};
    for (int i = 0; i < 2; i++)
        rows[i][TESTING_RUN_RARE * run.replica.model.shape.d_model] = INFINITY; // in all copies
    replica_sync(&run.replica);

    const Status status = loop_run(&run.trainer);
    snprintf(expected, sizeof expected,
             "step %d: loss is nan in samples %lld to %lld on rank %d (first: made-up epoch 0 "
             "sample %lld); weights are unchanged",
             step, (long long)sample, (long long)sample, rank, (long long)5);
    assert_fails(FAILED, expected, status);
    for (int s = 1; s < step; s++)
        plain_step(&p, &run.config, s, false);
    check_same_bits(&run, &p);
    snprintf(name, sizeof name, "nonfinite-step-%d.json", step);
    assert_ok(json_read(&root, testing_path(run.dir, name)));
    const json_t *list = json_object_get(root, "micro_batches");
    assert_int_equal(json_array_size(list), G);
    for (int m = 0; m < G; m++) {
        const json_t *one = json_array_get(list, (size_t)m);
        assert_int_equal(json_is_true(json_object_get(one, "finite")), m != sample % G);
        assert_int_equal(json_integer_value(json_object_get(one, "rank")),
                         rank_of(&run.trainer.schedule, m));
    }
    json_decref(root);
    plain_stop(&p);
    testing_run_stop(&run);
    testing_run_release(&run);
}

static void test_nonfinite_loss_is_traced_to_its_sample(void **state)
{
    (void)state;
    const char *const groups[] = {"train.sum_groups=5", NULL};
    check_nonfinite(no_overrides);
    check_nonfinite(groups);
}

static void test_sample_that_cannot_be_read_ends_the_run_on_all_ranks(void **state)
{
    (void)state;
    TestingRun run;
    testing_run_config(&run, &comm, no_overrides);
    write_token_once(&run, TESTING_RUN_SHARD_VOCAB - 1); // which the model does not have
    testing_run_start(&run, NULL);
    assert_fails(BAD_INPUT, "token 43 is 999, the model's vocabulary has 301",
                 loop_run(&run.trainer));
    testing_run_stop(&run);
    testing_run_release(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_has_the_bits_of_one_rank_in_order),
        cmocka_unit_test(test_groups_of_micro_batches),
        cmocka_unit_test(test_run_without_overlap),
        cmocka_unit_test(test_every_rank_with_its_own_parameters),
        cmocka_unit_test(test_run_in_bfloat16),
        cmocka_unit_test(test_recomputed_activations),
        cmocka_unit_test(test_saves_and_validation_between_steps_change_nothing),
        cmocka_unit_test(test_stopped_run_resumes_with_the_same_bits),
        cmocka_unit_test(test_run_that_is_stopped_before_its_first_step),
        cmocka_unit_test(test_spike_is_skipped),
        cmocka_unit_test(test_nonfinite_loss_is_traced_to_its_sample),
        cmocka_unit_test(test_sample_that_cannot_be_read_ends_the_run_on_all_ranks),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
