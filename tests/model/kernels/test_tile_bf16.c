// Products of packed bfloat16 operands by every kernel this machine has, against sums in double, at
// random sizes; and what packing makes of rows and columns of either type.
#include "tests/support/testing.h"

#include "model/kernels/compute.h"
#include "model/kernels/half.h"
#include "model/kernels/tile_bf16.h"
#include "tests/reference/ref.h"
#include "tests/support/testing_matrix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SPARE = 3, MAX_SIDE = 75, MAX_K = 140, N_SHAPES = 60 };

// Packed operands of a product [m, n], and what they were packed from: a [m, k], b [k, n].
typedef struct Case {
    int m, n, k, lda;
    int64_t panel_step;
    Rows a, b;
    uint16_t *packed_a, *packed_b;
} Case;

// 64 bytes aligned, of numbers that packing must overwrite.
static uint16_t *make_packed(int64_t count)
{
    uint16_t *halves = aligned_alloc(64, (size_t)(count + 63) / 32 * 64);
    assert_non_null(halves);
    for (int64_t i = 0; i < count; i++)
        halves[i] = 0x7fc0; // not a number
    return halves;
}

// The low bits of `kind`: whether a and b lie transposed, and whether they are in bfloat16.
static Case make_case(int m, int n, int k, int kind)
{
    const bool a_transposed = kind & 1, b_transposed = kind & 2, a_bf16 = kind & 4,
               b_bf16 = kind & 8;
    Case c = {m, n, k, tile_bf16_padded(k) + 2 * (kind & 3), tile_bf16_panel_halves(k) + 64};
    c.a = a_transposed ? testing_matrix(k, m + SPARE, a_bf16, 1)
                       : testing_matrix(m, k + SPARE, a_bf16, 1);
    c.b = b_transposed ? testing_matrix(n, k + SPARE, b_bf16, 2)
                       : testing_matrix(k, n + SPARE, b_bf16, 2);
    c.packed_a = make_packed((int64_t)m * c.lda);
    c.packed_b = make_packed(c.panel_step * ceil_div(n, TILE_BF16_COLUMNS));
    if (a_transposed)
        tile_bf16_transpose(c.packed_a, c.lda, c.a, k, m);
    else
        tile_bf16_copy_rows(c.packed_a, c.lda, c.a, m, k);
    if (b_transposed)
        tile_bf16_pack_columns(c.packed_b, c.panel_step, c.b, n, k);
    else
        tile_bf16_pack_rows(c.packed_b, c.panel_step, c.b, k, n);
    return c;
}

static void release(Case *c)
{
    free(c->a.data);
    free(c->b.data);
    free(c->packed_a);
    free(c->packed_b);
}

static double a_at(const Case *c, int kind, int i, int p)
{
    return kind & 1 ? testing_matrix_rounded(c->a, p, i) : testing_matrix_rounded(c->a, i, p);
}

static double b_at(const Case *c, int kind, int p, int j)
{
    return kind & 2 ? testing_matrix_rounded(c->b, j, p) : testing_matrix_rounded(c->b, p, j);
}

// [m, n + SPARE], the last columns as `before` has them.
static float *expect(const Case *c, int kind, const float *before, bool add)
{
    const int ld = c->n + SPARE;
    float *expected = ref_floats((int64_t)c->m * ld);
    for (int i = 0; i < c->m; i++)
        for (int j = 0; j < ld; j++) {
            double sum = add || j >= c->n ? (double)before[(int64_t)i * ld + j] : 0;
            for (int p = 0; p < c->k && j < c->n; p++)
                sum += a_at(c, kind, i, p) * b_at(c, kind, p, j);
            expected[(int64_t)i * ld + j] = (float)sum;
        }
    return expected;
}

static void check_kernels(const Case *c, int kind, bool add)
{
    const int ld = c->n + SPARE;
    const int64_t count = (int64_t)c->m * ld;
    float *before = ref_random(count, 1.0, 3), *expected = expect(c, kind, before, add);
    float *got = ref_floats(count);
    for (Bf16Kernel kernel = 0; kernel < N_BF16_KERNELS; kernel++) {
        if (!bf16_kernel_is_there(kernel))
            continue;
        bf16_force_kernel(kernel);
        memcpy(got, before, (size_t)count * sizeof *got);
        tile_bf16_start();
        tile_bf16_multiply(got, ld, c->packed_a, c->lda, c->packed_b, c->panel_step, c->m, c->n,
                           c->k, add);
        tile_bf16_end();
        testing_assert_close(bf16_kernel_name(), got, expected, count, 2e-6); // seen 4e-7
    }
    free(before);
    free(expected);
    free(got);
}

static void test_every_kernel_at_random_sizes(void **state)
{
    (void)state;
    uint32_t random = 12345;
    for (int i = 0; i < N_SHAPES; i++) {
        int side[3];
        for (int s = 0; s < 3; s++) {
            random = random * 1664525u + 1013904223u;
            side[s] = (int)(random >> 8) % (s == 2 ? MAX_K : MAX_SIDE) + 1;
        }
        const int kind = i % 16;
        Case c = make_case(side[0], side[1], side[2], kind);
        check_kernels(&c, kind, i % 3 == 0);
        release(&c);
    }
}

// Packed numbers are those of half.h, whichever way they were packed: ties, infinity, numbers that
// round to it, denormals and what is not a number among them.
static void test_packing_rounds_as_half(void **state)
{
    (void)state;
    enum { K = 64, N = 32 };
    const float specials[] = {1.00390625f, 1.01171875f, INFINITY, -INFINITY, 3.4e38f,
                              1e-40f,      -1e-40f,     NAN,      -0.0f,     1e-45f};
    float values[K * N], transposed[N * K];
    for (int p = 0; p < K; p++)
        for (int j = 0; j < N; j++)
            transposed[j * K + p] = values[p * N + j] =
                specials[(p * N + j) % 10] * (float)(1 + j % 3);
    const int64_t step = tile_bf16_panel_halves(K);
    uint16_t *rows = make_packed(2 * step), *columns = make_packed(2 * step);
    uint16_t *left = make_packed(N * K), *other_left = make_packed(N * K);
    tile_bf16_pack_rows(rows, step, rows_f32(values, N), K, N);
    tile_bf16_pack_columns(columns, step, rows_f32(transposed, K), N, K);
    tile_bf16_copy_rows(left, K, rows_f32(transposed, K), N, K);
    tile_bf16_transpose(other_left, K, rows_f32(values, N), K, N);
    for (int p = 0; p < K; p++)
        for (int j = 0; j < N; j++) {
            const uint16_t want = half_f32_to_bf16(values[p * N + j]);
            const int64_t at = j / 16 * step + p / 2 * 32 + j % 16 * 2 + p % 2;
            assert_int_equal(rows[at], want);
            assert_int_equal(columns[at], want);
            assert_int_equal(left[j * K + p], want);
            assert_int_equal(other_left[j * K + p], want);
        }
    free(rows);
    free(columns);
    free(left);
    free(other_left);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kernel_at_random_sizes),
        cmocka_unit_test(test_packing_rounds_as_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
