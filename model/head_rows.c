#include "model/head_rows.h"

#include "base/status.h"

#include <string.h>

void head_rows_order(int *rows, const int32_t *pairs, int P, int E)
{
    int n_nope = 0, next = 0; // next: first kept pair whose dim comes later
    for (int i = 0; i < P; i++) {
        CHECK(pairs[i] >= 0 && pairs[i] < E / 2 && (i == 0 || pairs[i] > pairs[i - 1]),
              "pair %d of %d is %d, head width %d", i, P, (int)pairs[i], E);
        rows[i] = pairs[i];
        rows[P + i] = pairs[i] + E / 2;
    }
    for (int dim = 0; dim < E; dim++) {
        if (dim == E / 2)
            next = 0;
        if (next < P && pairs[next] == dim % (E / 2))
            next++;
        else
            rows[2 * P + n_nope++] = dim;
    }
}

void head_rows_gather(float *to, const float *head, const int *rows, int n, int D)
{
    for (int i = 0; i < n; i++)
        memcpy(to + (int64_t)i * D, head + (int64_t)rows[i] * D, (size_t)D * sizeof *to);
}

void head_rows_queries(float *q, const Model *mla, const float *original, int layer, int D,
                       int *rows)
{
    const ModelShape *s = &mla->shape;
    int E = s->head_dim, n_rope = 2 * s->rope_pairs, n_nope = E - n_rope;
    float *nope = q + (int64_t)s->n_heads * n_rope * D;
    for (int h = 0; h < s->n_heads; h++) {
        const int32_t *pairs = model_pairs(mla, layer, h / (s->n_heads / s->n_kv_heads));
        const float *head = original + (int64_t)h * E * D;
        head_rows_order(rows, pairs, s->rope_pairs, E);
        head_rows_gather(q + (int64_t)h * n_rope * D, head, rows, n_rope, D);
        head_rows_gather(nope + (int64_t)h * n_nope * D, head, rows + n_rope, n_nope, D);
    }
}
