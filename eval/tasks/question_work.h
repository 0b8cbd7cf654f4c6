// A question on its way through the model: its texts as branches of inputs, the shared beginning
// first, which run piece by piece. A piece is a segment of a forward.
//
//     QuestionWork work;
//     TRY(question_work_start(&work, &question, &format, is_passing));
//     while (!question_work_is_done(&work)) {
//         for (int b = 0; (b = question_work_next(&work, b)) >= 0; b++) {
//             TRY_GOTO(end, question_work_segment(&work, b, cache, &segments[n]));
//             TRY_GOTO(end, question_work_targets(&work, b, first_row, &scores));
//             ...
//         }
//         ...the forward, and target_scores_finish()...
//         TRY_GOTO(end, question_work_advance(&work));
//     }
//     question_work_end(&work);
//
// A question that fits one forward (question_work_can_pass()) may run in a passing cache, all
// pieces at once: nothing of it is kept, and the numbers are the same.
//
// Where pieces are cut depends on the question and the format alone, so that its numbers do.
//
// Private to eval/tasks.
#ifndef MHA2MLA_EVAL_TASKS_QUESTION_WORK_H
#define MHA2MLA_EVAL_TASKS_QUESTION_WORK_H

#include "eval/tasks/choice_scorer.h"
#include "eval/tasks/target_scores.h"

// Tokens of a piece at most.
enum { QUESTION_PIECE_TOKENS = 512 };

// Positions [next, end) of a text's inputs are still to run.
typedef struct TextBranch {
    const int32_t *ids;   // borrowed, from position 0 on
    int next, end;        //
    int prompt;           // reference policy: the length at which the prompt ends; -1: never
    int n_queued;         // tokens from `next` on that are in the next forward
    KvSequence *sequence; // owned, with positions [0, next); NULL before the first piece and at the
                          // end
} TextBranch;

typedef struct QuestionWork {
    const ScoredQuestion *question; // borrowed
    bool is_quantized;              // the cache's format
    bool is_passing;                // all branches run in the same forward
    TextBranch *branches;           // owned [1 + n_texts]: the shared beginning, then each text's
                                    // inputs behind it
} QuestionWork;

// Tokens that the question's branches have together.
int64_t question_work_tokens(const ScoredQuestion *question, const KvFormat *format);

// Whether every branch is a single piece.
bool question_work_can_pass(const ScoredQuestion *question, const KvFormat *format);

// Sets the question's log-likelihoods to 0. FAILED if memory is short.
Status question_work_start(QuestionWork *out, const ScoredQuestion *question,
                           const KvFormat *format, bool is_passing);
void question_work_end(QuestionWork *work); // a zeroed one is allowed

// The first branch from `branch` on with a piece that can run now and is not queued; -1: none.
// Where is_passing the branches of a queued beginning can.
int question_work_next(const QuestionWork *work, int branch);

// Tokens of its next piece, at most QUESTION_PIECE_TOKENS.
int question_work_piece(const QuestionWork *work, int branch);

// Queues the branch's next piece. FAILED if memory is short.
Status question_work_segment(QuestionWork *work, int branch, KvCache *cache, InferSegment *out);

// The scored ids that follow the queued piece's tokens, whose rows begin with first_row.
Status question_work_targets(const QuestionWork *work, int branch, int first_row,
                             TargetScores *scores);

// The queued pieces were run. FAILED if the cache has no memory to quantize a prompt.
Status question_work_advance(QuestionWork *work);

bool question_work_is_done(const QuestionWork *work);

#endif
