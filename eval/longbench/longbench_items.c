#include "eval/longbench/longbench_items.h"

#include "base/json.h"
#include "data/text/json_lines.h"
#include "data/tokenizer/tokenizer_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WHERE_BYTES = PATH_BYTES + 32, NAMES_BYTES = 1024 };

static void release_item(LongbenchItem *item)
{
    json_decref(item->answers);
    json_decref(item->classes);
    free(item->id);
    free(item->ids);
}

void longbench_items_release(LongbenchItems *items)
{
    for (int64_t i = 0; i < items->n; i++)
        release_item(&items->items[i]);
    free(items->items);
    *items = (LongbenchItems){0};
}

// ---- lengths -----------------------------------------------------------------------------------

static void append_name(char names[NAMES_BYTES], const char *name)
{
    const size_t length = strlen(names);
    snprintf(names + length, NAMES_BYTES - length, "%s%s", length > 0 ? "," : "", name);
}

Status longbench_check_length(const LongbenchFiles *files, int64_t max_length)
{
    char fitting[NAMES_BYTES] = "", others[NAMES_BYTES] = "";
    int longest = 0;
    for (int f = 0; f < files->n; f++) {
        const LongbenchSet *set = &files->items[f].set;
        const bool fits = set->max_gen < max_length;
        append_name(fits ? fitting : others, set->name);
        longest = set->max_gen > longest ? set->max_gen : longest;
    }
    if (others[0] == '\0')
        return OK;
    return fail(BAD_INPUT,
                "%s: answers have up to %d tokens, prompt and answer together %lld; give a longer "
                "--max-length%s%s",
                others, longest, (long long)max_length, fitting[0] != '\0' ? " or --only " : "",
                fitting);
}

// ---- texts -------------------------------------------------------------------------------------

// Bytes of the first n characters, at most all, of a text that is valid UTF-8.
static int64_t bytes_of_characters(const char *text, int64_t size, int64_t n)
{
    int64_t at = 0;
    for (; n > 0 && at < size; n--)
        at += utf8_length((unsigned char)text[at]);
    return at;
}

static int64_t count_characters(const char *text, int64_t size)
{
    int64_t n = 0;
    for (int64_t at = 0; at < size; n++)
        at += utf8_length((unsigned char)text[at]);
    return n;
}

// Appends a context, of which 8 T characters stay.
static Status append_context(Bytes *out, bool *is_cut, const json_t *context, int64_t max_length)
{
    const char *text = json_string_value(context);
    const int64_t size = (int64_t)json_string_length(context), most = 8 * max_length;
    const int64_t n = size > most ? count_characters(text, size) : 0;
    if (n <= most)
        return bytes_append(out, text, size);
    *is_cut = true;
    const int64_t tail = bytes_of_characters(text, size, n - most / 2);
    TRY(bytes_append(out, text, bytes_of_characters(text, size, most / 2)));
    return bytes_append(out, text + tail, size - tail);
}

// The row's text for the field "{NAME}" at `field`. LongBench's "input" is called "question" where
// its rows come as parquet.
static Status find_text(const json_t **out, const json_t *row, const char *field, size_t length,
                        const char *where)
{
    char key[32];
    snprintf(key, sizeof key, "%.*s", (int)length - 2, field + 1);
    const json_t *text = json_object_get(row, key);
    if (text == NULL && strcmp(key, "input") == 0)
        text = json_object_get(row, "question");
    if (text == NULL && strcmp(key, "input") == 0)
        return fail(BAD_INPUT, "%s: has neither 'input' nor 'question'", where);
    if (text == NULL && strcmp(key, "answer_prefix") != 0)
        return fail(BAD_INPUT, "%s: '%s' is missing", where, key);
    if (text != NULL && !json_is_string(text))
        return fail(BAD_INPUT, "%s: '%s' is not a text", where, key);
    *out = text;
    return OK;
}

// The template is read once: braces in a row's text stay as they are.
static Status fill_template(Bytes *out, bool *is_cut, const LongbenchSet *set, const json_t *row,
                            int64_t max_length, const char *where)
{
    static const char context_field[] = "{context}";
    const char *at = set->template;
    for (;;) {
        const size_t n = strcspn(at, "{");
        TRY(bytes_append(out, at, (int64_t)n));
        at += n;
        if (*at == '\0')
            return OK;
        const json_t *text;
        const size_t length = strcspn(at, "}") + 1;
        TRY(find_text(&text, row, at, length, where));
        if (strncmp(at, context_field, sizeof context_field - 1) == 0)
            TRY(append_context(out, is_cut, text, max_length));
        else if (text != NULL)
            TRY(bytes_append(out, json_string_value(text), (int64_t)json_string_length(text)));
        at += length;
    }
}

// ---- tokens ------------------------------------------------------------------------------------

static Status check_ids(const TokenBuffer *buffer, const LongbenchPrompting *how, const char *where)
{
    if (buffer->count == 0)
        return fail(BAD_INPUT, "%s: the prompt is empty", where);
    for (int64_t i = 0; i < buffer->count; i++)
        if (buffer->ids[i] >= how->vocab_size)
            return fail(BAD_INPUT,
                        "%s: token %lld has id %d, the model has ids 0 to %d: the tokenizer in %s "
                        "is another model's",
                        where, (long long)i + 1, (int)buffer->ids[i], how->vocab_size - 1,
                        how->model);
    return OK;
}

static Status cut_ids(LongbenchItem *item, const TokenBuffer *buffer, int64_t most,
                      const char *where)
{
    const int64_t n = buffer->count < most ? buffer->count : most, tail = n / 2, head = n - tail;
    item->ids = malloc((size_t)n * sizeof *item->ids);
    if (item->ids == NULL)
        return fail(FAILED, "%s: no memory for %lld tokens", where, (long long)n);
    memcpy(item->ids, buffer->ids, (size_t)head * sizeof *item->ids);
    memcpy(item->ids + head, buffer->ids + buffer->count - tail, (size_t)tail * sizeof *item->ids);
    item->n_ids = n;
    item->n_whole = buffer->count;
    item->is_cut |= buffer->count > n;
    return checksum_sha256_bytes(item->sha256, item->ids, n * (int64_t)sizeof *item->ids);
}

static Status make_prompt(LongbenchItem *item, TokenBuffer *buffer, const LongbenchSet *set,
                          const json_t *row, const LongbenchPrompting *how, const char *where)
{
    Status status;
    Bytes text = {0};
    buffer->count = 0;
    TRY_GOTO(release, fill_template(&text, &item->is_cut, set, row, how->max_length, where));
    TRY_GOTO(release, tokenizer_encode(how->tokenizer, buffer, text.data != NULL ? text.data : "",
                                       text.size, true));
    TRY_GOTO(release, check_ids(buffer, how, where));
    status = cut_ids(item, buffer, how->max_length - set->max_gen, where);
release:
    bytes_release(&text);
    return status;
}

// ---- answers -----------------------------------------------------------------------------------

static bool is_list_of_texts(const json_t *list)
{
    const size_t n = json_array_size(list); // 0 of what is no list
    for (size_t i = 0; i < n; i++)
        if (!json_is_string(json_array_get(list, i)))
            return false;
    return n > 0;
}

static Status read_answers(LongbenchItem *item, const LongbenchSet *set, const json_t *row,
                           const char *where)
{
    const char *key = !set->is_needle                           ? "answers"
                      : json_object_get(row, "outputs") != NULL ? "outputs"
                                                                : "target";
    json_t *answers = json_object_get(row, key), *classes = json_object_get(row, "all_classes");
    if (answers == NULL)
        return fail(BAD_INPUT, "%s: '%s' is missing", where, key);
    item->answers = json_is_string(answers) ? json_pack("[O]", answers) : json_incref(answers);
    if (!is_list_of_texts(item->answers))
        return fail(BAD_INPUT, "%s: '%s' is not a list of one text or more", where, key);
    if (set->metric == LONGBENCH_CLASSIFICATION && !is_list_of_texts(classes))
        return fail(BAD_INPUT, "%s: 'all_classes' is not a list of one text or more", where);
    item->classes = json_is_array(classes) ? json_incref(classes) : NULL;
    return OK;
}

static Status name_item(LongbenchItem *item, const json_t *row)
{
    char number[32];
    const json_t *id = json_object_get(row, "_id");
    const json_t *index = json_object_get(row, "index");
    snprintf(number, sizeof number, "%lld",
             json_is_integer(index) ? (long long)json_integer_value(index) : (long long)item->row);
    item->id = strdup(json_is_string(id) ? json_string_value(id) : number);
    return item->id != NULL ? OK : fail(FAILED, "no memory for the id of a row");
}

static AnswerText *list_texts(const json_t *list)
{
    const size_t n = json_array_size(list);
    AnswerText *texts = malloc((n + 1) * sizeof *texts);
    for (size_t i = 0; i < n && texts != NULL; i++) {
        const json_t *text = json_array_get(list, i);
        texts[i] = (AnswerText){json_string_value(text), (int64_t)json_string_length(text)};
    }
    return texts;
}

Status longbench_score_item(LongbenchItemScore *out, const LongbenchSet *set,
                            const LongbenchItem *item, AnswerText prediction)
{
    Status status;
    LongbenchItemScore score = {.levenshtein = NAN};
    AnswerText *references = list_texts(item->answers), *classes = list_texts(item->classes);
    const AnswerKey key = {references, (int)json_array_size(item->answers), classes,
                           (int)json_array_size(item->classes)};
    status = references != NULL && classes != NULL
                 ? longbench_score(&score.score, set, prediction, &key)
                 : fail(FAILED, "no memory for the answers of a row");
    if (status == OK && set->metric == LONGBENCH_EDIT_SIM)
        status = answer_score(&score.levenshtein, ANSWER_EDIT_SIM_INDEL, set->first_line_only,
                              prediction, &key);
    if (status == OK)
        *out = score;
    free(references);
    free(classes);
    return status;
}

// ---- rows --------------------------------------------------------------------------------------

// The item is released by the caller, whatever fails.
static Status read_item(LongbenchItem *item, TokenBuffer *buffer, const LongbenchSet *set,
                        const json_t *row, const LongbenchPrompting *how, const char *where)
{
    LongbenchItemScore score;
    TRY(name_item(item, row));
    TRY(read_answers(item, set, row, where));
    // What cannot be scored is refused before anything is decoded.
    if (longbench_score_item(&score, set, item, (AnswerText){"", 0}) != OK)
        return fail_within(BAD_INPUT, "%s", where);
    return make_prompt(item, buffer, set, row, how, where);
}

static Status add_row(LongbenchItems *items, TokenBuffer *buffer, const LongbenchSet *set,
                      const json_t *row, const LongbenchPrompting *how, const JsonLines *lines)
{
    char where[WHERE_BYTES];
    if (items->n == items->capacity) {
        const int64_t capacity = items->capacity > 0 ? 2 * items->capacity : 16;
        LongbenchItem *larger = realloc(items->items, (size_t)capacity * sizeof *larger);
        if (larger == NULL)
            return fail(FAILED, "%s: no memory for %lld rows", lines->path, (long long)capacity);
        items->items = larger;
        items->capacity = capacity;
    }
    snprintf(where, sizeof where, "%s:%d", lines->path, lines->number);
    LongbenchItem *item = &items->items[items->n];
    *item = (LongbenchItem){.row = items->n};
    items->n++; // releasing all of them releases it, too
    return read_item(item, buffer, set, row, how, where);
}

Status longbench_read_items(LongbenchItems *out, const LongbenchFile *file,
                            const LongbenchPrompting *how)
{
    Status status = OK;
    LongbenchItems items = {0};
    TokenBuffer buffer = {0};
    JsonLines lines;
    TRY(json_lines_open(&lines, file->path));
    for (;; items.n_rows++) {
        json_t *row;
        TRY_GOTO(close_lines, json_lines_next(&row, &lines));
        if (row == NULL)
            break;
        if (how->limit == 0 || items.n < how->limit)
            status = add_row(&items, &buffer, &file->set, row, how, &lines);
        json_decref(row);
        TRY_GOTO(close_lines, status);
    }
    if (items.n == 0)
        status = fail(BAD_INPUT, "%s: has no rows", file->path);
close_lines:
    json_lines_close(&lines);
    token_buffer_release(&buffer);
    if (status == OK)
        *out = items;
    else
        longbench_items_release(&items);
    return status;
}
