// optim/: the schedule at every corner, AdamW against plain doubles, clipping.
#include "tests/support/testing.h"

#include "model/hf/safetensors.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "optim/schedule.h"
#include "tests/reference/ref_adamw.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static void assert_lr(const Schedule *schedule, int step, double expected)
{
    double lr = schedule_lr(schedule, step);
    if (!(fabs(lr - expected) <= 1e-15 * schedule->lr)) // seen 2e-16
        fail_msg("step %d: rate %.17g, expected %.17g", step, lr, expected);
}

// SmolLM-135M of the paper: 900 steps up, decay over 16200..18000.
static void test_schedule_of_the_paper_at_its_corners(void **state)
{
    (void)state;
    const Schedule s = {
        .lr = 1e-4, .min_lr = 1e-6, .warmup_steps = 900, .decay_start = 16200, .decay_steps = 1800};
    const double span = 1e-4 - 1e-6;
    assert_lr(&s, 1, 1e-4 / 900);
    assert_lr(&s, 450, 0.5e-4);
    assert_lr(&s, 899, 1e-4 * 899 / 900);
    assert_lr(&s, 900, 1e-4);
    assert_lr(&s, 901, 1e-4);
    assert_lr(&s, 16199, 1e-4);
    assert_lr(&s, 16200, 1e-4); // 1 - sqrt(0)
    assert_lr(&s, 16201, 1e-6 + span * (1 - sqrt(1.0 / 1800)));
    assert_lr(&s, 16650, 1e-6 + span / 2); // sqrt(1/4)
    assert_lr(&s, 17999, 1e-6 + span * (1 - sqrt(1799.0 / 1800)));
    assert_lr(&s, 18000, 1e-6);
    assert_lr(&s, 1000000, 1e-6);
}

static void test_schedule_without_warmup_starts_at_the_peak(void **state)
{
    (void)state;
    const Schedule s = {.lr = 2e-4, .decay_start = 10, .decay_steps = 4};
    assert_lr(&s, 1, 2e-4);
    assert_lr(&s, 11, 1e-4);
    assert_lr(&s, 14, 0);
}

static void test_schedule_without_decay_stays_at_the_peak(void **state)
{
    (void)state;
    const Schedule s = {.lr = 2e-4, .warmup_steps = 2};
    assert_lr(&s, 1, 1e-4);
    assert_lr(&s, 2, 2e-4);
    assert_lr(&s, 2000000000, 2e-4);
}

static void test_schedule_may_decay_right_after_warmup(void **state)
{
    (void)state;
    const Schedule s = {.lr = 1e-3, .warmup_steps = 5, .decay_start = 5, .decay_steps = 100};
    assert_lr(&s, 5, 1e-3);
    assert_lr(&s, 6, 1e-3 * 0.9);
    assert_lr(&s, 30, 1e-3 * 0.5);
}

// The rates PyTorch's run of golden/training/make_training_golden.py used.
static void test_schedule_of_the_golden_run(void **state)
{
    (void)state;
    const Schedule s = {.lr = 5e-3, .warmup_steps = 3, .decay_start = 7, .decay_steps = 3};
    SafeTensors file;
    float golden[10], ours[10];
    assert_ok(safetensors_open(&file, testing_path(GOLDEN_DIR, "training/mla.safetensors")));
    assert_ok(safetensors_read_f32(&file, "lrs", (int[]){10}, 1, golden));
    safetensors_close(&file);
    for (int i = 0; i < 10; i++)
        ours[i] = (float)schedule_lr(&s, i + 1);
    testing_assert_close("learning rates", ours, golden, 10, 1e-7); // seen 0
}

enum { N_PARAMS = 1003 };

// Steps 1..n of random gradients through adamw_update() and the reference; returns the largest
// difference of any parameter over the rate.
static double compare_steps(const AdamW *rule, int n_steps, double grad_size, double grad_scale)
{
    static float params[N_PARAMS], m[N_PARAMS], v[N_PARAMS], grads[N_PARAMS];
    static double ref_params[N_PARAMS], ref_m[N_PARAMS], ref_v[N_PARAMS], ref_grads[N_PARAMS];
    const double lr = 1e-2;
    testing_fill(params, N_PARAMS, 0.05, 1);
    for (int i = 0; i < N_PARAMS; i++) {
        ref_params[i] = params[i];
        m[i] = v[i] = 0;
        ref_m[i] = ref_v[i] = 0;
    }
    for (int t = 1; t <= n_steps; t++) {
        testing_fill(grads, N_PARAMS, grad_size, 100 + (uint64_t)t);
        for (int i = 0; i < N_PARAMS; i++)
            ref_grads[i] = grads[i];
        adamw_update(params, m, v, grads, N_PARAMS, rule, lr, grad_scale, t);
        ref_adamw_update(ref_params, ref_m, ref_v, ref_grads, N_PARAMS, rule, lr, grad_scale, t);
    }
    double worst = 0;
    for (int i = 0; i < N_PARAMS; i++)
        worst = fmax(worst, fabs(params[i] - ref_params[i]) / lr);
    return worst;
}

static void test_adamw_follows_plain_doubles(void **state)
{
    (void)state;
    const AdamW plain = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    const AdamW decayed = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1};
    assert_true(compare_steps(&plain, 1, 1e-3, 1.0) < 2e-6);    // seen 7e-7
    assert_true(compare_steps(&plain, 50, 1e-3, 1.0) < 4e-5);   // seen 8e-6
    assert_true(compare_steps(&decayed, 50, 1e-3, 1.0) < 4e-5); // seen 1.6e-5
    assert_true(compare_steps(&plain, 50, 1e3, 1e-6) < 4e-5);   // clipped hard; seen 9e-6
}

// Gradients as small as eps: the corrected eps is where PyTorch has it, outside of the root.
static void test_adamw_adds_eps_where_torch_does(void **state)
{
    (void)state;
    const AdamW rule = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-3};
    assert_true(compare_steps(&rule, 20, 1e-3, 1.0) < 2e-5); // seen 4e-6
}

static void test_adamw_first_step_moves_by_the_rate(void **state)
{
    (void)state;
    const AdamW rule = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8};
    float params[] = {1, 1, 1}, m[3] = {0}, v[3] = {0};
    const float grads[] = {3e-3f, -70.0f, 0};
    adamw_update(params, m, v, grads, 3, &rule, 0.25, 1.0, 1);
    static const float expected[] = {0.75f, 1.25f, 1.0f};
    testing_assert_close("parameters", params, expected, 3, 1e-5); // eps / 3e-3; seen 7e-7
}

static void test_adamw_decay_does_not_enter_the_moments(void **state)
{
    (void)state;
    const AdamW rule = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.5};
    float params[] = {2, -4}, m[2] = {0}, v[2] = {0};
    static const float grads[2], zeros[2], expected[] = {1.9f, -3.8f};
    adamw_update(params, m, v, grads, 2, &rule, 0.1, 1.0, 1);
    testing_assert_close("parameters", params, expected, 2, 1e-7); // seen 0
    assert_memory_equal(m, zeros, sizeof m);
    assert_memory_equal(v, zeros, sizeof v);
}

static void test_adamw_of_a_range_is_that_of_the_whole(void **state)
{
    (void)state;
    const AdamW rule = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.01};
    static float whole[N_PARAMS], parts[N_PARAMS], grads[N_PARAMS];
    static float m[2][N_PARAMS], v[2][N_PARAMS];
    testing_fill(whole, N_PARAMS, 1.0, 1);
    testing_fill(parts, N_PARAMS, 1.0, 1);
    testing_fill(grads, N_PARAMS, 1.0, 2);
    for (int t = 1; t <= 3; t++) {
        adamw_update(whole, m[0], v[0], grads, N_PARAMS, &rule, 1e-2, 0.7, t);
        adamw_update(parts, m[1], v[1], grads, 333, &rule, 1e-2, 0.7, t);
        adamw_update(parts + 333, m[1] + 333, v[1] + 333, grads + 333, N_PARAMS - 333, &rule, 1e-2,
                     0.7, t);
    }
    assert_memory_equal(parts, whole, sizeof whole);
}

static double sum_of_squares(const float *grads, int64_t count)
{
    const int64_t n = clip_n_blocks(count);
    double *sums = malloc((size_t)(n + 1) * sizeof *sums), sum = 0;
    assert_non_null(sums);
    sums[n] = 7;
    clip_sum_squares(sums, grads, count);
    for (int64_t i = 0; i < n; i++)
        sum += sums[i];
    assert_true(sums[n] == 7);
    free(sums);
    return sum;
}

static void test_sum_of_squares_has_the_same_bits_with_any_number_of_threads(void **state)
{
    (void)state;
    const int64_t count = 300001; // several blocks, the last one short
    float *grads = malloc((size_t)count * sizeof *grads);
    assert_non_null(grads);
    testing_fill(grads, count, 1e-3, 1);
    double direct = 0;
    for (int64_t i = 0; i < count; i++)
        direct += (double)grads[i] * (double)grads[i];
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    double one = sum_of_squares(grads, count);
    omp_set_num_threads(3);
    double three = sum_of_squares(grads, count);
    omp_set_num_threads(before);
    assert_true(one == three);
    assert_true(fabs(one / direct - 1) < 1e-12); // seen 9e-14
    free(grads);
}

static void test_sum_of_squares_is_cut_into_blocks(void **state)
{
    (void)state;
    float grads[2 * CLIP_BLOCK + 3];
    double sums[3];
    for (int i = 0; i < 2 * CLIP_BLOCK + 3; i++)
        grads[i] = i < CLIP_BLOCK ? 1.0f : 2.0f;
    assert_int_equal(clip_n_blocks(2 * CLIP_BLOCK + 3), 3);
    clip_sum_squares(sums, grads, 2 * CLIP_BLOCK + 3);
    assert_true(sums[0] == CLIP_BLOCK && sums[1] == 4 * CLIP_BLOCK && sums[2] == 12);
}

static void test_sum_of_squares_neither_overflows_nor_hides_nan(void **state)
{
    (void)state;
    float grads[] = {3e38f, 1e-30f, 4.0f};
    assert_true(fabs(sum_of_squares(grads, 3) / 9e76 - 1) < 1e-7); // seen 4e-9
    assert_true(sum_of_squares(grads, 0) == 0);
    grads[1] = INFINITY;
    assert_true(isinf(sum_of_squares(grads, 3)));
    grads[1] = NAN;
    assert_true(isnan(sum_of_squares(grads, 3)));
}

static void test_clip_scales_down_to_the_norm_as_torch_does(void **state)
{
    (void)state;
    assert_true(clip_scale(4.0, 1.0) == 1.0 / (4.0 + 1e-6));
    assert_true(clip_scale(1.0 + 1e-12, 1.0) < 1.0);
    assert_true(clip_scale(1.0, 1.0) == 1.0);
    assert_true(clip_scale(0.5, 1.0) == 1.0);
    assert_true(clip_scale(0.0, 1.0) == 1.0);
    assert_true(clip_scale(4.0, 0.0) == 1.0); // 0: never
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule_of_the_paper_at_its_corners),
        cmocka_unit_test(test_schedule_without_warmup_starts_at_the_peak),
        cmocka_unit_test(test_schedule_without_decay_stays_at_the_peak),
        cmocka_unit_test(test_schedule_may_decay_right_after_warmup),
        cmocka_unit_test(test_schedule_of_the_golden_run),
        cmocka_unit_test(test_adamw_follows_plain_doubles),
        cmocka_unit_test(test_adamw_adds_eps_where_torch_does),
        cmocka_unit_test(test_adamw_first_step_moves_by_the_rate),
        cmocka_unit_test(test_adamw_decay_does_not_enter_the_moments),
        cmocka_unit_test(test_adamw_of_a_range_is_that_of_the_whole),
        cmocka_unit_test(test_sum_of_squares_has_the_same_bits_with_any_number_of_threads),
        cmocka_unit_test(test_sum_of_squares_is_cut_into_blocks),
        cmocka_unit_test(test_sum_of_squares_neither_overflows_nor_hides_nan),
        cmocka_unit_test(test_clip_scales_down_to_the_norm_as_torch_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
