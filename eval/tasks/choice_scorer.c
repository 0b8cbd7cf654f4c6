// Forwards are filled from the questions in work and then with new ones, the longest first, and the
// shortest in the room that is left.
//
// A question that fits a forward runs whole in one, in a cache that passes from layer to layer.
// Long ones, and all in quantized formats, are kept from forward to forward.
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
    KvCache *cache, *passing_cache; // NULL in quantized formats
    TargetScores scores;
    InferSegment *segments; // owned [max_segments]
    int64_t n_forwards, n_tokens;
};

static int forward_tokens(const ChoiceScorerOptions *options)
{
    const int n = options->max_tokens > 0 ? options->max_tokens : CHOICE_SCORER_TOKENS;
    return n > QUESTION_PIECE_TOKENS ? n : QUESTION_PIECE_TOKENS;
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
    if (format->scheme == KV_PLAIN)
        TRY_GOTO(release, kv_cache_create_passing(&scorer->passing_cache, &weights->shape, format));
    TRY_GOTO(release,
             infer_create(&scorer->infer, weights, scorer->max_tokens, scorer->max_segments));
    infer_set_reproducible(scorer->infer);
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
    kv_cache_release(scorer->passing_cache);
    kv_cache_release(scorer->cache);
    free(scorer);
}

int64_t choice_scorer_work_bytes(const ModelShape *shape, int n_threads)
{
    const int max_tokens = forward_tokens(&(ChoiceScorerOptions){0});
    const int64_t lists = max_tokens * (int64_t)(sizeof(InferSegment) + 2 * sizeof(QuestionWork));
    return infer_bytes(shape, max_tokens, max_tokens, n_threads) + target_scores_bytes(shape) +
           lists;
}

// Pages of what passes are half full on average, as texts part after short shared beginnings. What
// is kept are rows of all questions in work, before any become codes.
int64_t choice_scorer_cache_bytes(const ModelShape *shape, const KvFormat *format, int longest)
{
    const KvFormat rows = kv_format_plain(format->type);
    const double token_bytes = kv_format_bytes_per_token(&rows, shape);
    const int max_tokens = forward_tokens(&(ChoiceScorerOptions){0});
    const bool all_pass = format->scheme == KV_PLAIN && longest <= QUESTION_PIECE_TOKENS;
    const double passing = 2.0 * max_tokens * token_bytes / shape->n_layers,
                 kept = ((double)FORWARDS_IN_WORK * max_tokens + longest) * token_bytes;
    return (int64_t)(all_pass ? passing : passing + kept);
}

ChoiceScorerCounts choice_scorer_counts(const ChoiceScorer *scorer)
{
    const int64_t passing_bytes =
        scorer->passing_cache != NULL ? kv_cache_peak_bytes(scorer->passing_cache) : 0;
    return (ChoiceScorerCounts){.n_forwards = scorer->n_forwards,
                                .n_tokens = scorer->n_tokens,
                                .n_logits = scorer->scores.n_rows,
                                .peak_bytes = kv_cache_peak_bytes(scorer->cache) + passing_bytes};
}

// ---- a run -------------------------------------------------------------------------------------

typedef struct OrderedQuestion {
    const ScoredQuestion *question; // borrowed
    int index;
    int64_t n_tokens;
    bool is_passing;
} OrderedQuestion;

// Of the order, questions [first, end) have not begun.
typedef struct ScorerRun {
    ChoiceScorer *scorer;
    OrderedQuestion *order; // owned [n], the longest first
    int first, end;
    QuestionWork *works; // owned [n_works], room for 2 max_tokens
    int n_works;
    int64_t n_kept_tokens;  // of the questions in work that are kept
    int n_segments, n_rows; // of the forward being filled
} ScorerRun;

static int by_length(const void *a, const void *b)
{
    const OrderedQuestion *x = a, *y = b;
    if (x->n_tokens != y->n_tokens)
        return x->n_tokens > y->n_tokens ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static OrderedQuestion describe(const ChoiceScorer *scorer, const ScoredQuestion *questions,
                                int index)
{
    const ScoredQuestion *question = &questions[index];
    const int64_t n_tokens = question_work_tokens(question, &scorer->format);
    return (OrderedQuestion){question, index, n_tokens,
                             n_tokens <= scorer->max_tokens &&
                                 question_work_can_pass(question, &scorer->format)};
}

static Status start_run(ScorerRun *out, ChoiceScorer *scorer, const ScoredQuestion *questions,
                        int n)
{
    ScorerRun run = {.scorer = scorer, .end = n};
    run.order = malloc((size_t)(n + 1) * sizeof *run.order);
    run.works = calloc(2 * (size_t)scorer->max_tokens, sizeof *run.works);
    if (run.order == NULL || run.works == NULL) {
        free(run.order);
        free(run.works);
        return fail(FAILED, "no memory for %d questions", n);
    }
    for (int i = 0; i < n; i++)
        run.order[i] = describe(scorer, questions, i);
    qsort(run.order, (size_t)n, sizeof *run.order, by_length);
    *out = run;
    return OK;
}

static void end_run(ScorerRun *run)
{
    for (int i = 0; i < run->n_works; i++)
        question_work_end(&run->works[i]);
    free(run->order);
    free(run->works);
}

// Pieces of a question that can run now and fit.
static Status add_pieces(ScorerRun *run, QuestionWork *work)
{
    ChoiceScorer *scorer = run->scorer;
    KvCache *cache = work->is_passing ? scorer->passing_cache : scorer->cache;
    for (int b = 0; (b = question_work_next(work, b)) >= 0; b++) {
        const int n = question_work_piece(work, b);
        if (run->n_rows + n > scorer->max_tokens || run->n_segments == scorer->max_segments)
            continue;
        TRY(question_work_segment(work, b, cache, &scorer->segments[run->n_segments]));
        TRY(question_work_targets(work, b, run->n_rows, &scorer->scores));
        run->n_segments++;
        run->n_rows += n;
    }
    return OK;
}

// A question that passes needs room for all of it. Segments have at least one token, so there are
// always enough of them. At most max_tokens questions are kept, and as many pass.
static bool can_begin(const ScorerRun *run, const OrderedQuestion *question)
{
    const int max_tokens = run->scorer->max_tokens;
    if (question->is_passing)
        return run->n_rows + question->n_tokens <= max_tokens;
    return run->n_rows < max_tokens &&
           run->n_kept_tokens < FORWARDS_IN_WORK * (int64_t)max_tokens && run->n_works < max_tokens;
}

static Status begin(ScorerRun *run, const OrderedQuestion *question)
{
    QuestionWork *work = &run->works[run->n_works];
    TRY(question_work_start(work, question->question, &run->scorer->format, question->is_passing));
    run->n_works++;
    run->n_kept_tokens += question->is_passing ? 0 : question->n_tokens;
    return add_pieces(run, work);
}

static Status fill_forward(ScorerRun *run)
{
    run->n_segments = run->n_rows = 0;
    target_scores_clear(&run->scorer->scores);
    for (int i = 0; i < run->n_works; i++)
        TRY(add_pieces(run, &run->works[i]));
    while (run->first < run->end) {
        if (can_begin(run, &run->order[run->first]))
            TRY(begin(run, &run->order[run->first++]));
        else if (can_begin(run, &run->order[run->end - 1]))
            TRY(begin(run, &run->order[--run->end]));
        else
            break;
    }
    return OK;
}

static Status advance(ScorerRun *run)
{
    for (int i = 0; i < run->n_works; i++)
        TRY(question_work_advance(&run->works[i]));
    int n_left = 0;
    for (int i = 0; i < run->n_works; i++) {
        QuestionWork *work = &run->works[i];
        if (!question_work_is_done(work)) {
            run->works[n_left++] = *work;
            continue;
        }
        if (!work->is_passing)
            run->n_kept_tokens -= question_work_tokens(work->question, &run->scorer->format);
        question_work_end(work);
    }
    run->n_works = n_left;
    return OK;
}

Status choice_scorer_run(ChoiceScorer *scorer, ScoredQuestion *questions, int n)
{
    ScorerRun run;
    Status status;
    TRY(start_run(&run, scorer, questions, n));
    while (run.first < run.end || run.n_works > 0) {
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
