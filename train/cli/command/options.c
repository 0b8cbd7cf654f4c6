// One pass over argv. Every argument is an option, the value of one, an override of a config key or
// a word. getopt_long() is not used: it accepts unambiguous prefixes, which break scripts when an
// option is added, it permutes argv, and its messages know no "did you mean".
#include "train/cli/command/options.h"

#include "base/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 64 };

typedef struct Parser {
    const Command *command;
    void *values;
    int argc;
    char **argv;
    int at;                  // index of the argument that is parsed
    bool given[MAX_OPTIONS]; // by the command's table
} Parser;

bool options_ask_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

// One dash, or one letter too many, is a slip that is worth a suggestion.
static Status unknown_option(const Command *command, const char *argument, int name_length)
{
    const char *names[MAX_OPTIONS + 1];
    for (int o = 0; o < command->n_options; o++)
        names[o] = command->options[o].name;
    names[command->n_options] = "help";
    char name[SUGGEST_LONGEST_WORD + 2];
    snprintf(name, sizeof name, "%.*s", name_length, argument + strspn(argument, "-"));
    const char *nearest = suggest_nearest(name, names, command->n_options + 1);
    if (nearest != NULL)
        return fail(BAD_INPUT, "%s: unknown option %.200s; did you mean --%s?", command->name,
                    argument, nearest);
    return fail(BAD_INPUT, "%s: unknown option %.200s; see mha2mla %s --help", command->name,
                argument, command->name);
}

// The whole name: prefixes are not accepted.
static const Option *find_option(const Command *command, const char *name, int name_length)
{
    for (int o = 0; o < command->n_options; o++) {
        const Option *option = &command->options[o];
        if ((int)strlen(option->name) == name_length &&
            memcmp(option->name, name, (size_t)name_length) == 0)
            return option;
    }
    return NULL;
}

// "-n": a letter alone, whose value is the next argument.
static const Option *find_letter(const Command *command, const char *argument)
{
    for (int o = 0; o < command->n_options; o++) {
        const Option *option = &command->options[o];
        if (option->letter != 0 && argument[1] == option->letter && argument[2] == '\0')
            return option;
    }
    return NULL;
}

// strtoll() skips blanks and accepts a plus sign, so the first character is checked as well.
static Status set_int(int64_t *value, const Command *command, const Option *option,
                      const char *text)
{
    char *end;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    const bool starts_well = (*text >= '0' && *text <= '9') || *text == '-';
    if (!starts_well || end == text || *end != '\0') {
        char hint[SUGGEST_WHOLE_BYTES];
        suggest_whole(hint, text);
        return fail(BAD_INPUT, "%s: --%s is '%.200s', which is not a whole number%s", command->name,
                    option->name, text, hint[0] != '\0' ? hint : "; it takes digits alone");
    }
    if (errno == ERANGE || number < option->min || number > option->max)
        return fail(BAD_INPUT, "%s: --%s is %.200s, allowed are %lld to %lld", command->name,
                    option->name, text, (long long)option->min, (long long)option->max);
    *value = number;
    return OK;
}

static Status set_real(double *value, const Command *command, const Option *option,
                       const char *text)
{
    char *end;
    const double number = strtod(text, &end);
    const bool is_decimal = text[strspn(text, "+-.0123456789eE")] == '\0'; // no hex, inf or nan
    const bool is_positive = option->kind == OPTION_POSITIVE;
    if (!is_decimal || end == text || *end != '\0')
        return fail(BAD_INPUT, "%s: --%s is '%.200s', which is not a number such as 0.5 or 5e-1",
                    command->name, option->name, text);
    if (is_positive && !(number > 0 && number <= (double)option->max))
        return fail(BAD_INPUT, "%s: --%s is %.200s, allowed is more than 0, at most %lld",
                    command->name, option->name, text, (long long)option->max);
    if (!is_positive && !(number >= (double)option->min && number <= (double)option->max))
        return fail(BAD_INPUT, "%s: --%s is %.200s, allowed are %lld to %lld", command->name,
                    option->name, text, (long long)option->min, (long long)option->max);
    *value = number;
    return OK;
}

// The index of `text` in choices; -1: it is none of them, and `out` lists what is allowed.
enum { CHOICES_BYTES = 256 };
static int find_choice(char out[CHOICES_BYTES], const char *const *choices, const char *text)
{
    size_t used = 0;
    for (int i = 0; choices[i] != NULL; i++) {
        if (strcmp(choices[i], text) == 0)
            return i;
        if (used < CHOICES_BYTES)
            used += (size_t)snprintf(out + used, CHOICES_BYTES - used, "%s%s", i > 0 ? ", " : "",
                                     choices[i]);
    }
    return -1;
}

static Status set_choice(int *value, const Command *command, const Option *option, const char *text)
{
    char allowed[CHOICES_BYTES];
    const int choice = find_choice(allowed, option->choices, text);
    if (choice < 0)
        return fail(BAD_INPUT, "%s: --%s is '%.200s', allowed are %s", command->name, option->name,
                    text, allowed);
    *value = choice;
    return OK;
}

static Status add_text(OptionTexts *texts, const Command *command, const Option *option,
                       const char *text)
{
    if (texts->n == MAX_OPTION_TEXTS)
        return fail(BAD_INPUT, "%s: --%s is given more than %d times", command->name, option->name,
                    MAX_OPTION_TEXTS);
    texts->items[texts->n++] = text;
    return OK;
}

// Texts are borrowed from argv, which lives as long as the process.
static Status set_value(const Parser *parser, const Option *option, char *text)
{
    void *value = (char *)parser->values + option->offset;
    switch (option->kind) {
    case OPTION_INT:
        return set_int(value, parser->command, option, text);
    case OPTION_REAL:
    case OPTION_POSITIVE:
        return set_real(value, parser->command, option, text);
    case OPTION_CHOICE:
        return set_choice(value, parser->command, option, text);
    default:
        if (*text == '\0' && !option->may_be_empty)
            return fail(BAD_INPUT, "%s: --%s is empty; give it as --%s %s", parser->command->name,
                        option->name, option->name, option->argument);
        if (option->kind == OPTION_TEXTS)
            return add_text(value, parser->command, option, text);
        *(const char **)value = text;
        return OK;
    }
}

// Takes the option at parser->at, and steps over a value that is an argument of its own.
static Status parse_option(Parser *parser)
{
    const Command *command = parser->command;
    char *argument = parser->argv[parser->at];
    const size_t n_dashes = strspn(argument, "-");
    char *name = argument + n_dashes;
    const int name_length = (int)strcspn(name, "=");
    const Option *option =
        n_dashes == 2 ? find_option(command, name, name_length) : find_letter(command, argument);
    if (option == NULL)
        return unknown_option(command, argument, name_length);
    char *text = name[name_length] == '=' ? name + name_length + 1 : NULL;
    parser->given[option - command->options] = true;
    if (option->kind == OPTION_FLAG) {
        if (text != NULL)
            return fail(BAD_INPUT, "%s: --%s takes no value, '%.200s' was given", command->name,
                        option->name, text);
        *(bool *)((char *)parser->values + option->offset) = true;
        return OK;
    }
    if (text == NULL) {
        // "--out --eos 3" forgot a value more often than it means a file named --eos.
        if (parser->at + 1 >= parser->argc || strncmp(parser->argv[parser->at + 1], "--", 2) == 0)
            return fail(BAD_INPUT, "%s: --%s needs a value; give it as --%s %s", command->name,
                        option->name, option->name, option->argument);
        text = parser->argv[++parser->at];
    }
    return set_value(parser, option, text);
}

// "--section.key": no option of the program has a dot in its name.
static bool is_override(const char *argument)
{
    return strncmp(argument, "--", 2) == 0 && memchr(argument, '.', strcspn(argument, "=")) != NULL;
}

// An override has its value behind "=": "--optim.lr 5e-4" could as well be a flag and a CONFIG.
static Status add_override(CommandLine *line, const Parser *parser)
{
    char *argument = parser->argv[parser->at];
    const char *next = parser->at + 1 < parser->argc ? parser->argv[parser->at + 1] : "--";
    if (strchr(argument, '=') == NULL)
        return fail(BAD_INPUT, "%s: %.200s has no value; write %.200s=%.200s",
                    parser->command->name, argument, argument,
                    strncmp(next, "--", 2) != 0 ? next : "VALUE");
    line->overrides[line->n_overrides++] = argument;
    return OK;
}

static Status parse_all(CommandLine *line, Parser *parser)
{
    bool is_option_possible = true;
    for (parser->at = 1; parser->at < parser->argc; parser->at++) {
        char *argument = parser->argv[parser->at];
        if (is_option_possible && strcmp(argument, "--") == 0)
            is_option_possible = false;
        else if (!is_option_possible || argument[0] != '-' || argument[1] == '\0')
            line->words[line->n_words++] = argument;
        else if (parser->command->takes_overrides && is_override(argument))
            TRY(add_override(line, parser));
        else
            TRY(parse_option(parser));
    }
    return OK;
}

static Status check_required(const Parser *parser)
{
    const Command *command = parser->command;
    for (int o = 0; o < command->n_options; o++) {
        const Option *option = &command->options[o];
        if (option->required && !parser->given[o])
            return fail(BAD_INPUT, "%s: --%s %s is missing; see mha2mla %s --help", command->name,
                        option->name, option->argument, command->name);
    }
    return OK;
}

static Status check_word_count(const Command *command, const CommandLine *line)
{
    const Words *words = &command->words;
    if (line->n_words >= words->min && line->n_words <= words->max)
        return OK;
    if (words->name == NULL)
        return fail(BAD_INPUT, "%s takes no arguments, '%.200s' was given; see mha2mla %s --help",
                    command->name, line->words[0], command->name);
    if (words->min == words->max)
        return fail(BAD_INPUT, "%s needs one %s, got %d; see mha2mla %s --help", command->name,
                    words->name, line->n_words, command->name);
    if (line->n_words < words->min)
        return fail(BAD_INPUT, "%s needs at least one %s; see mha2mla %s --help", command->name,
                    words->name, command->name);
    return fail(BAD_INPUT, "%s takes one %s at most, got %d; see mha2mla %s --help", command->name,
                words->name, line->n_words, command->name);
}

// An empty argument is nearly always an unset variable of a script.
static Status check_words(const Command *command, const CommandLine *line)
{
    char allowed[CHOICES_BYTES];
    TRY(check_word_count(command, line));
    for (int i = 0; i < line->n_words; i++)
        if (line->words[i][0] == '\0')
            return fail(BAD_INPUT, "%s: %s is empty", command->name, command->words.name);
    if (command->words.choices == NULL)
        return OK;
    for (int i = 0; i < line->n_words; i++)
        if (find_choice(allowed, command->words.choices, line->words[i]) < 0)
            return fail(BAD_INPUT, "%s: %s is '%.200s', allowed are %s", command->name,
                        command->words.name, line->words[i], allowed);
    return OK;
}

// Whether --help-config or the like is given: it needs none of what the work would need.
static bool is_query(const Parser *parser)
{
    for (int o = 0; o < parser->command->n_options; o++)
        if (parser->command->options[o].is_query && parser->given[o])
            return true;
    return false;
}

// A mistake in a table stops the command at once, so that it shows in every test.
static void check_table(const Command *command)
{
    CHECK(command->n_options <= MAX_OPTIONS, "%s has %d options", command->name,
          command->n_options);
    for (int o = 0; o < command->n_options; o++) {
        const Option *option = &command->options[o];
        const bool is_number = option->kind == OPTION_INT || option->kind == OPTION_REAL ||
                               option->kind == OPTION_POSITIVE;
        CHECK(!is_number || option->min < option->max, "%s --%s has no bounds", command->name,
              option->name);
        CHECK(option->letter != 'h', "%s --%s: -h is help", command->name, option->name);
        CHECK((option->kind == OPTION_CHOICE) == (option->choices != NULL), "%s --%s: choices",
              command->name, option->name);
    }
}

// A query such as --help-config asks for nothing else, so what is missing then is no error.
Status options_parse(CommandLine *out, void *values, const Command *command, int argc, char **argv)
{
    Parser parser = {.command = command, .values = values, .argc = argc, .argv = argv};
    CommandLine line = {.options = values};
    Status status;
    check_table(command);
    // One block for both lists, as neither can be longer than argc.
    line.words = calloc(2 * (size_t)argc + 1, sizeof *line.words);
    if (line.words == NULL)
        return fail(FAILED, "%s: no memory for %d arguments", command->name, argc);
    line.overrides = line.words + argc;
    if (command->options_bytes > 0)
        memcpy(values, command->defaults, command->options_bytes);
    TRY_GOTO(release, parse_all(&line, &parser));
    if (!is_query(&parser)) {
        TRY_GOTO(release, check_required(&parser));
        TRY_GOTO(release, check_words(command, &line));
    }
    *out = line;
    return OK;
release:
    options_release(&line);
    return status;
}

void options_release(CommandLine *line)
{
    free(line->words); // and the overrides, which lie behind them
    *line = (CommandLine){0};
}
