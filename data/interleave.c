// The schedule is computed step by step in integers: shares of 2^-40, and for each source its
// credit, which is share * index - ONE * count. So every machine finds the same order, also after
// 10^12 samples, where a double's rounding would decide ties differently.
#include "data/interleave.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

// Products of a credit and a share need 2 * 40 bits and a little more.
__extension__ typedef __int128 Wide;

#define ONE          (INT64_C(1) << 40) // all shares together
#define MARK_SAMPLES (1 << 16)          // between two marks: the steps to repeat at most

// The state of the schedule after `index` samples.
typedef struct Position {
    int64_t index;
    int64_t *counts;  // owned [n]: samples of each source so far
    int64_t *credits; // owned [n]: share * index - ONE * count, so between -ONE and ONE
} Position;

struct Interleave {
    int n;
    int64_t *shares;      // owned [n], sum ONE
    pthread_mutex_t lock; // guards what follows: a reading thread walks while another describes
    Position current;
    Position mark; // an earlier position, so that a small step back need not start at 0
};

static void position_copy(Position *to, const Position *from, int n)
{
    to->index = from->index;
    memcpy(to->counts, from->counts, (size_t)n * sizeof *to->counts);
    memcpy(to->credits, from->credits, (size_t)n * sizeof *to->credits);
}

static void position_reset(Position *position, int n)
{
    position->index = 0;
    memset(position->counts, 0, (size_t)n * sizeof *position->counts);
    memset(position->credits, 0, (size_t)n * sizeof *position->credits);
}

// On failure the caller releases both arrays through interleave_destroy().
static bool position_allocate(Position *position, int n)
{
    position->counts = calloc((size_t)n, sizeof *position->counts);
    position->credits = calloc((size_t)n, sizeof *position->credits);
    return position->counts != NULL && position->credits != NULL;
}

// Rounds the running sums, so that each share is off by at most one unit and they add up.
static Status set_shares(int64_t *shares, const double *weights, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        if (!(weights[i] > 0) || !isfinite(weights[i]))
            return fail(BAD_INPUT, "source %d has weight %g; weights are positive numbers", i,
                        weights[i]);
        sum += weights[i];
    }
    double running = 0;
    int64_t before = 0;
    for (int i = 0; i < n; i++) {
        running += weights[i];
        const int64_t end = i == n - 1 ? ONE : (int64_t)(running / sum * (double)ONE + 0.5);
        shares[i] = end - before;
        before = end;
        if (shares[i] < 1 || !isfinite(sum))
            return fail(BAD_INPUT, "source %d has weight %g of %g in all: too small a share", i,
                        weights[i], sum);
    }
    return OK;
}

Status interleave_create(Interleave **out, const double *weights, int n_sources)
{
    CHECK(n_sources >= 1, "n_sources = %d", n_sources);
    Status status;
    Interleave *interleave = calloc(1, sizeof *interleave);
    if (interleave == NULL)
        return fail(FAILED, "out of memory for %d sources", n_sources);
    pthread_mutex_init(&interleave->lock, NULL);
    interleave->n = n_sources;
    interleave->shares = calloc((size_t)n_sources, sizeof *interleave->shares);
    if (interleave->shares == NULL || !position_allocate(&interleave->current, n_sources) ||
        !position_allocate(&interleave->mark, n_sources)) {
        status = fail(FAILED, "out of memory for %d sources", n_sources);
        goto destroy;
    }
    TRY_GOTO(destroy, set_shares(interleave->shares, weights, n_sources));
    *out = interleave;
    return OK;
destroy:
    interleave_destroy(interleave);
    return status;
}

// Tijdeman's rule for the next sample. With k sources and e = 1/(2k-2), a source may be chosen once
// it is owed at least e; of those the one goes first that would soonest be owed 1 - e too much:
// least (1 - e - owed) / share. All times ONE (2k - 2), in integers.
static int choose(const Interleave *interleave)
{
    const int k = interleave->n;
    const int64_t *credits = interleave->current.credits, *shares = interleave->shares;
    if (k == 1) // e would be infinite
        return 0;
    int best = -1;
    int64_t best_slack = 0;
    for (int i = 0; i < k; i++) {
        const int64_t owed = (2 * (int64_t)k - 2) * (credits[i] + shares[i]);
        if (owed < ONE)
            continue;
        const int64_t slack = (2 * (int64_t)k - 3) * ONE - owed;
        if (best < 0 || (Wide)slack * shares[best] < (Wide)best_slack * shares[i]) {
            best = i;
            best_slack = slack;
        }
    }
    // Owed sums to 1 over k sources, so one is owed 1/k, which is at least 1/(2k-2).
    CHECK(best >= 0, "no source is owed sample %lld", (long long)interleave->current.index);
    return best;
}

// Advances by one sample and returns its source. Every source gains its share, the chosen one pays
// ONE: credits sum to 0.
static int step(Interleave *interleave)
{
    Position *current = &interleave->current;
    if (current->index % MARK_SAMPLES == 0)
        position_copy(&interleave->mark, current, interleave->n);
    const int chosen = choose(interleave);
    for (int i = 0; i < interleave->n; i++)
        current->credits[i] += interleave->shares[i];
    current->credits[chosen] -= ONE;
    current->counts[chosen]++;
    current->index++;
    return chosen;
}

// Only forward steps exist: going back starts at the mark, or at the beginning.
static void walk_to(Interleave *interleave, int64_t index)
{
    // A reader asks in order, so this path serves resumes, tests and descriptions of past samples.
    if (index < interleave->current.index) {
        if (index >= interleave->mark.index)
            position_copy(&interleave->current, &interleave->mark, interleave->n);
        else
            position_reset(&interleave->current, interleave->n);
    }
    while (interleave->current.index < index)
        step(interleave);
}

int interleave_at(Interleave *interleave, int64_t index, int64_t *nth)
{
    CHECK(index >= 0, "index = %lld", (long long)index);
    pthread_mutex_lock(&interleave->lock);
    walk_to(interleave, index);
    // The step advances past `index`, so the next call in order costs one step.
    const int source = step(interleave);
    *nth = interleave->current.counts[source] - 1;
    pthread_mutex_unlock(&interleave->lock);
    return source;
}

int64_t interleave_count(Interleave *interleave, int64_t n_samples, int source)
{
    CHECK(n_samples >= 0 && source >= 0 && source < interleave->n, "%lld samples, source %d",
          (long long)n_samples, source);
    pthread_mutex_lock(&interleave->lock);
    walk_to(interleave, n_samples);
    const int64_t count = interleave->current.counts[source];
    pthread_mutex_unlock(&interleave->lock);
    return count;
}

void interleave_destroy(Interleave *interleave)
{
    if (interleave == NULL)
        return;
    pthread_mutex_destroy(&interleave->lock);
    free(interleave->shares);
    free(interleave->current.counts);
    free(interleave->current.credits);
    free(interleave->mark.counts);
    free(interleave->mark.credits);
    free(interleave);
}
