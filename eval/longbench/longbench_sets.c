// The templates are LongBench's to the letter, "asconcisely" included: models' published scores
// were measured with them.
#include "eval/longbench/longbench_sets.h"

#include "eval/longbench/py_text.h"

#include <stdio.h>
#include <string.h>

// hotpotqa, 2wikimqa and musique ask alike.
#define PASSAGES_TEMPLATE                                                                          \
    "Answer the question based on the given passages. Only give me the answer and do not "         \
    "output any other words.\n\nThe following are given passages.\n{context}\n\nAnswer "           \
    "the question based on the given passages. Only give me the answer and do not output "         \
    "any other words.\n\nQuestion: {input}\nAnswer:"

const LongbenchSet longbench_sets[N_LONGBENCH_SETS] = {
    {"narrativeqa", LONGBENCH_QA_F1, 128,
     "You are given a story, which can be either a novel or a movie script, and a "
     "question. Answer the question asconcisely as you can, using a single phrase if "
     "possible. Do not provide any explanation.\n\nStory: {context}\n\nNow, answer the "
     "question based on the story asconcisely as you can, using a single phrase if "
     "possible. Do not provide any explanation.\n\nQuestion: {input}\n\nAnswer:"},
    {"qasper", LONGBENCH_QA_F1, 128,
     "You are given a scientific article and a question. Answer the question as concisely "
     "as you can, using a single phrase or sentence if possible. If the question cannot "
     "be answered based on the information in the article, write \"unanswerable\". If the "
     "question is a yes/no question, answer \"yes\", \"no\", or \"unanswerable\". Do not "
     "provide any explanation.\n\nArticle: {context}\n\n Answer the question based on the "
     "above article as concisely as you can, using a single phrase or sentence if "
     "possible. If the question cannot be answered based on the information in the "
     "article, write \"unanswerable\". If the question is a yes/no question, answer "
     "\"yes\", \"no\", or \"unanswerable\". Do not provide any explanation.\n\nQuestion: "
     "{input}\n\nAnswer:"},
    {"multifieldqa_en", LONGBENCH_QA_F1, 64,
     "Read the following text and answer briefly.\n\n{context}\n\nNow, answer the "
     "following question based on the above text, only give me the answer and do not "
     "output any other words.\n\nQuestion: {input}\nAnswer:"},
    {"hotpotqa", LONGBENCH_QA_F1, 32, PASSAGES_TEMPLATE},
    {"2wikimqa", LONGBENCH_QA_F1, 32, PASSAGES_TEMPLATE},
    {"musique", LONGBENCH_QA_F1, 32, PASSAGES_TEMPLATE},
    {"gov_report", LONGBENCH_ROUGE_L, 512,
     "You are given a report by a government agency. Write a one-page summary of the "
     "report.\n\nReport:\n{context}\n\nNow, write a one-page summary of the report.\n\n"
     "Summary:"},
    {"qmsum", LONGBENCH_ROUGE_L, 512,
     "You are given a meeting transcript and a query containing a question or "
     "instruction. Answer the query in one or more sentences.\n\nTranscript:\n{context}\n"
     "\nNow, answer the query based on the above meeting transcript in one or more "
     "sentences.\n\nQuery: {input}\nAnswer:"},
    {"multi_news", LONGBENCH_ROUGE_L, 512,
     "You are given several news passages. Write a one-page summary of all news. \n\nNews:"
     "\n{context}\n\nNow, write a one-page summary of all the news.\n\nSummary:"},
    {"trec", LONGBENCH_CLASSIFICATION, 64,
     "Please determine the type of the question below. Here are some examples of "
     "questions.\n\n{context}\n{input}",
     .first_line_only = true},
    {"triviaqa", LONGBENCH_QA_F1, 32,
     "Answer the question based on the given passage. Only give me the answer and do not "
     "output any other words. The following are some examples.\n\n{context}\n\n{input}",
     .first_line_only = true},
    {"samsum", LONGBENCH_ROUGE_L, 128,
     "Summarize the dialogue into a few short sentences. The following are some examples."
     "\n\n{context}\n\n{input}",
     .first_line_only = true},
    {"passage_count", LONGBENCH_COUNT, 32,
     "There are some paragraphs below sourced from Wikipedia. Some of them may be "
     "duplicates. Please carefully read these paragraphs and determine how many unique "
     "paragraphs there are after removing duplicates. In other words, how many "
     "non-repeating paragraphs are there in total?\n\n{context}\n\nPlease enter the final "
     "count of unique paragraphs after removing duplicates. The output format should only "
     "contain the number, such as 1, 2, 3, and so on.\n\nThe final answer is: "},
    {"passage_retrieval_en", LONGBENCH_RETRIEVAL, 32,
     "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine "
     "which paragraph the abstract is from.\n\n{context}\n\nThe following is an abstract."
     "\n\n{input}\n\nPlease enter the number of the paragraph that the abstract is from. "
     "The answer format must be like \"Paragraph 1\", \"Paragraph 2\", etc.\n\nThe answer "
     "is: "},
    {"lcc", LONGBENCH_EDIT_SIM, 64,
     "Please complete the code given below. \n{context}Next line of code:\n"},
    {"repobench-p", LONGBENCH_EDIT_SIM, 64,
     "Please complete the code given below. \n{context}{input}Next line of code:\n"},
};

static const struct {
    const char *name, *lm_eval_name;
    AnswerMetric metric; // of answer_score(); not of the two that match
} metrics[N_LONGBENCH_METRICS] = {
    [LONGBENCH_QA_F1] = {"qa_f1", "qa_f1_score", ANSWER_QA_F1},
    [LONGBENCH_ROUGE_L] = {"rouge_l", "rouge_score", ANSWER_ROUGE_L},
    [LONGBENCH_EDIT_SIM] = {"edit_sim", "code_sim_score", ANSWER_EDIT_SIM},
    [LONGBENCH_CLASSIFICATION] = {"classification", "classification_score", ANSWER_CLASSIFICATION},
    [LONGBENCH_COUNT] = {"count", "count_score", ANSWER_COUNT},
    [LONGBENCH_RETRIEVAL] = {"retrieval", "retrieval_score", ANSWER_RETRIEVAL},
    [LONGBENCH_MATCH_ALL] = {"match_all", "string_match_all", 0},
    [LONGBENCH_MATCH_ANY] = {"match_any", "string_match_part", 0},
};

const char *longbench_metric_name(LongbenchMetric metric)
{
    return metrics[metric].name;
}

const char *longbench_metric_lm_eval_name(LongbenchMetric metric)
{
    return metrics[metric].lm_eval_name;
}

const LongbenchSet *longbench_find_set(const char *name)
{
    for (int s = 0; s < N_LONGBENCH_SETS; s++)
        if (strcmp(longbench_sets[s].name, name) == 0)
            return &longbench_sets[s];
    return NULL;
}

// ---- needle sets -------------------------------------------------------------------------------

// RULER's tasks by what their files are called; the first that fits counts.
static const struct {
    const char *part;
    LongbenchMetric metric;
    int max_gen;
} ruler_tasks[] = {
    {"niah", LONGBENCH_MATCH_ALL, 128}, {"cwe", LONGBENCH_MATCH_ALL, 120},
    {"fwe", LONGBENCH_MATCH_ALL, 50},   {"vt", LONGBENCH_MATCH_ALL, 30},
    {"qa", LONGBENCH_MATCH_ANY, 32},    {"", LONGBENCH_MATCH_ALL, 128},
};

enum { PASSKEY_MAX_GEN = 16 };

bool longbench_needle_set(LongbenchSet *out, const char *name, const json_t *row)
{
    const bool is_ruler = json_object_get(row, "outputs") != NULL;
    const bool is_passkey =
        json_object_get(row, "target") != NULL && json_object_get(row, "passkey_position") != NULL;
    if (!is_ruler && !is_passkey)
        return false;
    LongbenchSet set = {.metric = LONGBENCH_MATCH_ALL,
                        .max_gen = PASSKEY_MAX_GEN,
                        .template = "{input}What is the pass key? The pass key is ",
                        .is_needle = true};
    snprintf(set.name, sizeof set.name, "%s", name);
    if (is_ruler) {
        int task = 0;
        while (strstr(name, ruler_tasks[task].part) == NULL)
            task++;
        set.metric = ruler_tasks[task].metric;
        set.max_gen = ruler_tasks[task].max_gen;
        set.template = "{input}{answer_prefix}";
    }
    *out = set;
    return true;
}

// ---- scores ------------------------------------------------------------------------------------

static Status match(double *out, ScoreWork *work, AnswerText prediction, const AnswerKey *key)
{
    PyText text, reference;
    int n = 0;
    TRY(py_text_decode(&text, work, prediction));
    TRY(py_text_lower(&text, work, text));
    for (int i = 0; i < key->n_references; i++) {
        bool is_there;
        TRY(py_text_decode(&reference, work, key->references[i]));
        TRY(py_text_lower(&reference, work, reference));
        TRY(py_text_contains(&is_there, work, text, reference));
        n += is_there;
    }
    *out = n;
    return OK;
}

Status longbench_score(double *out, const LongbenchSet *set, AnswerText prediction,
                       const AnswerKey *key)
{
    if (!set->is_needle)
        return answer_score(out, metrics[set->metric].metric, set->first_line_only, prediction,
                            key);
    double n = 0;
    ScoreWork work = {.steps_left = ANSWER_MAX_STEPS};
    const Status status = match(&n, &work, prediction, key);
    score_work_release(&work);
    TRY(status);
    *out = set->metric == LONGBENCH_MATCH_ANY ? n > 0 : n / key->n_references;
    return OK;
}
