// The norm is summed in blocks of fixed size and position: floating-point addition is not
// associative, so sums over each thread's or rank's part would depend on how many there are.
#include "optim/clip.h"

// In double: a float sum of 1e8 squares would lose half of its digits. Vector lanes are added in an
// order that is fixed by the instruction set the build targets.
static double block_sum(const float *grads, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++)
        sum += (double)grads[i] * (double)grads[i];
    return sum;
}

enum { TOGETHER = 4 };

// The sums of whole blocks, each in the order of block_sum(): one alone waits for its own
// additions.
static void block_sums(double *sums, const float *grads)
{
    double a = 0, b = 0, c = 0, d = 0;
    const float *of_b = grads + CLIP_BLOCK, *of_c = of_b + CLIP_BLOCK, *of_d = of_c + CLIP_BLOCK;
#pragma omp simd reduction(+ : a, b, c, d)
    for (int64_t i = 0; i < CLIP_BLOCK; i++) {
        a += (double)grads[i] * (double)grads[i];
        b += (double)of_b[i] * (double)of_b[i];
        c += (double)of_c[i] * (double)of_c[i];
        d += (double)of_d[i] * (double)of_d[i];
    }
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

int64_t clip_n_blocks(int64_t count)
{
    return (count + CLIP_BLOCK - 1) / CLIP_BLOCK;
}

void clip_sum_squares(double *sums, const float *grads, int64_t count)
{
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < count; first += TOGETHER * CLIP_BLOCK) {
        if (count - first >= TOGETHER * CLIP_BLOCK) {
            block_sums(sums + first / CLIP_BLOCK, grads + first);
            continue;
        }
        for (int64_t i = first; i < count; i += CLIP_BLOCK)
            sums[i / CLIP_BLOCK] =
                block_sum(grads + i, count - i < CLIP_BLOCK ? count - i : CLIP_BLOCK);
    }
}

double clip_scale(double norm, double max_norm)
{
    // torch adds 1e-6 to the norm and never scales up.
    return max_norm > 0 && norm > max_norm ? max_norm / (norm + 1e-6) : 1.0;
}
