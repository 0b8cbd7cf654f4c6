// Text for a terminal of 80 columns: it is read there, and piped into pagers and mails.
#include "train/cli/command/help.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

enum { N_COLUMNS = 80, USAGE_INDENT = 11, PIECE_BYTES = 128 };

// Prints pieces of text, and begins a new line before one that would pass the last column. A piece,
// such as "[--out DIR]", is never broken.
typedef struct Wrapper {
    FILE *out;
    int column, indent; // of the next character; of every line after the first
} Wrapper;

static void wrap_piece(Wrapper *wrapper, const char *piece, int length)
{
    if (wrapper->column + 1 + length > N_COLUMNS) {
        fprintf(wrapper->out, "\n%*s", wrapper->indent, "");
        wrapper->column = wrapper->indent;
    } else if (wrapper->column > wrapper->indent) {
        fputc(' ', wrapper->out);
        wrapper->column++;
    }
    fprintf(wrapper->out, "%.*s", length, piece);
    wrapper->column += length;
}

static void wrap_text(Wrapper *wrapper, const char *text)
{
    while (*text != '\0') {
        const int length = (int)strcspn(text, " ");
        if (length > 0)
            wrap_piece(wrapper, text, length);
        text += length + (text[length] == ' ');
    }
}

// ---- notes on an option ------------------------------------------------------------------------

// Notes are joined by semicolons. They come from tables, so one that is too long is a mistake in a
// table.
__attribute__((format(printf, 2, 3))) static void add_note(char out[HELP_NOTES_BYTES],
                                                           const char *format, ...)
{
    size_t used = strlen(out);
    if (used > 0)
        used += (size_t)snprintf(out + used, HELP_NOTES_BYTES - used, "; ");
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(out + used, HELP_NOTES_BYTES - used, format, arguments);
    va_end(arguments);
    CHECK(length >= 0 && used + (size_t)length < HELP_NOTES_BYTES, "notes '%s' are too long", out);
}

static void add_bounds(char out[HELP_NOTES_BYTES], const Option *option)
{
    char names[HELP_NOTES_BYTES] = "";
    switch (option->kind) {
    case OPTION_INT:
        // A bound that is the largest number of its type tells the user nothing.
        if (option->max >= INT32_MAX)
            add_note(out, "at least %lld", (long long)option->min);
        else
            add_note(out, "%lld to %lld", (long long)option->min, (long long)option->max);
        return;
    case OPTION_REAL:
        add_note(out, "%lld to %lld", (long long)option->min, (long long)option->max);
        return;
    case OPTION_POSITIVE:
        add_note(out, "more than 0, at most %.10g", (double)option->max);
        return;
    case OPTION_CHOICE:
        for (int i = 0; option->choices[i] != NULL; i++)
            snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s",
                     i > 0 ? ", " : "one of ", option->choices[i]);
        add_note(out, "%s", names);
        return;
    default:
        return;
    }
}

// A value outside the bounds stands for "not given" and is not shown as a default.
static void add_default(char out[HELP_NOTES_BYTES], const Command *command, const Option *option)
{
    const void *value = (const char *)command->defaults + option->offset;
    if (option->kind == OPTION_TEXTS)
        add_note(out, "may be repeated");
    if (option->required) {
        add_note(out, "required");
    } else if (option->derived != NULL) {
        add_note(out, "default: %s", option->derived);
    } else if (option->kind == OPTION_INT) {
        const int64_t number = *(const int64_t *)value;
        if (number >= option->min && number <= option->max)
            add_note(out, "default %lld", (long long)number);
    } else if (option->kind == OPTION_REAL || option->kind == OPTION_POSITIVE) {
        const double number = *(const double *)value;
        const bool is_set =
            option->kind == OPTION_REAL ? number >= (double)option->min : number > 0;
        if (is_set)
            add_note(out, "default %g", number);
    } else if (option->kind == OPTION_CHOICE) {
        const int choice = *(const int *)value;
        if (choice >= 0)
            add_note(out, "default %s", option->choices[choice]);
    } else if (option->kind == OPTION_TEXT) {
        const char *text = *(const char *const *)value;
        if (text != NULL)
            add_note(out, "default %s", text);
    }
}

void help_option_notes(char out[HELP_NOTES_BYTES], const Command *command, const Option *option)
{
    out[0] = '\0';
    add_bounds(out, option);
    add_default(out, command, option);
}

// ---- a command ---------------------------------------------------------------------------------

static const char *name_option(char out[PIECE_BYTES], const Option *option)
{
    const bool has_value = option->kind != OPTION_FLAG;
    snprintf(out, PIECE_BYTES, "--%s%s%s", option->name, has_value ? " " : "",
             has_value ? option->argument : "");
    return out;
}

// With its letter: "-n, --max-new N".
static const char *name_both(char out[PIECE_BYTES], const Option *option)
{
    char name[PIECE_BYTES];
    name_option(name, option);
    if (option->letter != 0)
        snprintf(out, PIECE_BYTES, "-%c, %.*s", option->letter, PIECE_BYTES - 5, name);
    else
        snprintf(out, PIECE_BYTES, "%s", name);
    return out;
}

// Words first and required options before optional ones, whatever their order in the table: the
// shortest command that works can be read from the left.
static void print_usage(FILE *out, const Command *command)
{
    char name[PIECE_BYTES], piece[PIECE_BYTES + 2];
    Wrapper wrapper = {out, fprintf(out, "usage: mha2mla %s", command->name), USAGE_INDENT};
    const Words *words = &command->words;
    if (words->name != NULL) {
        const int length =
            snprintf(piece, sizeof piece, "%s%s%s%s", words->min == 0 ? "[" : "", words->name,
                     words->max > 1 ? "..." : "", words->min == 0 ? "]" : "");
        wrap_piece(&wrapper, piece, length);
    }
    for (int is_optional = 0; is_optional < 2; is_optional++) { // required ones first
        for (int o = 0; o < command->n_options; o++) {
            const Option *option = &command->options[o];
            if (option->required == (is_optional != 0))
                continue;
            name_option(name, option);
            const int length =
                snprintf(piece, sizeof piece, option->required ? "%s" : "[%s]", name);
            wrap_piece(&wrapper, piece, length);
        }
    }
    if (command->takes_overrides)
        wrap_piece(&wrapper, "[--" HELP_OVERRIDE " ...]", (int)strlen("[--" HELP_OVERRIDE " ...]"));
    fputc('\n', out);
}

// The width of the first column: that of the longest name.
static int options_width(const Command *command)
{
    char name[PIECE_BYTES];
    int width = (int)strlen(command->takes_overrides ? "--" HELP_OVERRIDE : "--help");
    for (int o = 0; o < command->n_options; o++) {
        const int length = (int)strlen(name_both(name, &command->options[o]));
        width = length > width ? length : width;
    }
    return width;
}

// Name and text in two columns; the text continues below itself.
static void print_option(FILE *out, int width, const char *name, const char *text,
                         const char *notes)
{
    char note[HELP_NOTES_BYTES + 2];
    fprintf(out, "  %-*s  ", width, name);
    Wrapper wrapper = {out, width + 4, width + 4};
    wrap_text(&wrapper, text);
    snprintf(note, sizeof note, notes[0] != '\0' ? "(%s)" : "%s", notes);
    wrap_text(&wrapper, note);
    fputc('\n', out);
}

static void print_options(FILE *out, const Command *command)
{
    char name[PIECE_BYTES], notes[HELP_NOTES_BYTES];
    const int width = options_width(command);
    fputs("\nOptions:\n", out);
    for (int o = 0; o < command->n_options; o++) {
        help_option_notes(notes, command, &command->options[o]);
        print_option(out, width, name_both(name, &command->options[o]), command->options[o].help,
                     notes);
    }
    if (command->takes_overrides)
        print_option(out, width, "--" HELP_OVERRIDE, HELP_OVERRIDE_TEXT, "");
    print_option(out, width, "--help", "show this text", "");
}

void help_print_command(FILE *out, const Command *command)
{
    print_usage(out, command);
    fprintf(out, "\n%c%s.\n", toupper((unsigned char)command->summary[0]), command->summary + 1);
    if (command->description != NULL) {
        Wrapper wrapper = {out, 0, 0};
        fputc('\n', out);
        wrap_text(&wrapper, command->description);
        fputc('\n', out);
    }
    print_options(out, command);
    fprintf(out, "\nExample%s:\n", command->examples[1] != NULL ? "s" : "");
    for (int i = 0; command->examples[i] != NULL; i++)
        fprintf(out, "  %s\n", command->examples[i]);
}

void help_print_program(FILE *out, const Command *const *commands)
{
    fputs("usage: mha2mla COMMAND [ARGUMENTS]\n\n"
          "Converts Llama-family models to multi-head latent attention and heals them.\n\n",
          out);
    for (int i = 0; commands[i] != NULL; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nmha2mla COMMAND --help says more.\n", out);
}
