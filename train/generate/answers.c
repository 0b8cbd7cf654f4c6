#include "train/generate/answers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const answer_end_names[] = {
    [ANSWER_END_TOKEN] = "eos",           [ANSWER_STOP] = "stop",
    [ANSWER_LENGTH] = "length",           [ANSWER_CONTEXT] = "context",
    [ANSWER_INTERRUPTED] = "interrupted",
};

Status answers_start(Answers *out, const AnswersOptions *options)
{
    const int64_t n = options->prompts->n * options->n_samples;
    AnswerRecord *records = calloc((size_t)n, sizeof *records);
    if (records == NULL)
        return fail(FAILED, "no memory for %lld answers", (long long)n);
    *out = (Answers){.options = *options, .records = records, .n = n, .ends_in_line = true};
    return OK;
}

static void release_record(AnswerRecord *record)
{
    bytes_release(&record->text);
    free(record->ids);
    record->ids = NULL;
}

void answers_forget(Answers *answers, int64_t index)
{
    release_record(&answers->records[index]);
}

void answers_release(Answers *answers)
{
    for (int64_t i = 0; i < answers->n; i++)
        release_record(&answers->records[i]);
    free(answers->records);
    *answers = (Answers){0};
}

// A full disk or a closed pipe ends the work now, instead of after all answers.
static Status check_output(FILE *out)
{
    if (fflush(out) != 0 || ferror(out))
        return fail(FAILED, "standard output cannot be written: %s", strerror(errno));
    return OK;
}

// ---- JSON
// ----------------------------------------------------------------------------------------

static json_t *list_ids(const AnswerRecord *record)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < record->n_ids; i++)
        json_array_append_new(list, json_integer(record->ids[i]));
    return list;
}

static Status print_json(Answers *answers, int64_t index)
{
    const AnswersOptions *options = &answers->options;
    const AnswerRecord *record = &answers->records[index];
    const int64_t p = index / options->n_samples;
    const Prompt *prompt = &options->prompts->items[p];
    const char *text = record->text.data != NULL ? record->text.data : "";
    json_t *object = json_object();
    json_object_set_new(object, "prompt", json_integer(p));
    if (prompt->id != NULL)
        json_object_set(object, "id", prompt->id);
    json_object_set_new(object, "sample", json_integer(index % options->n_samples));
    json_object_set_new(object, "text", json_stringn(text, (size_t)record->text.size));
    json_object_set_new(object, "finish_reason", json_string(answer_end_names[record->end]));
    if (record->end == ANSWER_STOP)
        json_object_set_new(object, "stop", json_string(options->stops[record->stop]));
    json_object_set_new(object, "prompt_tokens", json_integer(prompt->n_ids));
    json_object_set_new(object, "ids", list_ids(record));
    char *line = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (line == NULL)
        return fail(FAILED, "no memory to print answer %lld", (long long)index + 1);
    fprintf(options->out, "%s\n", line);
    free(line);
    return check_output(options->out);
}

// ---- text
// ----------------------------------------------------------------------------------------

// Of several answers each begins with a line that says which it is.
static void begin_text(Answers *answers)
{
    const AnswersOptions *options = &answers->options;
    if (answers->next_is_begun)
        return;
    answers->next_is_begun = true;
    if (answers->n > 1)
        fprintf(options->out, "--- answer %lld of %lld ---\n", (long long)answers->next + 1,
                (long long)answers->n);
    answers->ends_in_line = false;
}

static Status print_text(Answers *answers, AnswerRecord *record)
{
    FILE *out = answers->options.out;
    begin_text(answers);
    if (record->text.size > 0) {
        fwrite(record->text.data, 1, (size_t)record->text.size, out);
        answers->ends_in_line = record->text.data[record->text.size - 1] == '\n';
        record->text.size = 0;
    }
    return check_output(out);
}

static Status print_done(Answers *answers)
{
    AnswerRecord *record = &answers->records[answers->next];
    if (answers->options.as_json) {
        TRY(print_json(answers, answers->next));
    } else {
        TRY(print_text(answers, record));
        if (!answers->ends_in_line)
            fputc('\n', answers->options.out);
        TRY(check_output(answers->options.out));
    }
    release_record(record);
    return OK;
}

// ---- what comes
// ----------------------------------------------------------------------------------

static bool is_streamed(const Answers *answers, int64_t index)
{
    return answers->options.out != NULL && !answers->options.as_json && index == answers->next;
}

Status answers_add_text(Answers *answers, int64_t index, const char *text, int64_t size)
{
    AnswerRecord *record = &answers->records[index];
    TRY(bytes_append(&record->text, text, size));
    return is_streamed(answers, index) ? print_text(answers, record) : OK;
}

Status answers_end(Answers *answers, int64_t index, const AnswerEnding *ending)
{
    AnswerRecord *record = &answers->records[index];
    record->ids = malloc((size_t)(ending->n_ids + 1) * sizeof *record->ids);
    if (record->ids == NULL)
        return fail(FAILED, "no memory for %lld tokens", (long long)ending->n_ids);
    if (ending->n_ids > 0)
        memcpy(record->ids, ending->ids, (size_t)ending->n_ids * sizeof *record->ids);
    record->n_ids = ending->n_ids;
    record->end = ending->end;
    record->stop = ending->stop;
    record->is_done = true;
    answers->n_done++;
    while (answers->options.out != NULL && answers->next < answers->n &&
           answers->records[answers->next].is_done) {
        TRY(print_done(answers));
        answers->next++;
        answers->next_is_begun = false;
        // What the next one has said while it waited.
        if (answers->next < answers->n && answers->records[answers->next].text.size > 0 &&
            is_streamed(answers, answers->next))
            TRY(print_text(answers, &answers->records[answers->next]));
    }
    return OK;
}

Status answers_finish(Answers *answers)
{
    for (; answers->next < answers->n; answers->next++) {
        if (answers->records[answers->next].is_done)
            TRY(print_done(answers));
        answers->next_is_begun = false;
    }
    return OK;
}
