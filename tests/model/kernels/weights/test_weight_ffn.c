// The feed-forward block in bfloat16 against its parts in double, by every kernel that this machine
// has; the same bits for a token alone and in a batch, and on any number of threads.
#include "tests/support/testing.h"
#include "tests/support/testing_compute.h"

#include "model/kernels/compute.h"
#include "model/kernels/half.h"
#include "model/kernels/weights/weight_ffn.h"
#include "model/kernels/weights/weight_panels.h"
#include "tests/reference/ref.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct Shape {
    int D, F;
} Shape;

// F that fills a step of 32 and one that does not; D that ends within a panel; more than one block
// of tokens.
static const Shape shapes[] = {{32, 64}, {48, 80}, {37, 16}, {576, 112}};
static const int batches[] = {1, 5, 33, 300};
enum {
    N_SHAPES = sizeof shapes / sizeof *shapes,
    N_BATCHES = sizeof batches / sizeof *batches,
    MOST_N = 300
};

static float rounded(float value)
{
    return half_bf16_to_f32(half_f32_to_bf16(value));
}

typedef struct Matrix {
    WeightMatrix panels;
    void *values;
    float *rows; // as they were rounded
} Matrix;

static Matrix make(int n_out, int n_in, int seed)
{
    Matrix m = {.panels = {NULL, DTYPE_BF16, n_out, n_in, WEIGHT_PANELS},
                .rows = ref_random((int64_t)n_out * n_in, 1.0 / sqrt(n_in), seed)};
    m.values = aligned_alloc(64, (size_t)round_up((int)weight_matrix_bytes(&m.panels), 64));
    assert_non_null(m.values);
    weight_rows_write(m.values, &m.panels, 0, n_out, m.rows);
    m.panels.values = m.values;
    for (int64_t i = 0; i < (int64_t)n_out * n_in; i++)
        m.rows[i] = rounded(m.rows[i]);
    return m;
}

static void release(Matrix *m)
{
    free(m->values);
    free(m->rows);
}

typedef struct Case {
    Shape shape;
    Matrix gate_up, down;
    float *x;       // [MOST_N, D], rounded
    uint16_t *rows; // the same as the block takes it
    float *scratch;
} Case;

static Case start_case(const Shape *shape)
{
    Case c = {.shape = *shape,
              .gate_up = make(2 * shape->F, shape->D, 1),
              .down = make(shape->D, shape->F, 2),
              .x = ref_random((int64_t)MOST_N * shape->D, 2.0, 3)};
    const int ld = weight_panels_ld(shape->D);
    c.rows = calloc((size_t)MOST_N * (size_t)ld, sizeof *c.rows);
    assert_non_null(c.rows);
    for (int t = 0; t < MOST_N; t++) {
        float *x = c.x + (int64_t)t * shape->D;
        dtype_narrow(c.rows + (int64_t)t * ld, DTYPE_BF16, x, shape->D);
        dtype_widen(x, c.rows + (int64_t)t * ld, DTYPE_BF16, shape->D);
    }
    const int64_t count = weight_ffn_scratch_floats(MOST_N, shape->F);
    c.scratch = aligned_alloc(64, (size_t)round_up((int)count, 16) * sizeof *c.scratch);
    assert_non_null(c.scratch);
    memset(c.scratch, 0xff, (size_t)count * sizeof *c.scratch);
    return c;
}

static void end_case(Case *c)
{
    release(&c->gate_up);
    release(&c->down);
    free(c->x);
    free(c->rows);
    free(c->scratch);
}

// y [N, D], of 1 everywhere before.
static float *run(const Case *c, int N)
{
    const int D = c->shape.D;
    float *y = ref_floats((int64_t)N * D);
    for (int64_t i = 0; i < (int64_t)N * D; i++)
        y[i] = 1;
    weight_ffn_forward(y, D, c->rows, &c->gate_up.panels, &c->down.panels, N, c->scratch);
    return y;
}

static double dot(const float *a, const float *b, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += (double)rounded(a[i]) * b[i];
    return sum;
}

static void expect(float *y, const Case *c, int N)
{
    const int D = c->shape.D, F = c->shape.F;
    float *act = ref_floats(F);
    for (int t = 0; t < N; t++) {
        const float *x = c->x + (int64_t)t * D;
        for (int f = 0; f < F; f++) {
            const double gate = dot(x, c->gate_up.rows + (int64_t)f * D, D);
            act[f] = (float)(gate / (1 + exp(-gate)) *
                             dot(x, c->gate_up.rows + (int64_t)(F + f) * D, D));
        }
        for (int d = 0; d < D; d++)
            y[(int64_t)t * D + d] = 1 + (float)dot(act, c->down.rows + (int64_t)d * F, F);
    }
    free(act);
}

static void every_kernel_computes_the_block(void **state)
{
    (void)state;
    for (int s = 0; s < N_SHAPES; s++) {
        Case c = start_case(&shapes[s]);
        const int64_t count = (int64_t)MOST_N * c.shape.D;
        float *expected = ref_floats(count);
        assert_true(weight_ffn_fits(&c.gate_up.panels, &c.down.panels));
        expect(expected, &c, MOST_N);
        for (int kernel = -1; testing_next_kernel(&kernel);) {
            float *y = run(&c, MOST_N);
            // act may round the other way: 2^-9 of one of F terms. Seen 1.9e-5.
            testing_assert_close("y", y, expected, count, 2e-4);
            free(y);
        }
        free(expected);
        end_case(&c);
    }
}

static void bits_do_not_depend_on_batch_and_threads(void **state)
{
    (void)state;
    const int n_threads = omp_get_max_threads();
    for (int s = 0; s < N_SHAPES; s++) {
        Case c = start_case(&shapes[s]);
        float *whole = run(&c, MOST_N);
        for (int b = 0; b < N_BATCHES; b++) {
            omp_set_num_threads(1 + b % 3);
            float *part = run(&c, batches[b]);
            assert_memory_equal(part, whole, (size_t)batches[b] * (size_t)c.shape.D * sizeof *part);
            free(part);
        }
        omp_set_num_threads(n_threads);
        free(whole);
        end_case(&c);
    }
}

// Rows, and gate that ends within a panel, go the other way.
static void other_matrices_do_not_fit(void **state)
{
    (void)state;
    const WeightMatrix gate_up = {NULL, DTYPE_BF16, 40, 32, WEIGHT_PANELS},
                       down = {NULL, DTYPE_BF16, 32, 20, WEIGHT_PANELS},
                       rows = {NULL, DTYPE_BF16, 32, 32, WEIGHT_ROWS};
    assert_false(weight_ffn_fits(&gate_up, &down));
    assert_false(weight_ffn_fits(&rows, &rows));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_computes_the_block),
        cmocka_unit_test(bits_do_not_depend_on_batch_and_threads),
        cmocka_unit_test(other_matrices_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
