// torch.optim.AdamW's order of operations in float32, with the scalars of a step computed in double
// and rounded once. Each element is independent of the others, so the bits are the same for any
// split of the vector over ranks and threads.
#include "optim/adamw.h"

#include <math.h>

void adamw_update(float *restrict params, float *restrict m, float *restrict v,
                  const float *restrict grads, int64_t count, const AdamW *rule, double lr,
                  double grad_scale, int t)
{
    const float beta1 = (float)rule->beta1, beta2 = (float)rule->beta2;
    const float one_minus_beta1 = (float)(1.0 - rule->beta1);
    const float one_minus_beta2 = (float)(1.0 - rule->beta2);
    const float scale = (float)grad_scale, eps = (float)rule->eps;
    // Decoupled decay: the parameter shrinks by itself, not through the gradient and its moments.
    const float keep = (float)(1.0 - lr * rule->weight_decay);
    // Bias correction of both moments, which start at zero: m / (1 - beta1^t), v / (1 - beta2^t).
    const float step_size = (float)(lr / (1.0 - pow(rule->beta1, t)));
    const float inv_sqrt_correction = (float)(1.0 / sqrt(1.0 - pow(rule->beta2, t)));
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float g = grads[i] * scale;
        m[i] = beta1 * m[i] + one_minus_beta1 * g;
        v[i] = beta2 * v[i] + one_minus_beta2 * g * g;
        // eps is added after the bias correction, as torch does; the paper's Algorithm 2 does the
        // same.
        float denominator = sqrtf(v[i]) * inv_sqrt_correction + eps;
        params[i] = keep * params[i] - step_size * m[i] / denominator;
    }
}
