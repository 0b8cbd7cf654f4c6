// mha2mla tokenize: text files into a token shard, on one rank or many.
#define _GNU_SOURCE // for sigaction
#include "base/log.h"
#include "train/cli/command/command.h"
#include "train/tokenize/tokenize_ranks.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop_requested_by_signal = 0;

static void request_stop(int signal)
{
    (void)signal;
    stop_requested_by_signal = 1;
}

// A signal ends the work soon, also within a document, so that the temporary file is removed; a
// second one ends the process at once. Without SA_RESTART, a read that waits for a pipe ends too.
// train/stop.h is for runs, which save before they end; there is nothing to save here.
static void watch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESETHAND};
        struct sigaction before;
        // A signal that nohup or a background shell ignores stays ignored.
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

static double started_s, shown_s; // for show_progress(), which has no argument of its own

// ", 1:02:03 left", or nothing while too little is done for an estimate.
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

// On a terminal a line that is written over, at most ten times a second; elsewhere, as in the log
// of a job, a line per minute.
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

// The progress line has no end of its own: it is erased before the result is printed.
static void clear_progress(void)
{
    if (shown_s > started_s && isatty(STDERR_FILENO) == 1)
        fprintf(stderr, "\r\033[K");
}

// Bytes per token, the compression of the tokenizer on this text, shows at a glance whether it
// fits.
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

static const char *const format_names[] = {
    [TEXT_BY_NAME] = "auto", [TEXT_JSONL] = "jsonl", [TEXT_PLAIN] = "txt", NULL};

typedef struct TokenizeCommandOptions {
    TokenizeOptions tokenize;
    int on_error; // index in on_error_names
} TokenizeCommandOptions;

enum { ON_ERROR_STOP, ON_ERROR_SKIP };

static const char *const on_error_names[] = {
    [ON_ERROR_STOP] = "stop", [ON_ERROR_SKIP] = "skip", NULL};

static const TokenizeCommandOptions defaults = {
    .tokenize = {.bos = "auto",
                 .eos = "auto",
                 .stop = &stop_requested_by_signal,
                 .on_progress = show_progress},
    .on_error = ON_ERROR_STOP,
};

#define AT(member) offsetof(TokenizeCommandOptions, member)

static const Option options[] = {
    {"tokenizer", OPTION_TEXT, AT(tokenize.tokenizer_dir), "DIR",
     "directory with tokenizer.json, or vocab.json and merges.txt", .files = ANY_DIRECTORY,
     .required = true},
    {"out", OPTION_TEXT, AT(tokenize.out), "SHARD.h5", "file to write", .files = "*.h5",
     .required = true},
    {"format", OPTION_CHOICE, AT(tokenize.format), "FORMAT",
     "what the files hold: auto (their names say; stdin holds jsonl), jsonl or txt",
     .choices = format_names},
    {"text-field", OPTION_TEXT, AT(tokenize.text_field), "NAME",
     "field of .jsonl that holds the text", .derived = "text"},
    {"separator", OPTION_TEXT, AT(tokenize.separator), "STRING",
     "text between the documents of a .txt file", .derived = "a file is one document"},
    {"eos", OPTION_TEXT, AT(tokenize.eos), "TOKEN",
     "token after each document: auto (the tokenizer's own), none or a token"},
    {"bos", OPTION_TEXT, AT(tokenize.bos), "TOKEN",
     "token before each document: auto (the tokenizer's own), none or a token"},
    {"on-error", OPTION_CHOICE, AT(on_error), "ACTION",
     "what a malformed line, text that is not UTF-8 or a damaged file does: stop the command, or "
     "be skipped and counted",
     .choices = on_error_names},
};

// Options, progress and signals; the work is in train/tokenize/tokenize_ranks.c.
static Status run(const CommandLine *line)
{
    const TokenizeCommandOptions *given = line->options;
    TokenizeOptions tokenize = given->tokenize;
    TokenizeCounts counts;
    tokenize.skip_faults = given->on_error == ON_ERROR_SKIP;
    watch_signals();
    started_s = shown_s = log_seconds();
    const Status status =
        tokenize_over_ranks(&counts, line->comm, &tokenize, line->words, line->n_words);
    if (line->comm->rank == 0)
        clear_progress();
    TRY(status);
    if (line->comm->rank == 0)
        print_counts(&counts, tokenize.out);
    return OK;
}

const Command cmd_tokenize = {
    .name = "tokenize",
    .summary = "turn text files (.jsonl, .txt, also .gz and .zst) into a token shard",
    .description =
        "FILE is a path, a glob pattern, or - for standard input. The files are read one "
        "after another; rank 0 reads and writes, all ranks tokenize, and the shard is "
        "the same for any number of ranks.",
    COMMAND_OPTIONS(TokenizeCommandOptions, options, defaults),
    .words = {"FILE", 1, INT_MAX, ANY_FILE},
    .is_on_ranks = true,
    .examples =
        (const char *const[]){
            "mpirun -n 2 mha2mla tokenize --tokenizer configs/demo/model --separator "
            "'<|endoftext|>' --out runs/demo/shards/valid.h5 configs/demo/valid.txt.gz",
            NULL},
    .run = run,
};
