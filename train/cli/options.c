// One pass over argv. Words are moved to its front, so that they need no memory of their own.
#define _GNU_SOURCE
#include "train/cli/options.h"

#include "base/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPTIONS = 64 };

static void print_bounds_and_default(const Option *option)
{
    if (option->required) {
        printf(" (required)");
    } else if (option->kind == OPTION_INT) {
        // A value outside the bounds stands for "not given" and is no default to show.
        int64_t value = *(const int64_t *)option->value;
        if (value >= option->least && value <= option->most)
            printf(" (default %lld)", (long long)value);
    } else if (option->kind == OPTION_REAL) {
        const double value = *(const double *)option->value;
        if (value > (double)option->least && value <= (double)option->most)
            printf(" (default %g)", value);
    } else if (option->kind == OPTION_STRING) {
        const char *value = *(const char *const *)option->value;
        if (value != NULL)
            printf(" (default %s)", value);
    }
}

static void print_help(const Command *command, const Option *options, int n_options)
{
    char left[128];
    int width = (int)strlen("--help");
    for (int o = 0; o < n_options; o++) {
        bool has_argument = options[o].kind != OPTION_FLAG;
        int length = snprintf(left, sizeof left, "--%s%s%s", options[o].name,
                              has_argument ? " " : "", has_argument ? options[o].argument : "");
        if (length > width)
            width = length;
    }
    printf("usage: mha2mla %s %s\n\n%s\n\nOptions:\n", command->name, command->usage,
           command->summary);
    for (int o = 0; o < n_options; o++) {
        bool has_argument = options[o].kind != OPTION_FLAG;
        snprintf(left, sizeof left, "--%s%s%s", options[o].name, has_argument ? " " : "",
                 has_argument ? options[o].argument : "");
        printf("  %-*s  %s", width, left, options[o].help);
        print_bounds_and_default(&options[o]);
        putchar('\n');
    }
    printf("  %-*s  show this text\n\nExample:\n  %s\n", width, "--help", command->example);
}

static bool help_wanted(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

static Status unknown_option(const Command *command, const Option *options, int n_options,
                             const char *word, int name_length)
{
    const char *names[MOST_OPTIONS + 1];
    for (int o = 0; o < n_options; o++)
        names[o] = options[o].name;
    names[n_options] = "help";
    char name[SUGGEST_LONGEST_WORD + 2];
    snprintf(name, sizeof name, "%.*s", name_length, word + strspn(word, "-"));
    const char *nearest = suggest_nearest(name, names, n_options + 1);
    if (nearest != NULL)
        return fail(BAD_INPUT, "%s: unknown option %.200s; did you mean --%s?", command->name, word,
                    nearest);
    return fail(BAD_INPUT, "%s: unknown option %.200s; see mha2mla %s --help", command->name, word,
                command->name);
}

static const Option *find_option(const Option *options, int n_options, const char *name,
                                 int name_length)
{
    for (int o = 0; o < n_options; o++) {
        if ((int)strlen(options[o].name) == name_length &&
            memcmp(options[o].name, name, (size_t)name_length) == 0)
            return &options[o];
    }
    return NULL;
}

static Status set_real(const Command *command, const Option *option, const char *text)
{
    char *end;
    const double number = strtod(text, &end);
    const bool is_decimal = text[strspn(text, "+-.0123456789eE")] == '\0';
    if (!is_decimal || end == text || *end != '\0')
        return fail(BAD_INPUT, "%s: --%s is '%.200s', which is not a number", command->name,
                    option->name, text);
    if (!(number > (double)option->least && number <= (double)option->most))
        return fail(BAD_INPUT, "%s: --%s is %.200s, allowed is more than %lld, at most %lld",
                    command->name, option->name, text, (long long)option->least,
                    (long long)option->most);
    *(double *)option->value = number;
    return OK;
}

static Status set_value(const Command *command, const Option *option, char *text)
{
    if (option->kind == OPTION_STRING) {
        if (*text == '\0')
            return fail(BAD_INPUT, "%s: --%s is empty; give it as --%s %s", command->name,
                        option->name, option->name, option->argument);
        *(const char **)option->value = text;
        return OK;
    }
    if (option->kind == OPTION_REAL)
        return set_real(command, option, text);
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    bool starts_well = (*text >= '0' && *text <= '9') || *text == '-';
    if (!starts_well || end == text || *end != '\0')
        return fail(BAD_INPUT, "%s: --%s is '%.200s', which is not a whole number", command->name,
                    option->name, text);
    if (errno == ERANGE || number < option->least || number > option->most)
        return fail(BAD_INPUT, "%s: --%s is %.200s, allowed are %lld to %lld", command->name,
                    option->name, text, (long long)option->least, (long long)option->most);
    *(int64_t *)option->value = number;
    return OK;
}

// argv[*index] starts with "-": sets its option and steps over a value given as the next word.
static Status parse_option(bool *given, const Command *command, const Option *options,
                           int n_options, int argc, char **argv, int *index)
{
    char *word = argv[*index];
    size_t n_dashes = strspn(word, "-");
    char *name = word + n_dashes;
    int name_length = (int)strcspn(name, "=");
    const Option *option =
        n_dashes == 2 ? find_option(options, n_options, name, name_length) : NULL;
    if (option == NULL)
        return unknown_option(command, options, n_options, word, name_length);
    char *text = name[name_length] == '=' ? name + name_length + 1 : NULL;
    given[option - options] = true;
    if (option->kind == OPTION_FLAG) {
        if (text != NULL)
            return fail(BAD_INPUT, "%s: --%s takes no value, '%.200s' was given", command->name,
                        option->name, text);
        *(bool *)option->value = true;
        return OK;
    }
    if (text == NULL) {
        // "--out --eos 3" forgot a value more often than it means a file named --eos.
        if (*index + 1 >= argc || strncmp(argv[*index + 1], "--", 2) == 0)
            return fail(BAD_INPUT, "%s: --%s needs a value; give it as --%s %s", command->name,
                        option->name, option->name, option->argument);
        text = argv[++*index];
    }
    return set_value(command, option, text);
}

Status options_parse(Arguments *out, const Command *command, const Option *options, int n_options,
                     int argc, char **argv)
{
    CHECK(n_options >= 0 && n_options <= MOST_OPTIONS, "%s has %d options", command->name,
          n_options);
    for (int o = 0; o < n_options; o++)
        CHECK((options[o].kind != OPTION_INT && options[o].kind != OPTION_REAL) ||
                  options[o].least < options[o].most,
              "option --%s has no bounds", options[o].name);
    if (help_wanted(argc, argv)) {
        print_help(command, options, n_options);
        *out = (Arguments){.help_shown = true};
        return OK;
    }
    bool given[MOST_OPTIONS] = {false};
    int n_words = 0;
    bool is_option_possible = true;
    for (int i = 1; i < argc; i++) {
        if (is_option_possible && strcmp(argv[i], "--") == 0)
            is_option_possible = false;
        else if (is_option_possible && argv[i][0] == '-' && argv[i][1] != '\0')
            TRY(parse_option(given, command, options, n_options, argc, argv, &i));
        else
            argv[1 + n_words++] = argv[i];
    }
    for (int o = 0; o < n_options; o++) {
        if (options[o].required && !given[o])
            return fail(BAD_INPUT, "%s: --%s %s is missing; see mha2mla %s --help", command->name,
                        options[o].name, options[o].argument, command->name);
    }
    *out = (Arguments){.words = argv + (argc > 0), .n_words = n_words};
    return OK;
}
