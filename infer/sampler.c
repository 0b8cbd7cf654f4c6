// The tokens are taken from a heap in the order of their logits, as far as the filters reach: a
// vocabulary of 128k tokens is seldom sorted, since a few tokens have nearly all of the
// probability. top-p is defined from below in transformers (a token goes if it and all that are
// less likely sum to at most 1 - p); seen from above, a token stays if those before it sum to less
// than p, which is the same set.
#include "infer/sampler.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Sampler {
    SamplerOptions options;
    int vocab_size;         // V
    float *logits;          // owned [V]: with the penalty, over the temperature
    SamplerChoice *choices; // owned [V]
};

static Status check_range(const char *name, double value, bool holds, const char *allowed)
{
    return holds ? OK : fail(BAD_INPUT, "%s is %g, allowed are %s", name, value, allowed);
}

Status sampler_check(const SamplerOptions *options)
{
    const SamplerOptions *o = options;
    TRY(check_range("temperature", o->temperature, o->temperature >= 0 && isfinite(o->temperature),
                    "0 and more"));
    TRY(check_range("top-k", o->top_k, o->top_k >= 0, "0 (all) and more"));
    TRY(check_range("top-p", o->top_p, o->top_p > 0 && o->top_p <= 1, "more than 0, at most 1"));
    TRY(check_range("min-p", o->min_p, o->min_p >= 0 && o->min_p <= 1, "0 to 1"));
    TRY(check_range("repetition-penalty", o->repetition_penalty,
                    o->repetition_penalty > 0 && isfinite(o->repetition_penalty), "more than 0"));
    return check_range("repeat-last-n", o->repeat_last_n, o->repeat_last_n >= SAMPLER_WHOLE_HISTORY,
                       "-1 (all), 0 (none) and more");
}

Status sampler_create(Sampler **out, const SamplerOptions *options, int vocab_size)
{
    TRY(sampler_check(options));
    Sampler *sampler = calloc(1, sizeof *sampler);
    if (sampler != NULL) {
        sampler->options = *options;
        sampler->vocab_size = vocab_size;
        sampler->logits = malloc((size_t)vocab_size * sizeof *sampler->logits);
        sampler->choices = malloc((size_t)vocab_size * sizeof *sampler->choices);
    }
    if (sampler == NULL || sampler->logits == NULL || sampler->choices == NULL) {
        sampler_release(sampler);
        return fail(FAILED, "no memory to choose from %d tokens", vocab_size);
    }
    *out = sampler;
    return OK;
}

void sampler_release(Sampler *sampler)
{
    if (sampler == NULL)
        return;
    free(sampler->logits);
    free(sampler->choices);
    free(sampler);
}

uint64_t sampler_key(uint64_t seed, int64_t prompt, int64_t sample)
{
    const uint64_t of_prompt = random_bits(random_key(seed, "generate"), (uint64_t)prompt);
    return random_bits(of_prompt, (uint64_t)sample);
}

// Penalizes each token of the history once, however often it is there (Keskar et al. 2019, with
// the sign rule that transformers added).
static void penalize(Sampler *sampler, const float *logits, const int32_t *history,
                     int64_t n_history)
{
    const SamplerOptions *options = &sampler->options;
    const float penalty = (float)options->repetition_penalty;
    int64_t n = options->repeat_last_n;
    n = n == SAMPLER_WHOLE_HISTORY || n > n_history ? n_history : n;
    for (int64_t i = n_history - n; i < n_history; i++) {
        const int32_t id = history[i];
        if (id >= 0 && id < sampler->vocab_size)
            sampler->logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
    }
}

// Logits after the penalty, and the largest of them; false if there is nothing to choose from. A
// logit of minus infinity forbids its token; NaN and plus infinity say that the model has failed.
static bool prepare(Sampler *sampler, float *largest, const float *logits, const int32_t *history,
                    int64_t n_history)
{
    const int V = sampler->vocab_size;
    memcpy(sampler->logits, logits, (size_t)V * sizeof *logits);
    if (sampler->options.repetition_penalty != 1)
        penalize(sampler, logits, history, n_history);
    float max = -INFINITY;
    bool is_number = true;
    for (int i = 0; i < V; i++) {
        is_number &= sampler->logits[i] == sampler->logits[i];
        max = sampler->logits[i] > max ? sampler->logits[i] : max;
    }
    *largest = max;
    return is_number && isfinite(max);
}

// Whether a stands before b: more likely, or as likely with a lower id.
static bool is_before(const SamplerChoice *a, const SamplerChoice *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift_down(SamplerChoice *heap, int n, int i)
{
    const SamplerChoice moved = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_before(&heap[child + 1], &heap[child]))
            child++;
        if (!is_before(&heap[child], &moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

// Takes the first of a heap [n] off and puts it at its end, heap[n - 1].
static void pop_to_end(SamplerChoice *heap, int n)
{
    const SamplerChoice first = heap[0];
    heap[0] = heap[n - 1];
    sift_down(heap, n - 1, 0);
    heap[n - 1] = first;
}

// Orders the first tokens, as many as the filters keep, to the front; returns how many.
// `total` is the sum of exp(logit - max) over all tokens.
static int keep_most_likely(Sampler *sampler, double total)
{
    const SamplerOptions *options = &sampler->options;
    SamplerChoice *heap = sampler->choices;
    const int V = sampler->vocab_size;
    for (int i = V / 2 - 1; i >= 0; i--)
        sift_down(heap, V, i);
    // Popped choices gather at the end of the array, the most likely last.
    int n = 0;
    const int k = options->top_k > 0 && options->top_k < V ? options->top_k : V;
    if (k < V) {
        // top-k comes before top-p, whose sum is over what top-k has kept.
        while (n < k || (n < V && heap[0].logit == heap[V - n].logit)) {
            pop_to_end(heap, V - n);
            n++;
        }
        total = 0;
        for (int i = 0; i < n; i++)
            total += heap[V - 1 - i].probability;
    }
    const int n_allowed = k < V ? n : V;
    double above = 0; // of those before, relative to total
    int n_kept = 0;
    const bool is_limited = options->top_p < 1;
    while (n_kept < n_allowed && (!is_limited || n_kept == 0 || above < options->top_p * total)) {
        if (n_kept == n) {
            pop_to_end(heap, V - n);
            n++;
        }
        above += heap[V - 1 - n_kept].probability;
        n_kept++;
    }
    for (int i = 0; i < n_kept && i < V - 1 - i; i++) {
        const SamplerChoice swap = heap[i];
        heap[i] = heap[V - 1 - i];
        heap[V - 1 - i] = swap;
    }
    return n_kept;
}

int sampler_filter(Sampler *sampler, const SamplerChoice **out, const float *logits,
                   const int32_t *history, int64_t n_history)
{
    const SamplerOptions *options = &sampler->options;
    SamplerChoice *choices = sampler->choices;
    const int V = sampler->vocab_size;
    float largest;
    if (!prepare(sampler, &largest, logits, history, n_history))
        return 0;
    double total = 0;
    for (int i = 0; i < V; i++) {
        // The difference is divided, as the logits may overflow where temperature is tiny.
        const double over = (double)(sampler->logits[i] - largest) / options->temperature;
        const double weight = (double)expf((float)over);
        choices[i] = (SamplerChoice){i, sampler->logits[i], weight};
        total += weight;
    }
    int n = V;
    if (options->top_k > 0 || options->top_p < 1)
        n = keep_most_likely(sampler, total);
    // The most likely token has weight exp(0) = 1.
    int n_kept = 0;
    total = 0;
    for (int i = 0; i < n; i++) {
        if (choices[i].probability < options->min_p)
            continue;
        choices[n_kept++] = choices[i];
        total += choices[i].probability;
    }
    for (int i = 0; i < n_kept; i++)
        choices[i].probability /= total;
    *out = choices;
    return n_kept;
}

// The first token whose cumulative probability exceeds a uniform number.
static int32_t draw(SamplerStream *stream, const SamplerChoice *choices, int n)
{
    const double unit = 0x1p-53;
    const double u = (double)(random_bits(stream->key, stream->n_drawn++) >> 11) * unit;
    double cumulative = 0;
    int32_t last = -1;
    for (int i = 0; i < n; i++) {
        if (choices[i].probability <= 0)
            continue;
        last = choices[i].id;
        cumulative += choices[i].probability;
        if (u < cumulative)
            break;
    }
    return last; // rounding may leave the sum below 1
}

int32_t sampler_draw(Sampler *sampler, SamplerStream *stream, const float *logits,
                     const int32_t *history, int64_t n_history)
{
    if (sampler->options.temperature > 0) {
        const SamplerChoice *choices;
        const int n = sampler_filter(sampler, &choices, logits, history, n_history);
        return draw(stream, choices, n);
    }
    float largest;
    if (!prepare(sampler, &largest, logits, history, n_history))
        return -1;
    int32_t id = 0;
    while (sampler->logits[id] != largest)
        id++;
    return id;
}
