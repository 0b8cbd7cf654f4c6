// Cross-entropy and divergence from a teacher by blocks of tokens against the oracle, the oracle
// against central differences.
#include "tests/support/testing.h"

#include "base/random.h"
#include "model/kernels/head.h"
#include "model/kernels/head_kl.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { TEACHER_D = 5 };

typedef struct Data {
    int N, D, V;
    float scale;
    HeadWeights weights;
    float *normed, *head, *teacher_normed, *teacher_head;
    HeadTeacher teacher;
    void *scratch;
    float *d_normed, *d_head, *expected_d_normed, *expected_d_head;
    int32_t *targets;
} Data;

static Data make_data(int N, int D, int V, HeadWeights weights)
{
    Data d = {.N = N, .D = D, .V = V, .scale = 0.25f, .weights = weights};
    d.normed = ref_random((int64_t)N * D, 1, 1);
    d.head = ref_random((int64_t)V * D, 1, 2);
    d.teacher_normed = ref_random((int64_t)N * TEACHER_D, 1, 4);
    d.teacher_head = ref_random((int64_t)V * TEACHER_D, 1, 5);
    d.teacher = (HeadTeacher){rows_f32(d.teacher_normed, TEACHER_D), d.teacher_head, TEACHER_D};
    d.scratch = aligned_alloc(64, (size_t)(head_kl_scratch_bytes(N, V) + 63) / 64 * 64);
    assert_non_null(d.scratch);
    d.d_normed = ref_nans((int64_t)N * D);
    d.d_head = ref_random((int64_t)V * D, 0.1, 3);
    d.expected_d_normed = ref_nans((int64_t)N * D);
    d.expected_d_head = ref_random((int64_t)V * D, 0.1, 3);
    d.targets = malloc((size_t)N * sizeof *d.targets);
    assert_non_null(d.targets);
    const uint64_t key = random_key(5, "targets");
    for (int n = 0; n < N; n++)
        d.targets[n] = (int32_t)(random_bits(key, (uint64_t)n) % (uint64_t)V);
    d.targets[N - 1] = V - 1;
    return d;
}

static void release_data(Data *d)
{
    float *all[] = {d->normed,   d->head,   d->teacher_normed,    d->teacher_head,
                    d->d_normed, d->d_head, d->expected_d_normed, d->expected_d_head};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    free(d->targets);
    free(d->scratch);
}

static HeadLosses fast_losses(Data *d, ComputeType type, bool add)
{
    return head_kl_losses(type, d->d_normed, d->d_head, d->scratch, rows_f32(d->normed, d->D),
                          d->head, d->targets, &d->teacher, &d->weights, d->N, d->D, d->V, d->scale,
                          add);
}

static HeadLosses expected_losses(Data *d)
{
    return ref_head_kl_losses(d->expected_d_normed, d->expected_d_head, d->normed, d->head,
                              d->targets, &d->teacher, &d->weights, d->N, d->D, d->V, d->scale);
}

// Losses relative to the larger of themselves and 1.
static void check_losses(HeadLosses got, HeadLosses expected, double allowed)
{
    ref_assert_error("ce", fabs(got.ce - expected.ce) / (expected.ce + 1), allowed);
    ref_assert_error("kl", fabs(got.kl - expected.kl) / (expected.kl + 1), allowed);
}

static void compare(int N, int D, int V, HeadWeights weights)
{
    Data d = make_data(N, D, V, weights);
    check_losses(fast_losses(&d, COMPUTE_FLOAT32, true), expected_losses(&d), 1e-5); // seen 2.8e-6
    testing_assert_close("d_normed", d.d_normed, d.expected_d_normed, (int64_t)N * D,
                         3e-6); // seen 9.6e-7
    testing_assert_close("d_head", d.d_head, d.expected_d_head, (int64_t)V * D,
                         3e-6); // seen 2.4e-7
    release_data(&d);
}

static void test_blocks_vocabularies_and_temperatures(void **state)
{
    (void)state;
    const HeadWeights weights[] = {{1, 1, 1}, {0, 1, 2}, {0.3, 0.7, 0.5}, {1, 0, 3}};
    const int tokens[] = {1, 511, 512, 513, 1025}, sizes[] = {2, 17, 1000, 2048, 2049, 5000};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++)
        compare(tokens[i], 12, 50, weights[i % 4]);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int w = 0; w < 4; w++)
            compare(9, 7, sizes[i], weights[w]);
}

// Rows of a teacher that is the student: no divergence, and no gradient of it.
static void test_its_own_teacher_is_followed_already(void **state)
{
    (void)state;
    enum { N = 6, D = TEACHER_D, V = 4000 };
    Data d = make_data(N, D, V, (HeadWeights){0, 1, 2});
    d.teacher = (HeadTeacher){rows_f32(d.normed, D), d.head, D};
    const HeadLosses losses = fast_losses(&d, COMPUTE_FLOAT32, false);
    ref_assert_error("kl", fabs(losses.kl), 1e-9); // seen 0
    for (int i = 0; i < N * D; i++)
        ref_assert_error("d_normed", fabs((double)d.d_normed[i]), 1e-6); // seen 7e-9
    release_data(&d);
}

// Without a weight on the divergence the losses and gradients are those of the head alone.
static void test_cross_entropy_alone(void **state)
{
    (void)state;
    enum { N = 40, D = 8, V = 300 };
    Data d = make_data(N, D, V, (HeadWeights){1, 0, 1});
    const HeadLosses losses = fast_losses(&d, COMPUTE_FLOAT32, true);
    const double expected = ref_head_loss(d.expected_d_normed, d.expected_d_head, NULL, d.normed,
                                          d.head, d.targets, N, D, V, d.scale);
    ref_assert_error("ce", fabs(losses.ce / expected - 1), 1e-6); // seen 1e-8
    testing_assert_close("d_normed", d.d_normed, d.expected_d_normed, N * D, 2e-6);
    testing_assert_close("d_head", d.d_head, d.expected_d_head, V * D, 2e-6);
    release_data(&d);
}

// Operands that are bfloat16 already, so that the gradient alone is rounded.
static void compare_bfloat16(int N, int D, int V)
{
    Data d = make_data(N, D, V, (HeadWeights){0.5, 1, 2});
    float *operands[] = {d.normed, d.head, d.teacher_normed, d.teacher_head};
    const int64_t counts[] = {(int64_t)N * D, (int64_t)V * D, (int64_t)N * TEACHER_D,
                              (int64_t)V * TEACHER_D};
    for (int i = 0; i < 4; i++) {
        uint16_t *halves = malloc((size_t)counts[i] * sizeof *halves);
        assert_non_null(halves);
        dtype_narrow(halves, DTYPE_BF16, operands[i], counts[i]);
        dtype_widen(operands[i], halves, DTYPE_BF16, counts[i]);
        free(halves);
    }
    check_losses(fast_losses(&d, COMPUTE_BFLOAT16, true), expected_losses(&d), 1e-5); // seen 2.8e-6
    testing_assert_close("d_normed", d.d_normed, d.expected_d_normed, (int64_t)N * D,
                         4e-3); // seen 2e-3
    testing_assert_close("d_head", d.d_head, d.expected_d_head, (int64_t)V * D,
                         4e-3); // seen 2e-3
    release_data(&d);
}

static void test_bfloat16(void **state)
{
    (void)state;
    const int sizes[] = {1, 2, 31, 33, 129, 2048, 2049, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        compare_bfloat16(9, 7, sizes[i]);
    compare_bfloat16(513, 12, 50);
}

static void test_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    enum { N = 300, D = 24, V = 333 };
    const int threads = omp_get_max_threads();
    for (int type = 0; type < N_COMPUTE_TYPES; type++) {
        HeadLosses losses[2];
        Data data[2];
        for (int i = 0; i < 2; i++) {
            data[i] = make_data(N, D, V, (HeadWeights){1, 1, 2});
            omp_set_num_threads(i + 1);
            losses[i] = fast_losses(&data[i], (ComputeType)type, true);
        }
        omp_set_num_threads(threads);
        assert_true(losses[0].ce == losses[1].ce && losses[0].kl == losses[1].kl);
        assert_memory_equal(data[0].d_normed, data[1].d_normed, N * D * sizeof(float));
        release_data(&data[0]);
        release_data(&data[1]);
    }
}

static void test_nan_and_infinite_logits_show_in_the_losses(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 4; i++) {
        Data d = make_data(3, 4, 33, (HeadWeights){1, 1, 1});
        float *head = i < 2 ? d.head : d.teacher_head;
        head[20] = bad[i % 2];
        assert_false(isfinite(fast_losses(&d, COMPUTE_FLOAT32, true).kl));
        release_data(&d);
    }
}

static double weighted_loss(void *context)
{
    const Data *d = context;
    const HeadLosses losses =
        ref_head_kl_losses(NULL, NULL, d->normed, d->head, d->targets, &d->teacher, &d->weights,
                           d->N, d->D, d->V, d->scale);
    return (double)d->scale * (d->weights.ce * losses.ce + d->weights.kl * losses.kl);
}

static void test_oracle_against_central_differences(void **state)
{
    (void)state;
    enum { N = 4, D = 3, V = 6 };
    Data d = make_data(N, D, V, (HeadWeights){0.6, 0.8, 1.7});
    memset(d.expected_d_head, 0, V * D * sizeof(float));
    expected_losses(&d);
    const double inputs =
        ref_gradient_error(weighted_loss, &d, d.normed, d.expected_d_normed, N * D, 0x1p-10f);
    const double weights =
        ref_gradient_error(weighted_loss, &d, d.head, d.expected_d_head, V * D, 0x1p-10f);
    ref_assert_error("inputs", inputs, 1e-6);   // seen 3e-7
    ref_assert_error("weights", weights, 1e-6); // seen 2e-7
    release_data(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_vocabularies_and_temperatures),
        cmocka_unit_test(test_its_own_teacher_is_followed_already),
        cmocka_unit_test(test_cross_entropy_alone),
        cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
        cmocka_unit_test(test_nan_and_infinite_logits_show_in_the_losses),
        cmocka_unit_test(test_oracle_against_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
