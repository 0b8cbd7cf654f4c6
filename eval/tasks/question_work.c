// Branch 0 holds the inputs that all texts begin with; branch 1 + i those of text i behind them,
// none if the text scores a single id. A branch behind the beginning forks from it.
#include "eval/tasks/question_work.h"

#include "base/intmath.h"

#include <stdlib.h>

static int n_branches(const QuestionWork *work)
{
    return 1 + work->question->n_texts;
}

static int shared_ids(const ScoredText *a, const ScoredText *b, int most)
{
    int n = 0;
    while (n < most && n < a->n_ids - 1 && n < b->n_ids - 1 && a->ids[n] == b->ids[n])
        n++;
    return n;
}

// Inputs that all texts begin with. In the reference policy they are no longer than any prompt,
// which must end before the ids behind it run.
static int shared_length(const ScoredQuestion *question, const KvFormat *format)
{
    const ScoredText *texts = question->texts;
    int shared = texts[0].n_ids - 1;
    for (int i = 0; i < question->n_texts; i++) {
        shared = shared_ids(&texts[0], &texts[i], shared);
        if (format->reference_policy)
            shared = min_int(shared, texts[i].n_ids - texts[i].n_scored);
    }
    return shared;
}

int64_t question_work_tokens(const ScoredQuestion *question, const KvFormat *format)
{
    const int shared = shared_length(question, format);
    int64_t n = shared;
    for (int i = 0; i < question->n_texts; i++)
        n += question->texts[i].n_ids - 1 - shared;
    return n;
}

bool question_work_can_pass(const ScoredQuestion *question, const KvFormat *format)
{
    const int shared = shared_length(question, format);
    bool can_pass = format->scheme == KV_PLAIN && shared <= QUESTION_PIECE_TOKENS;
    for (int i = 0; i < question->n_texts; i++)
        can_pass = can_pass && question->texts[i].n_ids - 1 - shared <= QUESTION_PIECE_TOKENS;
    return can_pass;
}

// The shared beginning is a prompt itself if it is everyone's.
static bool is_prompt(const ScoredQuestion *question, int length)
{
    for (int i = 0; i < question->n_texts; i++)
        if (question->texts[i].n_ids - question->texts[i].n_scored != length)
            return false;
    return true;
}

Status question_work_start(QuestionWork *out, const ScoredQuestion *question,
                           const KvFormat *format, bool is_passing)
{
    const int shared = shared_length(question, format);
    QuestionWork work = {
        .question = question, .is_quantized = format->scheme != KV_PLAIN, .is_passing = is_passing};
    work.branches = calloc((size_t)n_branches(&work), sizeof *work.branches);
    if (work.branches == NULL)
        return fail(FAILED, "no memory for a question of %d choices", question->n_texts);
    work.branches[0] = (TextBranch){.ids = question->texts[0].ids, .end = shared, .prompt = -1};
    if (format->reference_policy && is_prompt(question, shared))
        work.branches[0].prompt = shared;
    for (int i = 0; i < question->n_texts; i++) {
        const ScoredText *text = &question->texts[i];
        CHECK(text->n_scored >= 1 && text->n_scored < text->n_ids, "%d of %d ids are scored",
              text->n_scored, text->n_ids);
        question->log_likelihoods[i] = 0;
        work.branches[1 + i] =
            (TextBranch){.ids = text->ids,
                         .next = shared,
                         .end = text->n_ids - 1,
                         .prompt = format->reference_policy ? text->n_ids - text->n_scored : -1};
    }
    *out = work;
    return OK;
}

void question_work_end(QuestionWork *work)
{
    // The beginning last: branches of a passing cache point to it.
    for (int b = work->branches != NULL ? n_branches(work) - 1 : -1; b >= 0; b--)
        kv_sequence_release(work->branches[b].sequence);
    free(work->branches);
    *work = (QuestionWork){0};
}

int question_work_next(const QuestionWork *work, int branch)
{
    const TextBranch *branches = work->branches;
    // Until the shared beginning is complete nothing else can run.
    const int ready = branches[0].next + (work->is_passing ? branches[0].n_queued : 0);
    const int end = ready < branches[0].end ? 1 : n_branches(work);
    for (int b = branch; b < end; b++)
        if (branches[b].next < branches[b].end && branches[b].n_queued == 0)
            return b;
    return -1;
}

// A quantized cache quantizes at multiples of a block, counted from the prompt's end in the
// reference policy: pieces that end there read what single tokens would.
int question_work_piece(const QuestionWork *work, int branch)
{
    const TextBranch *b = &work->branches[branch];
    int most = QUESTION_PIECE_TOKENS;
    if (b->prompt > b->next)
        most = min_int(most, b->prompt - b->next);
    else if (work->is_quantized)
        most = KV_BLOCK_TOKENS - (b->next - (b->prompt > 0 ? b->prompt : 0)) % KV_BLOCK_TOKENS;
    return min_int(most, b->end - b->next);
}

static Status end_prompt(TextBranch *branch)
{
    return branch->prompt == branch->next ? kv_sequence_end_prompt(branch->sequence) : OK;
}

static Status start_sequence(QuestionWork *work, TextBranch *branch, KvCache *cache)
{
    KvSequence *beginning = work->branches[0].sequence;
    if (branch == &work->branches[0] || beginning == NULL)
        return kv_sequence_create(&branch->sequence, cache);
    if (work->is_passing)
        return kv_sequence_branch(&branch->sequence, beginning, branch->next);
    TRY(kv_sequence_fork(&branch->sequence, beginning));
    return end_prompt(branch);
}

Status question_work_segment(QuestionWork *work, int branch, KvCache *cache, InferSegment *out)
{
    TextBranch *b = &work->branches[branch];
    if (b->sequence == NULL)
        TRY(start_sequence(work, b, cache));
    b->n_queued = question_work_piece(work, branch);
    *out = (InferSegment){b->sequence, b->ids + b->next, b->n_queued};
    return OK;
}

static Status add_target(const QuestionWork *work, int text, int position, int row,
                         TargetScores *scores)
{
    const ScoredText *t = &work->question->texts[text];
    const bool is_scored = position + 1 >= t->n_ids - t->n_scored && position + 1 < t->n_ids;
    return is_scored ? target_scores_add(scores, row, t->ids[position + 1],
                                         &work->question->log_likelihoods[text])
                     : OK;
}

Status question_work_targets(const QuestionWork *work, int branch, int first_row,
                             TargetScores *scores)
{
    const TextBranch *b = &work->branches[branch];
    const int first_text = branch > 0 ? branch - 1 : 0,
              end_text = branch > 0 ? branch : work->question->n_texts;
    for (int i = 0; i < b->n_queued; i++)
        for (int text = first_text; text < end_text; text++)
            TRY(add_target(work, text, b->next + i, first_row + i, scores));
    return OK;
}

Status question_work_advance(QuestionWork *work)
{
    for (int i = 0; i < n_branches(work); i++) {
        TextBranch *b = &work->branches[i];
        if (b->n_queued == 0)
            continue;
        b->next += b->n_queued;
        b->n_queued = 0;
        TRY(end_prompt(b));
        if (i > 0 && b->next == b->end) {
            kv_sequence_release(b->sequence);
            b->sequence = NULL;
        }
    }
    return OK;
}

bool question_work_is_done(const QuestionWork *work)
{
    for (int b = 0; b < n_branches(work); b++)
        if (work->branches[b].next < work->branches[b].end)
            return false;
    return true;
}
