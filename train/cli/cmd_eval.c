// mha2mla eval: what a model, original or converted, is worth. The kinds are in eval_*.c.
#include "eval/tasks/task.h"
#include "train/cli/eval_files.h"
#include "train/evaluate/evaluate_longbench.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"

#include <stddef.h>
#include <string.h>

static const EvalOptions defaults = {.batch = 8, .kv = KV_OPTIONS_DEFAULTS};

static const Option options[] = {
    {"perplexity", OPTION_TEXT, offsetof(EvalOptions, shards), "SHARD.h5",
     "the mean loss over a token shard, or a glob pattern of several", .files = "*.h5"},
    {"seq-len", OPTION_INT, offsetof(EvalOptions, seq_len), "T", "tokens of a window", 1, 1 << 24,
     .derived = "that of the model's healing, else its longest, at most 2048"},
    {"max-tokens", OPTION_INT, offsetof(EvalOptions, max_tokens), "N",
     "measure at most this many tokens, rounded up to whole windows", 1, INT64_MAX / 2,
     .derived = "all"},
    {"kv-rotate", OPTION_FLAG, offsetof(EvalOptions, is_rotated), NULL,
     "fold an orthogonal rotation of the latent into the weights; helps --kv-scheme quanto"},
    {"tasks", OPTION_TEXT, offsetof(EvalOptions, tasks), "DIR",
     "multiple-choice tasks: DIR has hellaswag, arc_easy, arc_challenge, openbookqa, piqa, "
     "winogrande and mmlu, or some of them, as .jsonl or .jsonl.gz with Hugging Face's columns",
     .files = ANY_DIRECTORY},
    {"longbench", OPTION_TEXT, offsetof(EvalOptions, longbench), "DIR",
     "LongBench's English sets: DIR, or DIR/data, has narrativeqa, qasper, ... as .jsonl or "
     ".jsonl.gz; also rows of RULER and of passkeys, by their keys",
     .files = ANY_DIRECTORY},
    {"only", OPTION_TEXT, offsetof(EvalOptions, only), "NAME[,NAME]", "these tasks or sets alone",
     .derived = "all whose files are there"},
    {"rules", OPTION_CHOICE, offsetof(EvalOptions, rules), "NAME",
     "whose prompts and scores: those of the paper's code or of lm-evaluation-harness",
     .choices = task_rules_names},
    {"max-length", OPTION_INT, offsetof(EvalOptions, max_length), "T",
     "tokens of a question at most, longer ones are cut on the left; of LongBench tokens of prompt "
     "and answer, longer prompts are cut in the middle",
     1, 1 << 24,
     .derived = "the model's longest; of questions with the rules reference at most 2048, of "
                "LongBench what the model was healed at"},
    {"limit", OPTION_INT, offsetof(EvalOptions, limit), "N",
     "samples of a task or set at most: the first ones, of mmlu at even distances", 1,
     INT64_MAX / 2, .derived = "all"},
    {"out", OPTION_TEXT, offsetof(EvalOptions, out), "FILE.json",
     "write the scores, in lm-evaluation-harness' layout; compare reads RUN/eval*.json",
     .files = "*.json"},
    {"log-samples", OPTION_TEXT, offsetof(EvalOptions, samples), "FILE.jsonl",
     "write a line for every sample: log-likelihoods, gold, predictions", .files = "*.jsonl"},
    {"predictions", OPTION_TEXT, offsetof(EvalOptions, predictions), "FILE.jsonl",
     "keep the answers to LongBench in this file, a line each; what is in it is not run again, so "
     "that a stopped evaluation goes on",
     .files = "*.jsonl"},
    {"batch", OPTION_INT, offsetof(EvalOptions, batch), "B",
     "answers to LongBench that a rank decodes together at most", 1, EVALUATE_LONGBENCH_MAX_BATCH},
    COMPUTE_OPTIONS(EvalOptions, compute),
    KV_OPTIONS(EvalOptions, kv, "bfloat16; float32 for tasks and LongBench without --kv-bits"),
};
enum { N_OPTIONS = sizeof options / sizeof *options };

// What is measured, by the option that asks for it, and which options belong to it besides.
static const struct Kind {
    const char *option, *argument;
    size_t offset; // of a const char * in EvalOptions; NULL: not asked for
    const char *own[8];
    EvalKind *run;
} kinds[] = {
    {"perplexity", "SHARD.h5", offsetof(EvalOptions, shards), {"seq-len", "max-tokens"}, eval_loss},
    {"tasks",
     "DIR",
     offsetof(EvalOptions, tasks),
     {"only", "rules", "max-length", "limit", "out", "log-samples"},
     eval_tasks},
    {"longbench",
     "DIR",
     offsetof(EvalOptions, longbench),
     {"only", "max-length", "limit", "out", "predictions", "batch"},
     eval_longbench},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static const char *kind_argument(const EvalOptions *given, const struct Kind *kind)
{
    const char *argument;
    memcpy(&argument, (const char *)given + kind->offset, sizeof argument);
    return argument;
}

static bool belongs(const struct Kind *kind, const char *option)
{
    for (size_t i = 0; i < sizeof kind->own / sizeof *kind->own && kind->own[i] != NULL; i++)
        if (strcmp(kind->own[i], option) == 0)
            return true;
    return false;
}

static bool is_given(const EvalOptions *given, const Option *option)
{
    const size_t size = option->kind == OPTION_INT      ? sizeof(int64_t)
                        : option->kind == OPTION_CHOICE ? sizeof(int)
                        : option->kind == OPTION_FLAG   ? sizeof(bool)
                                                        : sizeof(char *);
    return memcmp((const char *)given + option->offset, (const char *)&defaults + option->offset,
                  size) != 0;
}

// Refuses options that would change nothing: those of other kinds alone.
static Status check_options(const EvalOptions *given, const struct Kind *chosen)
{
    for (int i = 0; i < N_OPTIONS; i++) {
        if (!is_given(given, &options[i]) || belongs(chosen, options[i].name))
            continue;
        for (int kind = 0; kind < N_KINDS; kind++)
            if (belongs(&kinds[kind], options[i].name))
                return fail(BAD_INPUT, "eval: --%s goes with --%s, not with --%s", options[i].name,
                            kinds[kind].option, chosen->option);
    }
    return OK;
}

static Status choose_kind(const struct Kind **out, const EvalOptions *given)
{
    const struct Kind *chosen = NULL;
    for (int kind = 0; kind < N_KINDS; kind++) {
        if (kind_argument(given, &kinds[kind]) == NULL)
            continue;
        if (chosen != NULL)
            return fail(BAD_INPUT, "eval: --%s and --%s exclude each other; give one of them",
                        chosen->option, kinds[kind].option);
        chosen = &kinds[kind];
    }
    if (chosen == NULL)
        return fail(BAD_INPUT, "eval: what to measure is missing; give --%s %s, --%s %s or --%s %s",
                    kinds[0].option, kinds[0].argument, kinds[1].option, kinds[1].argument,
                    kinds[2].option, kinds[2].argument);
    TRY(check_options(given, chosen));
    if (given->is_rotated && given->kv.bits == NULL)
        return fail(BAD_INPUT, "--kv-rotate changes what a KV cache holds; give --kv-bits");
    *out = chosen;
    return OK;
}

static Status run(const CommandLine *line)
{
    const EvalOptions *given = line->options;
    const struct Kind *kind;
    TRY(choose_kind(&kind, given));
    TRY(eval_check_files(given, line->words[0]));
    TRY(blas_check(line->comm));
    TRY(compute_check(line->comm, given->compute.type, given->compute.emulate, "--compute"));
    return kind->run(line->comm, given, line->words[0]);
}

const Command cmd_eval = {
    .name = "eval",
    .summary = "measure a model: its loss on text, its scores on tasks",
    .description =
        "--perplexity prints the mean cross-entropy in nats per token and the perplexity of an "
        "original or a converted model; with --kv-bits the loss is that of decoding over a KV "
        "cache of this format. --tasks scores the choices of multiple-choice questions by their "
        "likelihood, without examples, and prints accuracies with their standard errors. "
        "--longbench answers long prompts greedily and prints the scores of the answers. The ranks "
        "share the windows, questions or prompts, and print the same on any number of them.",
    COMMAND_OPTIONS(EvalOptions, options, defaults),
    .words = {"MODEL", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .handles_stop = true,
    .examples = (const char *const[]){"mha2mla eval runs/demo-dkv8/model --perplexity "
                                      "runs/demo/shards/valid.h5",
                                      "mha2mla eval runs/demo-dkv8/model --perplexity "
                                      "runs/demo/shards/valid.h5 --kv-bits 2,4",
                                      NULL},
    .run = run,
};
