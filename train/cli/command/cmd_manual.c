// mha2mla manual: the manual page, in roff, from the tables of the commands and of the config keys.
// The build writes it to mha2mla.1.
#include "train/cli/command/help.h"
#include "train/config/config_table.h"

#include <ctype.h>
#include <string.h>

typedef struct Entry {
    const char *name, *text;
} Entry;

static const Entry exit_statuses[] = {
    {"0", "Done."},
    {"1", "Failed while running."},
    {"2", "Bad usage, config or input file."},
    {"75", "Stopped on request, after saving: the same command resumes."},
};

static const Entry files[] = {
    {"RUN/config.yaml",
     "The config with all keys, as the run uses it; settings that were changed at a resume, as "
     "comments. RUN is the directory run.name in run.dir."},
    {"RUN/run.json",
     "Name, shape of the conversion, ranks, settings, the steps at which the run was resumed."},
    {"RUN/metrics.jsonl", "A line for every step and every validation."},
    {"RUN/checkpoints/step-NNNNNNNN/",
     "A file per rank with its share of parameters and AdamW moments, and manifest.json, without "
     "which a checkpoint does not count."},
    {"RUN/model/", "The result, a Hugging Face directory, written after the last step."},
    {"RUN/nonfinite-step-N.json",
     "Only if a loss or gradient of step N was not finite: the samples of that step."},
};

static const Entry signals[] = {
    {"SIGUSR1, SIGTERM, SIGINT",
     "Sent to any rank of train or sweep: all ranks finish the step, save a checkpoint and exit "
     "with status 75. Sent to generate: it prints the answers as far as they are and exits with "
     "status 1. Under mpirun send SIGUSR1: on SIGTERM and Ctrl-C, mpirun kills its ranks a second "
     "later. A second SIGTERM or SIGINT ends the process at once, outside Slurm."},
    {"SIGTERM, SIGINT, SIGHUP",
     "Sent to tokenize: it removes what it has written and exits with status 1; a second one ends "
     "it at once. The other commands end at once; what they write has another name until it is "
     "whole."},
};

static const Entry variables[] = {
    {"OMP_NUM_THREADS", "Threads of each rank; by default one for each core that it may use."},
    {"MHA2MLA", "The program that the jobs of sweep --slurm start; by default this one."},
    {"SLURM_JOB_ID", "Inside a Slurm job a second SIGTERM does not end the process: Slurm may send "
                     "two, and the checkpoint is still being saved."},
    {"TERM, COLUMNS", "Whether progress is a line that is written over, and its width."},
    {"OMPI_ALLOW_RUN_AS_ROOT, OMPI_ALLOW_RUN_AS_ROOT_CONFIRM",
     "Both must be 1 where mpirun runs as root, as in containers."},
};

// Text of a paragraph. Every hyphen is a minus sign, so that options can be copied and searched; a
// line must not begin with roff's control characters.
static void write_text(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out); // not a request
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
    }
}

// \fB, \fI and \fR: bold, italic, roman, as man(7) has them.
static void write_font(FILE *out, char font, const char *text)
{
    fprintf(out, "\\f%c", font);
    write_text(out, text);
    fputs("\\fR", out);
}

// "Help text (notes)." The tables have no capital and no full stop, as --help shows them.
static void write_sentence(FILE *out, const char *text, const char *notes)
{
    const char first[2] = {(char)toupper((unsigned char)*text), '\0'};
    write_text(out, first);
    write_text(out, text + 1);
    if (notes[0] != '\0') {
        fputs(" (", out);
        write_text(out, notes);
        fputc(')', out);
    }
    fputs(".\n", out);
}

static void write_entries(FILE *out, const char *heading, const Entry *entries, size_t n)
{
    fprintf(out, ".SH %s\n", heading);
    for (size_t i = 0; i < n; i++) {
        fputs(".TP\n", out);
        write_font(out, 'B', entries[i].name);
        fputc('\n', out);
        write_text(out, entries[i].text);
        fputc('\n', out);
    }
}

// ---- commands ----------------------------------------------------------------------------------

// .TP begins a paragraph with a hanging tag: the option's name, then its text.
static void write_option(FILE *out, const Command *command, const Option *option)
{
    char notes[HELP_NOTES_BYTES], name[64];
    help_option_notes(notes, command, option);
    if (option->letter != 0)
        snprintf(name, sizeof name, "-%c, --%s", option->letter, option->name);
    else
        snprintf(name, sizeof name, "--%s", option->name);
    fputs(".TP\n", out);
    write_font(out, 'B', name);
    if (option->kind != OPTION_FLAG) {
        fputc(' ', out);
        write_font(out, 'I', option->argument);
    }
    fputc('\n', out);
    write_sentence(out, option->help, notes);
}

// Only what must be given is spelled out; the list of options follows at once.
static void write_synopsis(FILE *out, const Command *command)
{
    const Words *words = &command->words;
    write_font(out, 'B', "mha2mla ");
    write_font(out, 'B', command->name);
    if (words->name != NULL) {
        fputs(words->min == 0 ? " [" : " ", out);
        write_font(out, 'I', words->name);
        fputs(words->max > 1 ? " ..." : "", out);
        fputs(words->min == 0 ? "]" : "", out);
    }
    for (int o = 0; o < command->n_options; o++) {
        if (!command->options[o].required)
            continue;
        fputc(' ', out);
        write_font(out, 'B', "--");
        write_font(out, 'B', command->options[o].name);
        fputc(' ', out);
        write_font(out, 'I', command->options[o].argument);
    }
    if (command->n_options > 0)
        fputs(" [\\fIOPTION\\fR ...]", out);
    if (command->takes_overrides)
        fputs(" [\\fB\\-\\-\\fR\\fIsection.key\\fR=\\fIvalue\\fR ...]", out);
    fputs("\n.PP\n", out);
}

static void write_command(FILE *out, const Command *command)
{
    fprintf(out, ".SS %s\n", command->name);
    write_synopsis(out, command);
    write_sentence(out, command->summary, "");
    if (command->description != NULL) {
        write_text(out, command->description);
        fputc('\n', out);
    }
    for (int o = 0; o < command->n_options; o++)
        write_option(out, command, &command->options[o]);
    if (!command->takes_overrides)
        return;
    fputs(".TP\n\\fB\\-\\-\\fR\\fIsection.key\\fR=\\fIvalue\\fR\n", out);
    write_sentence(out, "set a key of CONFIG, as listed below", "");
}

static void write_commands(FILE *out, const Command *const *commands)
{
    fputs(".SH COMMANDS\nEvery command has the option \\fB\\-\\-help\\fR. Values may follow their "
          "option as a word of their own or after an equals sign; \\fB\\-\\-\\fR ends the "
          "options.\n",
          out);
    for (int i = 0; commands[i] != NULL; i++)
        write_command(out, commands[i]);
}

// ---- config keys -------------------------------------------------------------------------------

// A section is a heading, a block or a list an entry like its keys: its name says where they
// belong.
static void write_key(FILE *out, const Key *key)
{
    char notes[KEY_NOTES_BYTES];
    if (key->kind == KEY_SECTION && strchr(key->path, '.') == NULL) {
        fprintf(out, ".SS %s\n", key->path);
        write_sentence(out, key->help, "");
        return;
    }
    key_describe(notes, key);
    fputs(".TP\n", out);
    write_font(out, 'B', key->path);
    fputc('\n', out);
    write_sentence(out, key->help, notes);
}

static void write_keys(FILE *out)
{
    fputs(".SH CONFIG\nA training config is a YAML file with these keys, nested by their dots; []"
          " stands for each item of a list. Every key outside lists can be set on the command "
          "line too: \\fB\\-\\-optim.lr=2.0e\\-4\\fR. \\fB\\-\\-model.convert=none\\fR leaves out "
          "an optional key or block. \\fBmha2mla train \\-\\-help\\-config\\fR prints a config "
          "with all keys.\n",
          out);
    for (int k = 0; k < n_config_keys; k++)
        write_key(out, &config_keys[k]);
}

// ---- the page ----------------------------------------------------------------------------------

// The examples of --help, which a test runs.
static void write_examples(FILE *out, const Command *const *commands)
{
    fputs(".SH EXAMPLES\nThese lines work in the project's folder once ./quickstart.sh has run.\n",
          out);
    for (int i = 0; commands[i] != NULL; i++) {
        for (int e = 0; commands[i]->examples[e] != NULL; e++) {
            fputs(".PP\n.EX\n", out);
            write_text(out, commands[i]->examples[e]);
            fputs("\n.EE\n", out);
        }
    }
}

// Sections in the order that man-pages(7) gives.
static void write_page(FILE *out, const Command *const *commands)
{
    fprintf(out,
            ".TH MHA2MLA 1 \"\" \"mha2mla %s\" \"User Commands\"\n"
            ".SH NAME\n"
            "mha2mla \\- convert Llama\\-family models to multi\\-head latent attention and heal "
            "them\n"
            ".SH SYNOPSIS\n"
            "\\fBmha2mla\\fR \\fICOMMAND\\fR [\\fIARGUMENT\\fR ...]\n"
            ".br\n"
            "\\fBmpirun \\-n\\fR \\fIN\\fR \\fBmha2mla\\fR \\fICOMMAND\\fR [\\fIARGUMENT\\fR "
            "...]\n"
            ".SH DESCRIPTION\n"
            "Takes a pretrained model in Hugging Face format, turns its multi\\-head or "
            "grouped\\-query attention into multi\\-head latent attention (MLA), which has a "
            "smaller KV cache, and heals the model by training it on a small share of its "
            "pretraining tokens, over MPI on CPUs. The result is a Hugging Face model.\n",
            MHA2MLA_VERSION);
    write_commands(out, commands);
    write_keys(out);
    write_entries(out, "EXIT STATUS", exit_statuses, sizeof exit_statuses / sizeof *exit_statuses);
    write_entries(out, "FILES", files, sizeof files / sizeof *files);
    write_entries(out, "SIGNALS", signals, sizeof signals / sizeof *signals);
    write_entries(out, "ENVIRONMENT", variables, sizeof variables / sizeof *variables);
    write_examples(out, commands);
    fputs(".SH SEE ALSO\n.BR mpirun (1),\n.BR srun (1),\n.BR gnuplot (1)\n", out);
}

// All pages of the manual are one, as the commands share config and files.
static Status run(const CommandLine *line)
{
    write_page(stdout, line->commands);
    return OK;
}

const Command cmd_manual = {
    .name = "manual",
    .summary = "print the manual page in roff",
    .examples = (const char *const[]){"mha2mla manual >mha2mla.1", NULL},
    .run = run,
};
