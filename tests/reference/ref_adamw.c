#include "tests/reference/ref_adamw.h"

#include <math.h>

void ref_adamw_update(double *params, double *m, double *v, const double *grads, int64_t count,
                      const AdamW *rule, double lr, double grad_scale, int t)
{
    for (int64_t i = 0; i < count; i++) {
        double g = grads[i] * grad_scale;
        params[i] -= lr * rule->weight_decay * params[i];
        m[i] = rule->beta1 * m[i] + (1 - rule->beta1) * g;
        v[i] = rule->beta2 * v[i] + (1 - rule->beta2) * g * g;
        double m_hat = m[i] / (1 - pow(rule->beta1, t));
        double v_hat = v[i] / (1 - pow(rule->beta2, t));
        params[i] -= lr * m_hat / (sqrt(v_hat) + rule->eps);
    }
}
