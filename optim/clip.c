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

int64_t clip_n_blocks(int64_t count)
{
    return (count + CLIP_BLOCK - 1) / CLIP_BLOCK;
}

void clip_sum_squares(double *sums, const float *grads, int64_t count)
{
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < count; first += CLIP_BLOCK)
        sums[first / CLIP_BLOCK] =
            block_sum(grads + first, count - first < CLIP_BLOCK ? count - first : CLIP_BLOCK);
}

double clip_scale(double norm, double max_norm)
{
    // torch adds 1e-6 to the norm and never scales up.
    return max_norm > 0 && norm > max_norm ? max_norm / (norm + 1e-6) : 1.0;
}
