// mha2mla completion: a completion script for a shell, from the tables of the commands and of the
// config keys. It names every word itself and does not start the program, so that a key press is
// never slow. The build installs it.
#include "train/cli/command/command.h"
#include "train/config/config_table.h"

#include <stdio.h>
#include <string.h>

// What does not depend on the tables. Bash splits "--key=value" into three words, as "=" is in
// COMP_WORDBREAKS; `key` is the option or config key whose value is being completed.
static const char head[] =
    "# bash completion for mha2mla, as `mha2mla completion bash` prints it\n"
    "\n"
    "_mha2mla_words()\n"
    "{\n"
    "    mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$cur\")\n"
    "}\n"
    "\n"
    "_mha2mla_directories()\n"
    "{\n"
    "    compopt -o filenames 2>/dev/null\n"
    "    mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")\n"
    "}\n"
    "\n"
    "# Files of the pattern $1, and directories on the way to them.\n"
    "_mha2mla_files()\n"
    "{\n"
    "    compopt -o filenames 2>/dev/null\n"
    "    mapfile -t COMPREPLY < <(compgen -f -X \"!$1\" -- \"$cur\"; compgen -d -- \"$cur\")\n"
    "}\n"
    "\n"
    "# Options, and config keys: their sections first, all of a section's after its dot.\n"
    "_mha2mla_options()\n"
    "{\n"
    "    local words=$1\n"
    "    if [[ -n $2 && $cur == *.* ]]; then\n"
    "        words=$_mha2mla_keys\n"
    "    elif [[ -n $2 ]]; then\n"
    "        words+=\" $_mha2mla_sections\"\n"
    "    fi\n"
    "    _mha2mla_words \"$words\"\n"
    "    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]] &&\n"
    "        compopt -o nospace 2>/dev/null\n"
    "    return 0\n"
    "}\n"
    "\n";

static const char middle[] =
    "_mha2mla()\n"
    "{\n"
    "    local cur=${COMP_WORDS[COMP_CWORD]} key='' command=${COMP_WORDS[1]-}\n"
    "    COMPREPLY=()\n"
    "    if [[ $COMP_CWORD -le 1 ]]; then\n"
    "        _mha2mla_words \"$_mha2mla_commands --help --version\"\n"
    "        return\n"
    "    fi\n"
    "    if [[ $cur == '=' ]]; then\n"
    "        cur='' key=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    elif [[ ${COMP_WORDS[COMP_CWORD - 1]} == '=' ]]; then\n"
    "        key=${COMP_WORDS[COMP_CWORD - 2]}\n"
    "    elif [[ ${COMP_WORDS[COMP_CWORD - 1]} == -?* && $cur != --* ]]; then\n"
    "        key=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    fi\n"
    "    case $command:$key in\n";

static const char tail[] = "    esac\n"
                           "}\n"
                           "\n"
                           "complete -F _mha2mla mha2mla\n";

// A call that completes one of `choices` or a path of the kind `files`; nothing if neither is
// known.
static void write_value(FILE *out, const char *const *choices, const char *files)
{
    if (choices != NULL) {
        fputs("_mha2mla_words '", out);
        for (int i = 0; choices[i] != NULL; i++)
            fprintf(out, "%s%s", i > 0 ? " " : "", choices[i]);
        fputs("'", out);
    } else if (files != NULL && strcmp(files, ANY_DIRECTORY) == 0) {
        fputs("_mha2mla_directories", out);
    } else if (files != NULL) {
        fprintf(out, "_mha2mla_files '%s'", files);
    } else {
        fputs(":", out);
    }
}

// Keys and sections as shell variables. Keys of list items, data.sources[].name, cannot be set on
// the command line and are left out.
static void write_keys(FILE *out)
{
    fputs("_mha2mla_keys='", out);
    for (int k = 0; k < n_config_keys; k++)
        if (config_keys[k].kind != KEY_SECTION && strstr(config_keys[k].path, "[]") == NULL)
            fprintf(out, " --%s=", config_keys[k].path);
    fputs("'\n_mha2mla_sections='", out);
    for (int k = 0; k < n_config_keys; k++)
        if (config_keys[k].kind == KEY_SECTION)
            fprintf(out, " --%s.", config_keys[k].path);
    fputs("'\n", out);
}

static void write_names(FILE *out, const Command *const *commands)
{
    fputs("_mha2mla_commands='", out);
    for (int i = 0; commands[i] != NULL; i++)
        fprintf(out, " %s", commands[i]->name);
    fputs("'\n\n", out);
}

// The values of config keys are the same for all commands that take overrides. Keys of list items
// cannot be set on the command line.
static void write_key_values(FILE *out)
{
    static const char *const truths[] = {"true", "false", NULL};
    static const char *const none[] = {"none", NULL};
    for (int k = 0; k < n_config_keys; k++) {
        const Key *key = &config_keys[k];
        const bool is_bool = key->kind == KEY_BOOL;
        const bool can_be_none = key->kind == KEY_BLOCK;
        if (strstr(key->path, "[]") != NULL ||
            (key->names == NULL && !is_bool && !can_be_none && !key->is_path))
            continue;
        fprintf(out, "    *:--%s) ", key->path);
        write_value(out, is_bool ? truths : can_be_none ? none : key->names, ANY_FILE);
        fputs(" ;;\n", out);
    }
    fputs("    *:--*.*) ;;\n", out); // a number or text
}

// The options' values first: in bash's case the first pattern that matches counts, and the last
// one, "command:*", matches everything.
static void write_command(FILE *out, const Command *command)
{
    for (int o = 0; o < command->n_options; o++) {
        const Option *option = &command->options[o];
        if (option->kind == OPTION_FLAG) // what follows it is a word
            continue;
        fprintf(out, "    %s:--%s", command->name, option->name);
        if (option->letter != 0)
            fprintf(out, "|%s:-%c", command->name, option->letter);
        fputs(") ", out);
        write_value(out, option->choices, option->files);
        fputs(" ;;\n", out);
    }
    fprintf(out, "    %s:*)\n        if [[ $cur == -* ]]; then\n            _mha2mla_options '",
            command->name);
    for (int o = 0; o < command->n_options; o++)
        fprintf(out, "--%s ", command->options[o].name);
    fprintf(out, "--help' '%s'\n        else\n            ",
            command->takes_overrides ? "keys" : "");
    if (command == &cmd_help)
        fputs("_mha2mla_words \"$_mha2mla_commands\"", out);
    else
        write_value(out, command->words.choices, command->words.files);
    fputs("\n        fi\n        ;;\n", out);
}

// The order of the parts matters to bash: variables before the functions that read them, `complete`
// last.
static Status run(const CommandLine *line)
{
    fputs(head, stdout);
    write_keys(stdout);
    write_names(stdout, line->commands);
    fputs(middle, stdout);
    write_key_values(stdout);
    for (int i = 0; line->commands[i] != NULL; i++)
        write_command(stdout, line->commands[i]);
    fputs(tail, stdout);
    return OK;
}

const Command cmd_completion = {
    .name = "completion",
    .summary = "print a completion script for bash",
    .examples = (const char *const[]){"source <(mha2mla completion bash)", NULL},
    .words = {"SHELL", 1, 1, .choices = (const char *const[]){"bash", NULL}},
    .run = run,
};
