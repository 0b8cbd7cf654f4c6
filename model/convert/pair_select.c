// KV heads are independent: the threads share those of a layer, each with its own scratch.
#include "model/convert/pair_select.h"

#include "model/convert/pair_choice.h"

#include <omp.h>
#include <stdlib.h>

// One for each thread.
static Status start_choices(PairChoice *choices, int n, int half)
{
    for (int i = 0; i < n; i++)
        TRY(pair_choice_start(&choices[i], half));
    return OK;
}

static void choose_layer(int32_t *pairs, const ModelShape *s, int P, bool absorb,
                         const double *gram, PairChoice *choices)
{
    const int G = s->n_heads / s->n_kv_heads;
    const int64_t square = (int64_t)statistics_features(s) * statistics_features(s);
#pragma omp parallel for schedule(static)
    for (int j = 0; j < s->n_kv_heads; j++)
        pair_choice(pairs + (int64_t)j * P, &choices[omp_get_thread_num()], gram + j * G * square,
                    G, P, absorb);
}

Status pair_select(int32_t *pairs, const ModelShape *s, int P, bool absorb, StatisticsFile *file)
{
    const int n_threads = omp_get_max_threads(), half = s->head_dim / 2;
    const int64_t S = statistics_features(s);
    Status status;
    if (P < 1 || P > half)
        return fail(BAD_INPUT, "rope_pairs is %d, allowed are 1 to %d (head width %d)", P, half,
                    s->head_dim);
    double *gram = malloc((size_t)(s->n_heads * S * S) * sizeof *gram);
    PairChoice *choices = calloc((size_t)n_threads, sizeof *choices);
    TRY_GOTO(release, gram != NULL && choices != NULL
                          ? start_choices(choices, n_threads, half)
                          : fail(FAILED, "no memory to choose RoPE pairs"));
    for (int l = 0; l < s->n_layers; l++) {
        TRY_GOTO(release, statistics_file_read_gram(file, l, gram));
        if (!shape_rotates(s, l))
            pair_choice_without_rope(gram, s->n_heads, half);
        choose_layer(pairs + (int64_t)l * s->n_kv_heads * P, s, P, absorb, gram, choices);
    }
release:
    for (int i = 0; choices != NULL && i < n_threads; i++)
        pair_choice_end(&choices[i]);
    free(choices);
    free(gram);
    return status;
}
