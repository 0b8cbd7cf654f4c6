// Matrix products: every kernel this machine has against sums in double, at sizes around the
// blocks' and with longer rows than needed; that threads do not change a bit. The source is
// included to reach kernels this machine would not choose.
#include "tests/support/testing.h"

#include "model/kernels/gemm.c"
#include "tests/reference/ref.h"

#include <stdlib.h>
#include <string.h>

enum { SPARE = 3 };

typedef struct Case {
    int m, n, k;
} Case;

// Around a register block, an item and a block of k, packed or not.
static const Case cases[] = {{1, 1, 1},      {5, 15, 3},    {6, 16, 8},     {7, 17, 9},
                             {13, 64, 40},   {97, 65, 384}, {100, 63, 385}, {12, 129, 768},
                             {3, 130, 1537}, {61, 700, 33}, {193, 40, 769}, {110, 100, 20},
                             {61, 48, 400}};

enum { N_CASES = sizeof cases / sizeof *cases };

typedef struct Matrices {
    int lda, ldb, ldc;
    float *a, *b, *c;
} Matrices;

static Matrices make(const Case *shape, bool a_transposed, bool b_transposed)
{
    Matrices s = {(a_transposed ? shape->m : shape->k) + SPARE,
                  (b_transposed ? shape->k : shape->n) + SPARE,
                  shape->n + SPARE,
                  NULL,
                  NULL,
                  NULL};
    s.a = ref_random((int64_t)(a_transposed ? shape->k : shape->m) * s.lda, 1.0, 1);
    s.b = ref_random((int64_t)(b_transposed ? shape->n : shape->k) * s.ldb, 1.0, 2);
    s.c = ref_random((int64_t)shape->m * s.ldc, 1.0, 3);
    return s;
}

static void release(Matrices *s)
{
    free(s->a);
    free(s->b);
    free(s->c);
}

static GemmMatrix a_matrix(const Matrices *s, bool is_transposed)
{
    return is_transposed ? gemm_transposed(s->a, s->lda) : gemm_matrix(s->a, s->lda);
}

static GemmMatrix b_matrix(const Matrices *s, bool is_transposed)
{
    return is_transposed ? gemm_transposed(s->b, s->ldb) : gemm_matrix(s->b, s->ldb);
}

static GemmProduct product(const Case *shape, const Matrices *s, bool a_transposed,
                           bool b_transposed, bool add)
{
    return (GemmProduct){s->c,
                         s->ldc,
                         floats(a_matrix(s, a_transposed)),
                         floats(b_matrix(s, b_transposed)),
                         shape->m,
                         shape->n,
                         shape->k,
                         add};
}

// What c [m, ldc] must be after the product, whose c is still as it was before.
static float *expect(const GemmProduct *p)
{
    float *expected = ref_floats((int64_t)p->m * p->ldc);
    memcpy(expected, p->c, (size_t)p->m * (size_t)p->ldc * sizeof(float));
    for (int i = 0; i < p->m; i++)
        for (int j = 0; j < p->n; j++) {
            double sum = p->add ? (double)p->c[(int64_t)i * p->ldc + j] : 0;
            for (int k = 0; k < p->k; k++)
                sum += (double)p->a.data[i * p->a.row_step + k * p->a.column_step] *
                       (double)p->b.data[k * p->b.row_step + j * p->b.column_step];
            expected[(int64_t)i * p->ldc + j] = (float)sum;
        }
    return expected;
}

static void check_case(const Case *shape, int kind)
{
    const bool a_transposed = (kind & 1) != 0, b_transposed = (kind & 2) != 0;
    float *expected = NULL;
    for (TileTarget target = 0; target < N_TILE_TARGETS; target++) {
        Matrices s = make(shape, a_transposed, b_transposed);
        const GemmProduct p = product(shape, &s, a_transposed, b_transposed, (kind & 4) != 0);
        if (expected == NULL)
            expected = expect(&p);
        if (tile_kernel(target) != NULL) {
            gemm_kernel(&p, tile_kernel(target));
            testing_assert_close(tile_kernel(target)->name, s.c, expected,
                                 (int64_t)shape->m * s.ldc,
                                 4e-6); // seen 1.1e-6
        }
        release(&s);
    }
    free(expected);
}

static void test_every_kernel(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++)
        for (int kind = 0; kind < 8; kind++)
            check_case(&cases[i], kind);
}

static void check_openblas(const Case *shape, int kind)
{
    const bool a_transposed = (kind & 1) != 0, b_transposed = (kind & 2) != 0;
    float *expected = NULL;
    for (int n_threads = 1; n_threads < 5; n_threads++) {
        Matrices s = make(shape, a_transposed, b_transposed);
        const GemmProduct p = product(shape, &s, a_transposed, b_transposed, (kind & 4) != 0);
        if (expected == NULL)
            expected = expect(&p);
        omp_set_num_threads(n_threads);
        gemm_openblas(&p);
        testing_assert_close("c", s.c, expected, (int64_t)shape->m * s.ldc, 4e-6); // seen 4.5e-7
        release(&s);
    }
    free(expected);
}

static void test_openblas_on_every_number_of_threads(void **state)
{
    (void)state;
    for (int kind = 0; kind < 8; kind++) {
        check_openblas(&(Case){97, 65, 384}, kind);
        check_openblas(&(Case){5, 90, 33}, kind);
        check_openblas(&(Case){1, 1, 1}, kind);
    }
    omp_set_num_threads(1);
}

static void multiply(const Case *shape, Matrices *s, bool a_transposed, bool b_transposed)
{
    gemm(COMPUTE_FLOAT32, rows_f32(s->c, s->ldc), a_matrix(s, a_transposed),
         b_matrix(s, b_transposed), shape->m, shape->n, shape->k, true);
}

// The same product by 1 to 5 threads.
static void check_threads(const Case *shape, bool a_transposed, bool b_transposed)
{
    Matrices one = make(shape, a_transposed, b_transposed);
    omp_set_num_threads(1);
    multiply(shape, &one, a_transposed, b_transposed);
    for (int n_threads = 2; n_threads < 6; n_threads++) {
        Matrices many = make(shape, a_transposed, b_transposed);
        omp_set_num_threads(n_threads);
        multiply(shape, &many, a_transposed, b_transposed);
        assert_memory_equal(many.c, one.c, (size_t)shape->m * (size_t)one.ldc * sizeof(float));
        release(&many);
    }
    release(&one);
}

// Threads cut rows and columns, never k.
static void test_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    if (gemm_kernel_name() == NULL)
        skip(); // OpenBLAS promises no such thing
    for (int kind = 0; kind < 4; kind++) {
        check_threads(&(Case){301, 515, 800}, (kind & 1) != 0, (kind & 2) != 0);
        check_threads(&(Case){301, 48, 800}, (kind & 1) != 0, (kind & 2) != 0);
    }
    omp_set_num_threads(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kernel),
        cmocka_unit_test(test_openblas_on_every_number_of_threads),
        cmocka_unit_test(test_bits_do_not_depend_on_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
