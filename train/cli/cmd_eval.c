// mha2mla eval: what a model, original or converted, is worth. The kinds are in eval_*.c.
#include "train/cli/eval_kinds.h"
#include "train/plan/blas.h"

#include <stddef.h>
#include <string.h>

static const EvalOptions defaults = {.kv = KV_OPTIONS_DEFAULTS};

static const Option options[] = {
    {"perplexity", OPTION_TEXT, offsetof(EvalOptions, shards), "SHARD.h5",
     "the mean loss over a token shard, or a glob pattern of several", .files = "*.h5"},
    {"seq-len", OPTION_INT, offsetof(EvalOptions, seq_len), "T", "tokens of a window", 1, 1 << 24,
     .derived = "that of the model's healing, else its longest, at most 2048"},
    {"max-tokens", OPTION_INT, offsetof(EvalOptions, max_tokens), "N",
     "measure at most this many tokens, rounded up to whole windows", 1, INT64_MAX / 2,
     .derived = "all"},
    KV_OPTIONS(EvalOptions, kv),
    {"kv-rotate", OPTION_FLAG, offsetof(EvalOptions, is_rotated), NULL,
     "fold an orthogonal rotation of the latent into the weights; helps --kv-scheme quanto"},
};

// What is measured, by the option that asks for it.
static const struct {
    const char *option, *argument;
    size_t offset; // of a const char * in EvalOptions; NULL: not asked for
    EvalKind *run;
} kinds[] = {
    {"--perplexity", "SHARD.h5", offsetof(EvalOptions, shards), eval_loss},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static const char *kind_argument(const EvalOptions *given, int kind)
{
    const char *argument;
    memcpy(&argument, (const char *)given + kinds[kind].offset, sizeof argument);
    return argument;
}

static Status choose_kind(int *out, const EvalOptions *given)
{
    int chosen = -1;
    for (int kind = 0; kind < N_KINDS; kind++) {
        if (kind_argument(given, kind) == NULL)
            continue;
        if (chosen >= 0)
            return fail(BAD_INPUT, "eval: %s and %s exclude each other; give one of them",
                        kinds[chosen].option, kinds[kind].option);
        chosen = kind;
    }
    if (chosen < 0)
        return fail(BAD_INPUT, "eval: what to measure is missing; give %s %s", kinds[0].option,
                    kinds[0].argument);
    *out = chosen;
    return OK;
}

static Status run(const CommandLine *line)
{
    const EvalOptions *given = line->options;
    int kind;
    TRY(choose_kind(&kind, given));
    TRY(blas_check(line->comm));
    return kinds[kind].run(line->comm, given, line->words[0]);
}

const Command cmd_eval = {
    .name = "eval",
    .summary = "measure a model's loss over the windows of a token shard",
    .description = "Prints the mean cross-entropy in nats per token and the perplexity of an "
                   "original or a converted model. The ranks share the windows. With --kv-bits the "
                   "loss is that of decoding over a KV cache of this format.",
    COMMAND_OPTIONS(EvalOptions, options, defaults),
    .words = {"MODEL", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .examples = (const char *const[]){"mha2mla eval runs/demo-dkv8/model --perplexity "
                                      "runs/demo/shards/valid.h5",
                                      "mha2mla eval runs/demo-dkv8/model --perplexity "
                                      "runs/demo/shards/valid.h5 --kv-bits 2,4",
                                      NULL},
    .run = run,
};
