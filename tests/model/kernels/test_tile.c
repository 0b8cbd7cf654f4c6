// Products of tiles: every version against sums in double, also those this machine would not
// choose, and what they must not touch. The source is included to reach them.
#include "tests/support/testing.h"

#include "model/kernels/tile.c"
#include "tests/reference/ref.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_M = 40, MOST_N = 112, MOST_K = 100, SPARE = 5 };

typedef struct Case {
    int m, n, k;
    bool transposed, add;
} Case;

// One product by `kernel` on matrices with longer rows than needed.
static void check_case(const TileKernel *kernel, const Case *shape)
{
    int lda = (shape->transposed ? shape->m : shape->k) + SPARE,
        ldb = tile_padded(shape->n) + SPARE;
    int a_rows = shape->transposed ? shape->k : shape->m, padded = tile_padded(shape->n);
    float *a = ref_random((int64_t)a_rows * lda, 1.0, 1), *b = ref_random(shape->k * ldb, 1.0, 2);
    float *c = ref_random((int64_t)shape->m * ldb, 1.0, 3),
          *before = ref_floats((int64_t)shape->m * ldb);
    memcpy(before, c, (size_t)shape->m * (size_t)ldb * sizeof(float));
    TileOperands operands = {c, a, b, ldb, ldb, shape->k, lda, 1, shape->add};
    if (shape->transposed)
        operands.row_step = 1, operands.k_step = lda;
    multiply(kernel, &operands, shape->m, shape->n);
    for (int i = 0; i < shape->m; i++)
        for (int j = 0; j < ldb; j++) {
            double sum = shape->add ? (double)before[i * ldb + j] : 0;
            for (int p = 0; p < shape->k && j < padded; p++)
                sum += (double)a[shape->transposed ? p * lda + i : i * lda + p] *
                       (double)b[p * ldb + j];
            double expected = j < padded ? sum : (double)before[i * ldb + j];
            ref_assert_error("c", fabs((double)c[i * ldb + j] - expected), 3e-5); // seen 1.6e-5
        }
    free(a);
    free(b);
    free(c);
    free(before);
}

static void check_target(TileTarget target)
{
    static const int ms[] = {1, 2, 3, 5, 6, 7, 8, 11, 12, 17, 30, MOST_M};
    static const int ns[] = {1, 16, 17, 32, 33, 48, 64, 65, MOST_N}, ks[] = {1, 2, 64, MOST_K};
    const TileKernel *kernel = tile_kernel(target);
    if (kernel == NULL)
        skip();
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
        for (size_t j = 0; j < sizeof ns / sizeof *ns; j++)
            for (size_t p = 0; p < sizeof ks / sizeof *ks; p++)
                for (int kind = 0; kind < 4; kind++)
                    check_case(kernel,
                               &(Case){ms[i], ns[j], ks[p], (kind & 1) != 0, (kind & 2) != 0});
}

static void test_plain(void **state)
{
    (void)state;
    check_target(TILE_PLAIN);
}

static void test_avx2(void **state)
{
    (void)state;
    check_target(TILE_AVX2);
}

static void test_avx512(void **state)
{
    (void)state;
    check_target(TILE_AVX512);
}

static void test_bits_do_not_depend_on_the_rows_beside(void **state)
{
    (void)state;
    float *a = ref_random(MOST_M * MOST_K, 1.0, 1), *b = ref_random(MOST_K * MOST_N, 1.0, 2);
    float *all = ref_nans(MOST_M * MOST_N), *row = ref_nans(MOST_N);
    tile_multiply(all, MOST_N, a, MOST_K, b, MOST_N, MOST_M, MOST_N, MOST_K, false);
    for (int i = 0; i < MOST_M; i++) {
        tile_multiply(row, MOST_N, a + i * MOST_K, MOST_K, b, MOST_N, 1, MOST_N, MOST_K, false);
        assert_memory_equal(row, all + i * MOST_N, MOST_N * sizeof(float));
    }
    free(a);
    free(b);
    free(all);
    free(row);
}

static void test_orders_agree(void **state)
{
    (void)state;
    float *a = ref_random(MOST_M * MOST_K, 1.0, 1), *b = ref_random(MOST_K * MOST_N, 1.0, 2);
    float *turned = ref_nans(MOST_K * MOST_M);
    float *c = ref_nans(MOST_M * MOST_N), *d = ref_nans(MOST_M * MOST_N);
    for (int i = 0; i < MOST_M; i++)
        for (int p = 0; p < MOST_K; p++)
            turned[p * MOST_M + i] = a[i * MOST_K + p];
    tile_multiply(c, MOST_N, a, MOST_K, b, MOST_N, MOST_M, MOST_N, MOST_K, false);
    tile_multiply_transposed(d, MOST_N, turned, MOST_M, b, MOST_N, MOST_M, MOST_N, MOST_K, false);
    assert_memory_equal(c, d, MOST_M * MOST_N * sizeof(float));
    free(a);
    free(b);
    free(turned);
    free(c);
    free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
        cmocka_unit_test(test_bits_do_not_depend_on_the_rows_beside),
        cmocka_unit_test(test_orders_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
