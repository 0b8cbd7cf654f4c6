#include "model/head_rows.h"

#include "base/status.h"

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
