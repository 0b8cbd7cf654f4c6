// mha2mla tokenize: text files into a token shard, on one rank or many.
#define _GNU_SOURCE // sigaction
#include "base/log.h"
#include "train/cli/command.h"
#include "train/cli/options.h"
#include "train/cli/tokenize_ranks.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop_wanted = 0;

static void want_stop(int signal)
{
    (void)signal;
    stop_wanted = 1;
}

// SIGINT and the like end the work between two documents, so that the temporary file goes too; a
// second one ends the process at once.
static void watch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction action = {.sa_handler = want_stop, .sa_flags = SA_RESTART | SA_RESETHAND};
        struct sigaction before;
        // What nohup and background shells have switched off stays off.
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

static double started_s, shown_s;

// "1:02:03", or nothing while too little is done to tell.
static void describe_rest(char out[32], double elapsed_s, double fraction)
{
    out[0] = '\0';
    if (elapsed_s < 1 || fraction < 0.001 || fraction > 1)
        return;
    const double rest_s = elapsed_s * (1 - fraction) / fraction;
    if (rest_s >= 360000)
        return;
    const int rest = (int)rest_s;
    snprintf(out, 32, ", %d:%02d:%02d left", rest / 3600, rest / 60 % 60, rest % 60);
}

// A line that is written over on a terminal, ten times a second at most; one a minute elsewhere.
static void show_progress(const TokenizeCounts *so_far)
{
    const double now_s = log_seconds();
    const bool is_terminal = isatty(STDERR_FILENO) == 1;
    if (now_s - shown_s < (is_terminal ? 0.1 : 60.0))
        return;
    shown_s = now_s;
    char line[160], rest[32];
    describe_rest(rest, now_s - started_s, so_far->fraction);
    snprintf(line, sizeof line, "%3.0f %%  %lld documents, %lld tokens, %.1f MB/s%s",
             100 * so_far->fraction, (long long)so_far->n_documents, (long long)so_far->n_tokens,
             (double)so_far->text_bytes / 1e6 / (now_s - started_s + 1e-9), rest);
    if (is_terminal)
        fprintf(stderr, "\r%s\033[K", line);
    else
        log_info("%s", line);
}

static void clear_progress(void)
{
    if (shown_s > started_s && isatty(STDERR_FILENO) == 1)
        fprintf(stderr, "\r\033[K");
}

static void print_counts(const TokenizeCounts *counts, const char *out)
{
    printf("%lld documents, %lld tokens, %lld bytes of text, %.3f bytes/token, %.1f s: %s\n",
           (long long)counts->n_documents, (long long)counts->n_tokens,
           (long long)counts->text_bytes, (double)counts->text_bytes / (double)counts->n_tokens,
           log_seconds() - started_s, out);
    char skips[TEXT_SKIPS_BYTES];
    text_describe_skips(skips, &counts->skipped);
    if (skips[0] != '\0')
        log_warn("skipped %s", skips);
}

static Status tokenize(const Comm *comm, const TokenizeOptions *options, const Arguments *files)
{
    if (files->n_words == 0)
        return fail(BAD_INPUT, "tokenize: no text files are named; see mha2mla tokenize --help");
    watch_signals();
    started_s = shown_s = log_seconds();
    TokenizeCounts counts;
    const Status status = tokenize_over_ranks(&counts, comm, options, files->words, files->n_words);
    if (comm->rank == 0)
        clear_progress();
    TRY(status);
    if (comm->rank == 0)
        print_counts(&counts, options->out);
    return OK;
}

static Status parse_and_tokenize(const Comm *comm, int argc, char **argv)
{
    TokenizeOptions options = {
        .bos = "auto", .eos = "auto", .stop = &stop_wanted, .on_progress = show_progress};
    const char *on_error = "stop";
    const Option table[] = {
        {"tokenizer", OPTION_STRING, &options.tokenizer_dir, "DIR",
         "directory with tokenizer.json, or vocab.json and merges.txt", .required = true},
        {"out", OPTION_STRING, &options.out, "SHARD.h5", "file to write", .required = true},
        {"text-field", OPTION_STRING, &options.text_field, "NAME",
         "field of .jsonl with the text (default text)"},
        {"separator", OPTION_STRING, &options.separator, "STRING",
         "splits .txt into documents; without it a file is one"},
        {"eos", OPTION_STRING, &options.eos, "TOKEN",
         "token after each document: auto, none or a token"},
        {"bos", OPTION_STRING, &options.bos, "TOKEN",
         "token before each document: auto, none or a token"},
        {"on-error", OPTION_STRING, &on_error, "stop|skip",
         "at a broken line or damaged file: stop, or skip, count and say so"},
    };
    Arguments rest;
    TRY(options_parse(&rest, &cmd_tokenize, table, sizeof table / sizeof table[0], argc, argv));
    if (rest.help_shown)
        return OK;
    options.skip_faults = strcmp(on_error, "skip") == 0;
    if (!options.skip_faults && strcmp(on_error, "stop") != 0)
        return fail(BAD_INPUT, "tokenize: --on-error is '%.100s', must be stop or skip", on_error);
    return tokenize(comm, &options, &rest);
}

static Status run(int argc, char **argv)
{
    return comm_run(parse_and_tokenize, argc, argv);
}

const Command cmd_tokenize = {
    .name = "tokenize",
    .summary = "turn text files (.jsonl, .txt, also .gz) into a token shard",
    .usage = "--tokenizer DIR --out SHARD.h5 [OPTION...] FILE...",
    .example = "mpirun -n 2 mha2mla tokenize --tokenizer configs/demo/model --separator "
               "'<|endoftext|>' --out runs/demo/shards/valid.h5 configs/demo/valid.txt.gz",
    .run = run,
};
