// The choice of a kernel, and the plain one: bfloat16 is widened where it is used and added by
// float32 instructions, four rows at a time, so that a panel's numbers are widened once for all
// four.
#include "model/kernels/tile_bf16.h"

#include "base/simd.h"
#include "model/kernels/compute.h"
#include "model/kernels/half.h"
#include "model/kernels/tile_bf16_kernel.h"

#include <string.h>

enum { COLUMNS = TILE_BF16_COLUMNS, HEIGHT = 4 };

// A panel's row of 16 pairs, and what is made of it. Vectors of the compiler's: of plain loops GCC
// 12 makes loads of 16 rows of a where there are four.
typedef uint32_t PairVector __attribute__((vector_size(4 * TILE_BF16_COLUMNS)));
typedef float SumVector __attribute__((vector_size(4 * TILE_BF16_COLUMNS)));

// Adds to HEIGHT or 1 rows of one panel's sums, in the order of k.
__attribute__((always_inline)) static inline void panel_sums(float sums[][COLUMNS],
                                                             const uint16_t *a, int lda,
                                                             const uint32_t *restrict pairs, int k,
                                                             const int rows)
{
    SumVector sum[HEIGHT];
    memcpy(sum, sums, (size_t)rows * sizeof *sum);
    for (int p = 0; p < k; p += 2, pairs += COLUMNS) {
        PairVector both;
        memcpy(&both, pairs, sizeof both);
        const SumVector even = (SumVector)(both << 16), odd = (SumVector)(both & 0xffff0000u);
        for (int r = 0; r < rows; r++) {
            sum[r] += half_bf16_to_f32(a[(int64_t)r * lda + p]) * even;
            sum[r] += half_bf16_to_f32(a[(int64_t)r * lda + p + 1]) * odd;
        }
    }
    memcpy(sums, sum, (size_t)rows * sizeof *sum);
}

HOT static void four_rows(float sums[HEIGHT][COLUMNS], const uint16_t *a, int lda,
                          const uint32_t *pairs, int k)
{
    panel_sums(sums, a, lda, pairs, k, HEIGHT);
}

HOT static void one_row(float sums[1][COLUMNS], const uint16_t *a, const uint32_t *pairs, int k)
{
    panel_sums(sums, a, 0, pairs, k, 1);
}

// Columns [0, n) of one panel.
static void multiply_panel(const TileBf16Operands *o, float *c, const uint16_t *panel, int m, int n)
{
    const uint32_t *pairs = (const uint32_t *)(const void *)panel;
    for (int i = 0; i < m; i += HEIGHT) {
        float sums[HEIGHT][COLUMNS] = {{0}};
        const int rows = min_int(HEIGHT, m - i);
        const uint16_t *a = o->a + (int64_t)i * o->lda;
        float *to = c + (int64_t)i * o->ldc;
        for (int r = 0; r < rows && o->add; r++)
            memcpy(sums[r], to + (int64_t)r * o->ldc, (size_t)n * sizeof *to);
        if (rows == HEIGHT)
            four_rows(sums, a, o->lda, pairs, o->k);
        else
            for (int r = 0; r < rows; r++)
                one_row(sums + r, a + (int64_t)r * o->lda, pairs, o->k);
        for (int r = 0; r < rows; r++)
            memcpy(to + (int64_t)r * o->ldc, sums[r], (size_t)n * sizeof *to);
    }
}

static void multiply(const TileBf16Operands *operands, int m, int n)
{
    const uint16_t *panel = operands->b;
    for (int j = 0; j < n; j += COLUMNS, panel += operands->panel_step)
        multiply_panel(operands, operands->c + j, panel, m, min_int(COLUMNS, n - j));
}

void tile_bf16_nothing(void)
{
}

static void round_numbers(uint16_t *to, const float *from, int count)
{
    dtype_narrow(to, DTYPE_BF16, from, count);
}

const TileBf16Kernel tile_bf16_plain = {tile_bf16_nothing, tile_bf16_nothing, multiply,
                                        round_numbers};

const TileBf16Kernel *tile_bf16_kernel(void)
{
    static const TileBf16Kernel *const kernels[N_BF16_KERNELS] = {
        [BF16_EMULATED] = &tile_bf16_plain,
        [BF16_AVX512] = &tile_bf16_avx512,
        [BF16_AMX] = &tile_bf16_amx,
    };
    return kernels[bf16_kernel()];
}

void tile_bf16_start(void)
{
    tile_bf16_kernel()->start();
}

void tile_bf16_end(void)
{
    tile_bf16_kernel()->end();
}

void tile_bf16_multiply(float *c, int ldc, const uint16_t *a, int lda, const uint16_t *b,
                        int64_t panel_step, int m, int n, int k, bool add)
{
    const TileBf16Operands operands = {c,          a,   b,    ldc, lda, tile_bf16_padded(k),
                                       panel_step, add, NULL, 0};
    tile_bf16_kernel()->multiply(&operands, m, n);
}
