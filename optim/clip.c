#include "optim/clip.h"

enum { BLOCK = 1 << 16, BLOCKS_PER_ROUND = 256 };

static double block_sum(const float *grads, int64_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++)
        sum += (double)grads[i] * (double)grads[i];
    return sum;
}

double clip_sum_squares(const float *grads, int64_t count)
{
    double total = 0;
    const int64_t round = (int64_t)BLOCK * BLOCKS_PER_ROUND;
    for (int64_t first = 0; first < count; first += round) {
        double sums[BLOCKS_PER_ROUND] = {0};
#pragma omp parallel for schedule(static)
        for (int b = 0; b < BLOCKS_PER_ROUND; b++) {
            int64_t begin = first + (int64_t)b * BLOCK;
            if (begin < count)
                sums[b] = block_sum(grads + begin, count - begin < BLOCK ? count - begin : BLOCK);
        }
        for (int b = 0; b < BLOCKS_PER_ROUND; b++)
            total += sums[b];
    }
    return total;
}

double clip_scale(double norm, double max_norm)
{
    // torch adds 1e-6 to the norm and never scales up.
    return max_norm > 0 && norm > max_norm ? max_norm / (norm + 1e-6) : 1.0;
}
