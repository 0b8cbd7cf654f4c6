// Ten steps beside a teacher against PyTorch (tests/golden/training/make_losses_golden.py): the
// losses, the gradients of the first step, the parameters at the end; and what must not change
// them: recomputing activations, micro-batches, threads, the teacher's number format.
#include "tests/support/testing.h"

#include "model/hf/hf.h"
#include "model/hf/safetensors.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "optim/schedule.h"
#include "tests/reference/ref.h"
#include "train/teacher/teacher.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 10, G = 6, T = 13 };

static const Comm alone = {.size = 1};
static CommGroup group = {.size = 1};

typedef struct Setup {
    Config config;
    Model model;
    HeldModel teacher;
    Arena arena, kept, scratch;
    Workspace ws;
    TeacherPass pass;
    Params grads;
    float *m, *v;
    double *block_squares;
    int32_t *inputs, *targets; // [G, T]
} Setup;

static void place(Setup *s, ActivationPolicy policy, float **flat_grads)
{
    const ModelShape *shape = &s->model.shape;
    const int B = s->config.train.micro_batch, n_threads = omp_get_max_threads();
    const int64_t count = params_count(shape);
    workspace_place(&s->ws, &s->arena, &s->arena, shape, B, T, n_threads, policy,
                    s->config.train.compute);
    teacher_place(&s->pass, &s->kept, &s->scratch, &s->teacher.model.shape, &s->config, n_threads);
    *flat_grads = arena_floats(&s->arena, count);
    s->m = arena_floats(&s->arena, count);
    s->v = arena_floats(&s->arena, count);
    s->block_squares = arena_place(&s->arena, clip_n_blocks(count), sizeof(double));
    s->inputs = arena_place(&s->arena, G * T, sizeof(int32_t));
    s->targets = arena_place(&s->arena, G * T, sizeof(int32_t));
}

// The weights of the golden file, in float32, one micro-batch.
static Config standard(void)
{
    return (Config){
        .data.seq_len = T,
        .train = {.micro_batch = G,
                  .teacher = (char *)(uintptr_t)GOLDEN_DIR "/models/gqa_tied",
                  .loss = {.ce = 0.5, .kl = 1, .attention_mse = 0.7, .temperature = 2}}};
}

static void start(Setup *s, const Config *config, ActivationPolicy policy)
{
    float *flat_grads;
    *s = (Setup){.config = *config,
                 .arena = arena_start("test"),
                 .kept = arena_start("kept"),
                 .scratch = arena_start("scratch")};
    assert_ok(hf_load(&s->model, testing_path(GOLDEN_DIR, "models/mla_gqa_2norm_joint")));
    assert_ok(teacher_load(&s->teacher, &s->config, &alone, &group));
    place(s, policy, &flat_grads);
    assert_ok(arena_allocate(&s->arena));
    assert_ok(arena_allocate(&s->kept));
    assert_ok(arena_allocate(&s->scratch));
    place(s, policy, &flat_grads);
    assert_ok(params_place(&s->grads, &s->model.shape, flat_grads));
    transformer_start(&s->ws, &s->model);
    teacher_start(&s->pass, &s->teacher);
}

static void stop(Setup *s)
{
    params_release(&s->grads);
    arena_release(&s->arena);
    arena_release(&s->kept);
    arena_release(&s->scratch);
    held_model_release(&s->teacher);
    model_release(&s->model);
}

// Gradients of a global batch as train/step.c makes them; returns the means of the losses.
static TeacherLosses add_gradients(Setup *s, const int32_t *samples)
{
    const int B = s->config.train.micro_batch;
    TeacherLosses sum = {0};
    for (int b = 0; b < G; b++) {
        memcpy(s->inputs + b * T, samples + b * (T + 1), T * sizeof(int32_t));
        memcpy(s->targets + b * T, samples + b * (T + 1) + 1, T * sizeof(int32_t));
    }
    memset(s->grads.flat, 0, (size_t)s->grads.count * sizeof(float));
    for (int first = 0; first < G; first += B) {
        const int32_t *inputs = s->inputs + first * T;
        teacher_forward(&s->pass, inputs);
        s->ws.follows = teacher_match(&s->pass, G);
        transformer_forward(&s->ws, &s->model, inputs, NULL);
        const TeacherLosses losses = teacher_losses(
            &s->pass, &s->ws, &s->model, s->targets + first * T, 1.0f / (G * T), &s->grads);
        transformer_backward(&s->ws, &s->model, inputs, &s->grads);
        s->ws.follows = NULL;
        sum.ce += losses.ce / (G * T);
        sum.kl += losses.kl / (G * T);
        sum.attention_mse += losses.attention_mse / G;
    }
    return sum;
}

static double update(Setup *s, int step)
{
    const Schedule schedule = {.lr = 5e-3, .warmup_steps = 3, .decay_start = 7, .decay_steps = 3};
    const AdamW rule = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.01};
    double squares = 0;
    clip_sum_squares(s->block_squares, s->grads.flat, s->grads.count);
    for (int64_t i = 0; i < clip_n_blocks(s->grads.count); i++)
        squares += s->block_squares[i];
    const double norm = sqrt(squares);
    adamw_update(s->model.params.flat, s->m, s->v, s->grads.flat, s->grads.count, &rule,
                 schedule_lr(&schedule, step), clip_scale(norm, 1.0), step);
    return norm;
}

// ---- PyTorch's numbers -------------------------------------------------------------------------

typedef struct Golden {
    SafeTensors file;
    int32_t batches[STEPS * G * (T + 1)];
    float ce[STEPS], kl[STEPS], attention_mse[STEPS], grad_norms[STEPS];
} Golden;

static void golden_start(Golden *golden)
{
    const char *names[] = {"ce", "kl", "attention_mse", "grad_norms"};
    float *values[] = {golden->ce, golden->kl, golden->attention_mse, golden->grad_norms};
    assert_ok(
        safetensors_open(&golden->file, testing_path(GOLDEN_DIR, "training/losses.safetensors")));
    assert_ok(safetensors_read_i32(&golden->file, "batches", (int[]){STEPS, G, T + 1}, 3,
                                   golden->batches));
    for (int i = 0; i < 4; i++)
        assert_ok(safetensors_read_f32(&golden->file, names[i], (int[]){STEPS}, 1, values[i]));
}

// Largest difference of a kind of tensors, "grad" or "final", relative to the tensor's largest.
static double tensors_error(const Golden *golden, const char *kind, const ModelShape *shape,
                            const float *flat)
{
    double worst = 0;
    for (int i = 0; i < params_n_tensors(shape); i++) {
        const ParamInfo info = params_info(shape, i);
        const int64_t count = (int64_t)info.rows * info.cols;
        float *expected = malloc((size_t)count * sizeof(float));
        assert_non_null(expected);
        char name[PARAM_NAME_BYTES + 8];
        snprintf(name, sizeof name, "%s.%s", kind, info.name);
        assert_ok(safetensors_read_f32(&golden->file, name, (int[]){info.rows, info.cols},
                                       info.is_vector ? 1 : 2, expected));
        worst = fmax(worst, testing_error(flat + info.offset, expected, count, 1e-6));
        free(expected);
    }
    return worst;
}

// Allowed differences of losses (relative), gradients and final parameters.
typedef struct Precision {
    double loss, gradient, parameters;
} Precision;

static void follow_golden(const Config *config, ActivationPolicy policy, Precision precision)
{
    static Golden golden;
    Setup s;
    golden_start(&golden);
    start(&s, config, policy);
    for (int step = 1; step <= STEPS; step++) {
        const int i = step - 1;
        const TeacherLosses losses = add_gradients(&s, golden.batches + i * G * (T + 1));
        if (step == 1)
            ref_assert_error("gradients",
                             tensors_error(&golden, "grad", &s.model.shape, s.grads.flat),
                             precision.gradient);
        const double norm = update(&s, step);
        ref_assert_error("ce", fabs(losses.ce / (double)golden.ce[i] - 1), precision.loss);
        ref_assert_error("kl", fabs(losses.kl / (double)golden.kl[i] - 1), precision.loss);
        ref_assert_error("attention_mse",
                         fabs(losses.attention_mse / (double)golden.attention_mse[i] - 1),
                         precision.loss);
        ref_assert_error("norm", fabs(norm / (double)golden.grad_norms[i] - 1), precision.loss);
    }
    ref_assert_error("parameters",
                     tensors_error(&golden, "final", &s.model.shape, s.model.params.flat),
                     precision.parameters);
    stop(&s);
    safetensors_close(&golden.file);
}

static const Precision exact = {5e-6, 1e-5, 1e-5}; // seen 7.3e-7, 2.2e-6, 1.3e-6

static void test_ten_steps_follow_pytorch(void **state)
{
    (void)state;
    const Config config = standard();
    follow_golden(&config, RECOMPUTE_NONE, exact);
    follow_golden(&config, RECOMPUTE_ATTENTION, exact);
    follow_golden(&config, RECOMPUTE_LAYER, exact);
}

static void test_micro_batches_add_up(void **state)
{
    (void)state;
    Config config = standard();
    config.train.micro_batch = 2;
    follow_golden(&config, RECOMPUTE_LAYER, exact);
}

static void test_products_in_bfloat16(void **state)
{
    (void)state;
    Config config = standard();
    config.train.compute = COMPUTE_BFLOAT16;
    follow_golden(&config, RECOMPUTE_LAYER,
                  (Precision){0.03, 0.15, 0.03}); // seen 0.01, 0.053, 0.0092
}

// Weights that bfloat16 rounds, so the losses are near those of float32 and no nearer.
static void test_a_teacher_in_bfloat16(void **state)
{
    (void)state;
    Config config = standard();
    config.train.teacher_dtype = TEACHER_BFLOAT16;
    follow_golden(&config, RECOMPUTE_NONE,
                  (Precision){0.02, 0.1, 0.03}); // seen 0.0049, 0.032, 0.01
}

// ---- bits --------------------------------------------------------------------------------------

static void test_recomputing_changes_no_bit(void **state)
{
    (void)state;
    static Golden golden;
    golden_start(&golden);
    for (int type = 0; type < N_COMPUTE_TYPES; type++) {
        Config config = standard();
        config.train.compute = (ComputeType)type;
        Setup kept, again;
        start(&kept, &config, RECOMPUTE_NONE);
        start(&again, &config, RECOMPUTE_LAYER);
        const TeacherLosses a = add_gradients(&kept, golden.batches);
        const TeacherLosses b = add_gradients(&again, golden.batches);
        assert_memory_equal(&a, &b, sizeof a);
        assert_memory_equal(kept.grads.flat, again.grads.flat,
                            (size_t)kept.grads.count * sizeof(float));
        stop(&kept);
        stop(&again);
    }
    safetensors_close(&golden.file);
}

// A part without weight has none in the gradient: what is left is that of the others.
static void test_gradients_of_the_losses_add_up(void **state)
{
    (void)state;
    static Golden golden;
    golden_start(&golden);
    const LossConfig parts[] = {{.ce = 0.5, .temperature = 2, .kl = 1},
                                {.temperature = 2, .attention_mse = 0.7},
                                {.ce = 0.5, .kl = 1, .attention_mse = 0.7, .temperature = 2}};
    Setup s[3];
    for (int i = 0; i < 3; i++) {
        Config config = standard();
        config.train.loss = parts[i];
        start(&s[i], &config, RECOMPUTE_NONE);
        const TeacherLosses losses = add_gradients(&s[i], golden.batches);
        ref_assert_error("ce", fabs(losses.ce / (double)golden.ce[0] - 1), 1e-6); // seen 1.1e-8
    }
    for (int64_t i = 0; i < s[0].grads.count; i++)
        s[0].grads.flat[i] += s[1].grads.flat[i];
    testing_assert_close("gradients", s[0].grads.flat, s[2].grads.flat, s[0].grads.count,
                         1e-6); // seen 0
    for (int i = 0; i < 3; i++)
        stop(&s[i]);
    safetensors_close(&golden.file);
}

// ---- what is refused ---------------------------------------------------------------------------

static void test_other_shapes_are_refused(void **state)
{
    (void)state;
    Config config = standard();
    ModelShape student, shape;
    assert_ok(hf_load_shape(&student, config.train.teacher));
    assert_ok(teacher_load_shape(&shape, &config, &student));
    ModelShape other = student;
    other.vocab_size++;
    assert_fails(BAD_INPUT, "the same tokenizer", teacher_load_shape(&shape, &config, &other));
    other = student;
    other.n_layers++;
    assert_fails(BAD_INPUT, "train.loss.attention_mse",
                 teacher_load_shape(&shape, &config, &other));
    config.train.loss.attention_mse = 0;
    assert_ok(teacher_load_shape(&shape, &config, &other));
    config.data.seq_len = student.max_positions + 1;
    assert_fails(BAD_INPUT, "data.seq_len", teacher_load_shape(&shape, &config, &student));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ten_steps_follow_pytorch),
        cmocka_unit_test(test_micro_batches_add_up),
        cmocka_unit_test(test_products_in_bfloat16),
        cmocka_unit_test(test_a_teacher_in_bfloat16),
        cmocka_unit_test(test_recomputing_changes_no_bit),
        cmocka_unit_test(test_gradients_of_the_losses_add_up),
        cmocka_unit_test(test_other_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
