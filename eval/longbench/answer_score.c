#include "eval/longbench/answer_score.h"

#include "eval/longbench/answer_metrics.h"

static const AnswerMetricForm forms[] = {
    [ANSWER_QA_F1] = qa_f1,
    [ANSWER_ROUGE_L] = rouge_l,
    [ANSWER_EDIT_SIM] = edit_sim_difflib,
    [ANSWER_EDIT_SIM_INDEL] = edit_sim_indel,
    [ANSWER_CLASSIFICATION] = classification,
    [ANSWER_COUNT] = number_count,
    [ANSWER_RETRIEVAL] = paragraph_retrieval,
};

// prediction.lstrip("\n").split("\n")[0]
static PyText first_line(PyText text)
{
    PyText rest = py_text_without_leading(text, '\n');
    return py_text_take_until(&rest, '\n');
}

Status answer_score(double *out, AnswerMetric metric, bool first_line_only, AnswerText prediction,
                    const AnswerKey *key)
{
    ScoreWork work = {.steps_left = ANSWER_MAX_STEPS};
    Status status;
    PyText answer;
    double best = 0;
    TRY_GOTO(release, py_text_decode(&answer, &work, prediction));
    if (first_line_only)
        answer = first_line(answer);
    for (int i = 0; i < key->n_references; i++) {
        const ScoreMark mark = score_work_mark(&work);
        PyText reference;
        double score;
        TRY_GOTO(release, py_text_decode(&reference, &work, key->references[i]));
        TRY_GOTO(release, forms[metric](&score, &work, answer, reference, key));
        best = score > best ? score : best;
        score_work_rewind(&work, mark);
    }
    *out = best;
release:
    score_work_release(&work);
    return status;
}
