// The steps of tokenizer.json: normalizer, pre-tokenizer, post-processor, decoder. A Sequence is
// flattened; its depth is bounded by the JSON parser's. Every kind of step has its list of keys,
// and a key beside them is refused: the library would act on it. A step counts as taken before it
// is read, so that steps_release() frees what a failed one has allocated.
#include "data/tokenizer/tokenizer_parts.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

// Copied, since the JSON is freed after loading.
static Status copy_string(Bytes *out, const json_t *object, const char *where, const char *key)
{
    const char *text;
    TRY(json_get_string(&text, object, where, key));
    return bytes_append(out, text, (int64_t)strlen(text));
}

// The members of a Sequence; BAD_INPUT unless `key` is a list.
static Status get_list(const json_t **out, const json_t *object, const char *where, const char *key)
{
    const json_t *list = json_object_get(object, key);
    if (!json_is_array(list))
        return fail(BAD_INPUT, "%s: '%s' is missing or not a list", where, key);
    *out = list;
    return OK;
}

// Counts one more step of a fixed array. No known tokenizer has as many as fit.
static Status take_step(int *n, const char *where)
{
    if (*n == TOKENIZER_MAX_STEPS)
        return fail(BAD_INPUT, "%s: more than %d steps", where, TOKENIZER_MAX_STEPS);
    ++*n;
    return OK;
}

// {"String": "..."} or {"Regex": "..."}; *is_regex tells which. The text is not empty.
static Status read_pattern(const char **out, bool *is_regex, const json_t *object,
                           const char *where)
{
    const json_t *pattern = json_object_get(object, "pattern");
    TRY(tokenizer_only_keys(pattern, where, " String Regex "));
    if (json_object_size(pattern) != 1)
        return fail(BAD_INPUT, "%s: 'pattern' is not one String or Regex", where);
    *is_regex = json_object_get(pattern, "Regex") != NULL;
    TRY(json_get_string(out, pattern, where, *is_regex ? "Regex" : "String"));
    if (**out == '\0')
        return fail(BAD_INPUT, "%s: has an empty pattern", where);
    return OK;
}

static Status compile_pattern(Pattern **out, bool is_regex, const char *text, const char *where)
{
    Status status = is_regex ? pattern_compile_regex(out, text) : pattern_compile_text(out, text);
    return status == OK ? OK : fail_within(status, "%s", where);
}

// "Replace", in a normalizer as in a decoder: a plain text is searched as it is, only a Regex
// compiled.
static Status read_replace(TextStep *step, const json_t *object, const char *where)
{
    const char *text;
    bool is_regex;
    TRY(tokenizer_only_keys(object, where, " type pattern content "));
    TRY(read_pattern(&text, &is_regex, object, where));
    TRY(copy_string(&step->content, object, where, "content"));
    if (is_regex)
        return compile_pattern(&step->regex, true, text, where);
    return bytes_append(&step->pattern, text, (int64_t)strlen(text));
}

// {name, value} lists of what tokenizer.json writes as a string; -1 if there is no such name.
typedef struct NamedValue {
    const char *name;
    int value;
} NamedValue;

// Names are compared exactly, as serde does.
static int value_of(const NamedValue *list, const char *name)
{
    while (list->name != NULL && strcmp(list->name, name) != 0)
        list++;
    return list->name != NULL ? list->value : -1;
}

static const NamedValue normal_forms[] = {
    {"NFC", NORMAL_C}, {"NFD", NORMAL_D}, {"NFKC", NORMAL_KC}, {"NFKD", NORMAL_KD}, {NULL, 0},
};

// SplitDelimiterBehavior of the library.
static const NamedValue behaviors[] = {
    {"Isolated", BEHAVIOR_ISOLATED},
    {"Removed", BEHAVIOR_REMOVED},
    {"MergedWithPrevious", BEHAVIOR_MERGED_WITH_PREVIOUS},
    {"MergedWithNext", BEHAVIOR_MERGED_WITH_NEXT},
    {"Contiguous", BEHAVIOR_CONTIGUOUS},
    {NULL, 0},
};

static const NamedValue prepend_schemes[] = {
    {"always", PREPEND_ALWAYS},
    {"first", PREPEND_FIRST},
    {"never", PREPEND_NEVER},
    {NULL, 0},
};

// What Metaspace says as pre-tokenizer and as decoder alike. Files from before prepend_scheme have
// add_prefix_space alone; "str_rep" repeats the replacement.
static Status read_metaspace(Bytes *mark, PrependScheme *prepend, bool *split, const json_t *object,
                             const char *where)
{
    bool prefix;
    const char *scheme = NULL;
    TRY(tokenizer_only_keys(object, where,
                            " type replacement str_rep add_prefix_space prepend_scheme split "));
    TRY(copy_string(mark, object, where, "replacement"));
    if (mark->size == 0 || utf8_length((unsigned char)mark->data[0]) != mark->size)
        return fail(BAD_INPUT, "%s: Metaspace's 'replacement' is not one character", where);
    TRY(json_get_bool_or(&prefix, object, where, "add_prefix_space", true));
    TRY(json_get_bool_or(split, object, where, "split", true));
    if (json_has(object, "prepend_scheme"))
        TRY(json_get_string(&scheme, object, where, "prepend_scheme"));
    int value = value_of(prepend_schemes, scheme != NULL ? scheme : prefix ? "always" : "never");
    if (value < 0)
        return fail(BAD_INPUT, "%s: prepend_scheme '%.100s' is not supported", where, scheme);
    if (!prefix && value != PREPEND_NEVER)
        return fail(BAD_INPUT, "%s: 'add_prefix_space' is false, but 'prepend_scheme' is '%s'",
                    where, scheme);
    *prepend = (PrependScheme)value;
    return OK;
}

// A Sequence calls itself for its members, so steps are appended in their order.
Status steps_read_normalizer(Tokenizer *t, const json_t *object, const char *where)
{
    const char *type;
    TRY(json_get_string(&type, object, where, "type"));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TRY(tokenizer_only_keys(object, where, " type normalizers "));
        TRY(get_list(&list, object, where, "normalizers"));
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(steps_read_normalizer(t, json_array_get(list, i), where));
        return OK;
    }
    TextStep *step = &t->normalizer[t->n_normalizer];
    TRY(take_step(&t->n_normalizer, where));
    if (strcmp(type, "Prepend") == 0) {
        step->kind = STEP_PREPEND;
        TRY(tokenizer_only_keys(object, where, " type prepend "));
        return copy_string(&step->content, object, where, "prepend");
    }
    if (strcmp(type, "Replace") == 0) {
        step->kind = STEP_REPLACE;
        return read_replace(step, object, where);
    }
    int form = value_of(normal_forms, type);
    if (form >= 0) {
        step->kind = STEP_NORMALIZE;
        step->form = (NormalForm)form;
        return tokenizer_only_keys(object, where, " type ");
    }
    return fail(BAD_INPUT, "%s: type '%.100s' is not supported", where, type);
}

// trim_offsets is read to check its type: it changes where tokens are said to lie, not their ids.
static Status read_byte_level(Tokenizer *t, SplitStep *step, const json_t *object,
                              const char *where)
{
    bool use_regex, trim;
    TRY(tokenizer_only_keys(object, where, " type add_prefix_space trim_offsets use_regex "));
    TRY(json_get_bool(&step->add_prefix_space, object, where, "add_prefix_space"));
    TRY(json_get_bool_or(&trim, object, where, "trim_offsets", true));
    TRY(json_get_bool_or(&use_regex, object, where, "use_regex", true));
    // The model then looks up single bytes under their stand-in characters.
    t->has_byte_level = true;
    step->kind = use_regex ? SPLIT_PATTERN : SPLIT_NONE;
    return use_regex ? pattern_compile_regex(&step->pattern, PATTERN_GPT2) : OK;
}

// "Split": the pattern says where, the behavior what becomes of the matches, invert swaps the two.
static Status read_split(SplitStep *step, const json_t *object, const char *where)
{
    const char *text, *behavior;
    bool is_regex;
    TRY(tokenizer_only_keys(object, where, " type pattern behavior invert "));
    TRY(read_pattern(&text, &is_regex, object, where));
    TRY(json_get_string(&behavior, object, where, "behavior"));
    TRY(json_get_bool(&step->invert, object, where, "invert"));
    int value = value_of(behaviors, behavior);
    if (value < 0)
        return fail(BAD_INPUT, "%s: Split's behavior '%.100s' is not supported", where, behavior);
    step->kind = SPLIT_PATTERN;
    step->behavior = (SplitBehavior)value;
    if (is_regex && (step->regex = strdup(text)) == NULL)
        return fail(FAILED, "%s: no memory for a pattern", where);
    return compile_pattern(&step->pattern, is_regex, text, where);
}

// "first" asks for where a piece was in the text before the normalizer. That is its place now
// only if nothing was put before the text's beginning or taken from it.
static Status check_first(const Tokenizer *t, const char *where)
{
    if (t->n_splits > 1)
        return fail(BAD_INPUT,
                    "%s: Metaspace with prepend_scheme 'first' after another step is "
                    "not supported",
                    where);
    for (int i = 0; i < t->n_normalizer; i++) {
        const TextStep *step = &t->normalizer[i];
        if (step->kind == STEP_PREPEND || (step->kind == STEP_REPLACE && step->content.size == 0))
            return fail(BAD_INPUT,
                        "%s: Metaspace with prepend_scheme 'first' after a normalizer "
                        "that prepends or removes is not supported",
                        where);
    }
    return OK;
}

// "Metaspace" as a pre-tokenizer: spaces become U+2581, and a piece begins at each.
static Status read_metaspace_split(Tokenizer *t, SplitStep *step, const json_t *object,
                                   const char *where)
{
    for (int i = 0; i < t->n_splits; i++)
        if (t->splits[i].kind == SPLIT_METASPACE)
            return fail(BAD_INPUT, "%s: a second Metaspace is not supported", where);
    TRY(read_metaspace(&step->mark, &step->prepend, &step->cut_at_marks, object, where));
    step->kind = SPLIT_METASPACE;
    return step->prepend == PREPEND_FIRST ? check_first(t, where) : OK;
}

Status steps_read_pre_tokenizer(Tokenizer *t, const json_t *object, const char *where)
{
    const char *type;
    TRY(json_get_string(&type, object, where, "type"));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TRY(tokenizer_only_keys(object, where, " type pretokenizers "));
        TRY(get_list(&list, object, where, "pretokenizers"));
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(steps_read_pre_tokenizer(t, json_array_get(list, i), where));
        return OK;
    }
    // What follows ByteLevel would see its stand-in characters instead of the text.
    if (t->has_byte_level)
        return fail(BAD_INPUT, "%s: type '%.100s' after ByteLevel is not supported", where, type);
    SplitStep *step = &t->splits[t->n_splits];
    TRY(take_step(&t->n_splits, where));
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(t, step, object, where);
    if (strcmp(type, "Digits") == 0) {
        bool individual;
        TRY(tokenizer_only_keys(object, where, " type individual_digits "));
        TRY(json_get_bool(&individual, object, where, "individual_digits"));
        step->kind = individual ? SPLIT_EACH_DIGIT : SPLIT_DIGIT_RUNS;
        return pattern_compile_class(&step->pattern, CLASS_NUMERIC);
    }
    if (strcmp(type, "Split") == 0)
        return read_split(step, object, where);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace_split(t, step, object, where);
    return fail(BAD_INPUT, "%s: type '%.100s' is not supported", where, type);
}

// "Strip": sentencepiece's decoders use it for the space that encoding has put before the text.
static Status read_strip(TextStep *step, const json_t *object, const char *where)
{
    TRY(tokenizer_only_keys(object, where, " type content start stop "));
    TRY(copy_string(&step->content, object, where, "content"));
    if (step->content.size == 0 ||
        utf8_length((unsigned char)step->content.data[0]) != step->content.size)
        return fail(BAD_INPUT, "%s: Strip's 'content' is not one character", where);
    TRY(json_get_int(&step->start, object, where, "start", 0, INT32_MAX));
    return json_get_int(&step->stop, object, where, "stop", 0, INT32_MAX);
}

// BPEDecoder, WordPiece, CTC belong to other models than the BPE that is read, so they are refused
// below.
Status steps_read_decoder(Tokenizer *t, const json_t *object, const char *where)
{
    const char *type;
    TRY(json_get_string(&type, object, where, "type"));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TRY(tokenizer_only_keys(object, where, " type decoders "));
        TRY(get_list(&list, object, where, "decoders"));
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(steps_read_decoder(t, json_array_get(list, i), where));
        return OK;
    }
    TextStep *step = &t->decoder[t->n_decoder];
    TRY(take_step(&t->n_decoder, where));
    if (strcmp(type, "Replace") == 0) {
        step->kind = STEP_REPLACE;
        return read_replace(step, object, where);
    }
    if (strcmp(type, "Metaspace") == 0) {
        PrependScheme prepend;
        bool split; // says nothing about decoding
        step->kind = STEP_METASPACE;
        TRY(read_metaspace(&step->pattern, &prepend, &split, object, where));
        step->first = prepend != PREPEND_NEVER;
        return OK;
    }
    if (strcmp(type, "Strip") == 0) {
        step->kind = STEP_STRIP;
        return read_strip(step, object, where);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        step->kind = STEP_BYTE_LEVEL;
        return tokenizer_only_keys(object, where, " type add_prefix_space trim_offsets use_regex ");
    }
    if (strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0) {
        step->kind = type[0] == 'F' ? STEP_FUSE : STEP_BYTE_FALLBACK;
        return tokenizer_only_keys(object, where, " type ");
    }
    return fail(BAD_INPUT, "%s: type '%.100s' is not supported", where, type);
}

// Appends the ids that the template's special token `name` stands for.
static Status read_template_token(const Tokenizer *t, const json_t *object, const char *where,
                                  const char *name, int32_t *ids, int *n)
{
    const json_t *list;
    const json_t *token = json_object_get(json_object_get(object, "special_tokens"), name);
    if (token == NULL)
        return fail(BAD_INPUT, "%s: special token '%.100s' of the template is not defined", where,
                    name);
    TRY(get_list(&list, token, where, "ids"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);
        int64_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        // The file gives ids besides the names of tokens; the library uses the ids.
        if (value < 0 || value >= t->model.vocab.n_ids || t->model.vocab.tokens[value].text == NULL)
            return fail(BAD_INPUT, "%s: special token '%.100s' has an id of no token (%lld)", where,
                        name, (long long)value);
        if (*n == TOKENIZER_MAX_TEMPLATE)
            return fail(BAD_INPUT, "%s: the template adds more than %d tokens", where,
                        TOKENIZER_MAX_TEMPLATE);
        ids[(*n)++] = (int32_t)value;
    }
    return OK;
}

// "single": special tokens around one sequence A. "pair" is for two texts, which is not done here.
static Status read_template(Tokenizer *t, const json_t *object, const char *where)
{
    const json_t *single;
    bool after_text = false;
    TRY(tokenizer_only_keys(object, where, " type single pair special_tokens "));
    TRY(get_list(&single, object, where, "single"));
    // Two templates would each add their tokens around the text of the other.
    if (t->has_template)
        return fail(BAD_INPUT, "%s: a second TemplateProcessing is not supported", where);
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        TRY(tokenizer_only_keys(piece, where, " SpecialToken Sequence "));
        const json_t *sequence = json_object_get(piece, "Sequence");
        const json_t *token = json_object_get(piece, "SpecialToken");
        const char *id;
        TRY(json_get_string(&id, sequence != NULL ? sequence : token, where, "id"));
        if (sequence == NULL) {
            TRY(read_template_token(t, object, where, id, after_text ? t->suffix : t->prefix,
                                    after_text ? &t->n_suffix : &t->n_prefix));
        } else if (token == NULL && !after_text && strcmp(id, "A") == 0) {
            after_text = true;
        } else {
            return fail(BAD_INPUT, "%s: 'single' is not one sequence A and special tokens", where);
        }
    }
    if (!after_text)
        return fail(BAD_INPUT, "%s: 'single' is not one sequence A and special tokens", where);
    t->has_template = true;
    return OK;
}

Status steps_read_post_processor(Tokenizer *t, const json_t *object, const char *where)
{
    const char *type;
    TRY(json_get_string(&type, object, where, "type"));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list;
        TRY(tokenizer_only_keys(object, where, " type processors "));
        TRY(get_list(&list, object, where, "processors"));
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(steps_read_post_processor(t, json_array_get(list, i), where));
        return OK;
    }
    if (strcmp(type, "ByteLevel") == 0) // changes offsets only
        return tokenizer_only_keys(object, where, " type add_prefix_space trim_offsets use_regex ");
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, object, where);
    return fail(BAD_INPUT, "%s: type '%.100s' is not supported", where, type);
}

static void step_release(TextStep *step)
{
    bytes_release(&step->pattern);
    bytes_release(&step->content);
    pattern_release(step->regex);
}

// Arrays of fixed size: only what the steps own is freed.
void steps_release(Tokenizer *t)
{
    for (int i = 0; i < t->n_normalizer; i++)
        step_release(&t->normalizer[i]);
    for (int i = 0; i < t->n_decoder; i++)
        step_release(&t->decoder[i]);
    for (int i = 0; i < t->n_splits; i++) {
        pattern_release(t->splits[i].pattern);
        free(t->splits[i].regex);
        bytes_release(&t->splits[i].mark);
    }
}
