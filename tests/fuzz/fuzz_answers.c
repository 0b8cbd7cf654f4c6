// eval/longbench: every metric scores any two texts between 0 and 1, or refuses them in one line.
// The first byte is how many bytes the prediction has, the rest is the reference.
#include "tests/fuzz/fuzzing.h"

#include "eval/longbench/answer_score.h"

static double score(AnswerMetric metric, AnswerText prediction, AnswerText reference)
{
    const AnswerText classes[] = {reference, prediction};
    const AnswerKey key = {&reference, 1, classes, 2};
    double first_line, out = 0;
    const Status status = answer_score(&out, metric, false, prediction, &key);
    CHECK(answer_score(&first_line, metric, true, prediction, &key) == status, "another status");
    if (status != OK)
        fuzz_check_refusal(status);
    else
        CHECK(first_line >= 0 && first_line <= 1, "metric %d: %g", (int)metric, first_line);
    CHECK(out >= 0 && out <= 1, "metric %d: %g", (int)metric, out);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = {data, size};
    size_t n = fuzz_take_byte(&input);
    n = n < input.size ? n : input.size;
    const char *bytes = (const char *)input.bytes;
    const AnswerText prediction = {bytes, (int64_t)n};
    const AnswerText reference = {bytes + n, (int64_t)(input.size - n)};
    double scores[ANSWER_RETRIEVAL + 1];
    for (AnswerMetric metric = ANSWER_QA_F1; metric <= ANSWER_RETRIEVAL; metric++)
        scores[metric] = score(metric, prediction, reference);
    // What is in matching blocks is a common subsequence.
    CHECK(scores[ANSWER_EDIT_SIM] <= scores[ANSWER_EDIT_SIM_INDEL], "%g > %g",
          scores[ANSWER_EDIT_SIM], scores[ANSWER_EDIT_SIM_INDEL]);
    // A text has all of its own words.
    const double f1 = score(ANSWER_QA_F1, reference, reference);
    const double rouge = score(ANSWER_ROUGE_L, reference, reference);
    CHECK(f1 == 0 || f1 == 1, "F1 %.17g of a text with itself", f1);
    CHECK(rouge == 0 || rouge > 0.99999, "ROUGE-L %.17g of a text with itself", rouge);
    return 0;
}
