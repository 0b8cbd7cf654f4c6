// Forwards are filled from the questions in work, in their order, and then with new ones, the
// longest first: short ones fill what room is left.
#include "eval/tasks/choice_scorer.h"

#include "base/intmath.h"
#include "eval/tasks/question_work.h"

#include <stdlib.h>

// Questions in work: new ones begin while those in work have fewer tokens than this many forwards.
enum { FORWARDS_IN_WORK = 2 };

struct ChoiceScorer {
    KvFormat format;
    int max_tokens, max_segments;
    Infer *infer;
    KvCache *cache;
    TargetScores scores;
    InferSegment *segments; // owned [max_segments]
    int64_t n_forwards, n_tokens;
};

static int forward_tokens(const ChoiceScorerOptions *options)
{
    const int n = options->max_tokens > 0 ? options->max_tokens : CHOICE_SCORER_TOKENS;
    return n > QUESTION_PIECE_TOKENS ? n : QUESTION_PIECE_TOKENS;
}

int64_t choice_scorer_bytes(const ModelShape *shape, const ChoiceScorerOptions *options,
                            int n_threads)
{
    const int n = forward_tokens(options);
    return infer_bytes(shape, n, n, n_threads) + target_scores_bytes(shape) +
           n * (int64_t)sizeof(InferSegment);
}

Status choice_scorer_create(ChoiceScorer **out, const InferWeights *weights, const KvFormat *format,
                            const ChoiceScorerOptions *options)
{
    Status status;
    ChoiceScorer *scorer = calloc(1, sizeof *scorer);
    if (scorer == NULL)
        return fail(FAILED, "no memory to score texts");
    scorer->format = *format;
    scorer->max_tokens = scorer->max_segments = forward_tokens(options);
    TRY_GOTO(release, kv_cache_create(&scorer->cache, &weights->shape, format, 0));
    TRY_GOTO(release,
             infer_create(&scorer->infer, weights, scorer->max_tokens, scorer->max_segments));
    TRY_GOTO(release, target_scores_start(&scorer->scores, &weights->shape));
    scorer->segments = malloc((size_t)scorer->max_segments * sizeof *scorer->segments);
    status = scorer->segments != NULL ? OK : fail(FAILED, "no memory to score texts");
    TRY_GOTO(release, status);
    *out = scorer;
    return OK;
release:
    choice_scorer_release(scorer);
    return status;
}

void choice_scorer_release(ChoiceScorer *scorer)
{
    if (scorer == NULL)
        return;
    free(scorer->segments);
    target_scores_release(&scorer->scores);
    infer_release(scorer->infer);
    kv_cache_release(scorer->cache);
    free(scorer);
}

ChoiceScorerCounts choice_scorer_counts(const ChoiceScorer *scorer)
{
    return (ChoiceScorerCounts){.n_forwards = scorer->n_forwards,
                                .n_tokens = scorer->n_tokens,
                                .n_logits = scorer->scores.n_rows,
                                .peak_bytes = kv_cache_peak_bytes(scorer->cache)};
}

// ---- a run -------------------------------------------------------------------------------------

typedef struct OrderedQuestion {
    const ScoredQuestion *question; // borrowed
    int index;
    int64_t n_tokens;
} OrderedQuestion;

// Questions in work are those [first, next) of the order.
typedef struct ScorerRun {
    ChoiceScorer *scorer;
    OrderedQuestion *order; // owned [n]
    QuestionWork *works;    // owned [n], by the order; zeroed where none is in work
    int n, first, next;
    int64_t n_tokens_in_work;
    int n_segments, n_rows; // of the forward being filled
} ScorerRun;

static int by_length(const void *a, const void *b)
{
    const OrderedQuestion *x = a, *y = b;
    if (x->n_tokens != y->n_tokens)
        return x->n_tokens > y->n_tokens ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static Status start_run(ScorerRun *out, ChoiceScorer *scorer, const ScoredQuestion *questions,
                        int n)
{
    ScorerRun run = {.scorer = scorer, .n = n};
    run.order = malloc((size_t)(n + 1) * sizeof *run.order);
    run.works = calloc((size_t)(n + 1), sizeof *run.works);
    if (run.order == NULL || run.works == NULL) {
        free(run.order);
        free(run.works);
        return fail(FAILED, "no memory for %d questions", n);
    }
    for (int i = 0; i < n; i++)
        run.order[i] = (OrderedQuestion){&questions[i], i,
                                         question_work_tokens(&questions[i], &scorer->format)};
    qsort(run.order, (size_t)n, sizeof *run.order, by_length);
    *out = run;
    return OK;
}

static void end_run(ScorerRun *run)
{
    for (int i = run->first; i < run->next; i++)
        question_work_end(&run->works[i]);
    free(run->order);
    free(run->works);
}

// Pieces of a question that can run now and fit.
static Status add_pieces(ScorerRun *run, QuestionWork *work)
{
    ChoiceScorer *scorer = run->scorer;
    for (int b = 0; (b = question_work_next(work, b)) >= 0; b++) {
        const int n = question_work_piece(work, b);
        if (run->n_rows + n > scorer->max_tokens || run->n_segments == scorer->max_segments)
            continue;
        TRY(question_work_segment(work, b, scorer->cache, &scorer->segments[run->n_segments]));
        TRY(question_work_targets(work, b, run->n_rows, &scorer->scores));
        run->n_segments++;
        run->n_rows += n;
    }
    return OK;
}

static Status fill_forward(ScorerRun *run)
{
    ChoiceScorer *scorer = run->scorer;
    run->n_segments = run->n_rows = 0;
    target_scores_clear(&scorer->scores);
    for (int i = run->first; i < run->next; i++)
        if (run->works[i].question != NULL)
            TRY(add_pieces(run, &run->works[i]));
    while (run->next < run->n && run->n_rows < scorer->max_tokens &&
           (run->n_tokens_in_work < FORWARDS_IN_WORK * (int64_t)scorer->max_tokens)) {
        const OrderedQuestion *next = &run->order[run->next];
        TRY(question_work_start(&run->works[run->next], next->question, &scorer->format));
        run->n_tokens_in_work += next->n_tokens;
        TRY(add_pieces(run, &run->works[run->next++]));
    }
    return OK;
}

static Status advance(ScorerRun *run)
{
    for (int i = run->first; i < run->next; i++) {
        if (run->works[i].question == NULL)
            continue;
        TRY(question_work_advance(&run->works[i]));
        if (question_work_is_done(&run->works[i])) {
            question_work_end(&run->works[i]);
            run->n_tokens_in_work -= run->order[i].n_tokens;
        }
    }
    while (run->first < run->next && run->works[run->first].question == NULL)
        run->first++;
    return OK;
}

Status choice_scorer_run(ChoiceScorer *scorer, ScoredQuestion *questions, int n)
{
    ScorerRun run;
    Status status;
    TRY(start_run(&run, scorer, questions, n));
    while (run.first < run.n) {
        TRY_GOTO(end, fill_forward(&run));
        TRY_GOTO(end, infer_forward(scorer->infer, scorer->segments, run.n_segments));
        TRY_GOTO(end, target_scores_finish(&scorer->scores, scorer->infer));
        TRY_GOTO(end, advance(&run));
        scorer->n_forwards++;
        scorer->n_tokens += run.n_rows;
    }
    status = OK;
end:
    end_run(&run);
    return status;
}
