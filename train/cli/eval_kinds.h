// The kinds of `mha2mla eval`, each in a file of its own: eval_loss.c, ... One option says which
// kind is asked for; the options of the others are refused (cmd_eval.c).
#ifndef MHA2MLA_TRAIN_CLI_EVAL_KINDS_H
#define MHA2MLA_TRAIN_CLI_EVAL_KINDS_H

#include "train/cli/compute_options.h"
#include "train/cli/command/kv_options.h"

typedef struct EvalOptions {
    KvOptions kv;
    bool is_rotated; // the latent in the cache
    ComputeOptions compute;

    // --perplexity
    const char *shards; // path or glob
    int64_t seq_len;    // 0: that of the model's healing, else its longest, at most 2048
    int64_t max_tokens; // 0: all

    // --tasks
    const char *tasks;   // directory
    const char *only;    // names of tasks with commas; NULL: all
    int rules;           // TaskRules
    int64_t max_length;  // tokens of a text; 0: that of the rules
    int64_t limit;       // samples of a task; 0: all
    const char *out;     // the result as JSON; NULL: no file
    const char *samples; // a line for every sample; NULL: no file

    // --longbench, with only, max_length, limit and out
    const char *longbench;   // directory
    const char *predictions; // what answers are kept in; NULL: no file
    int64_t batch;           // answers decoded together
} EvalOptions;

// `dir` is the model's Hugging Face directory. Rank 0 prints the result. Collective.
typedef Status EvalKind(const Comm *comm, const EvalOptions *options, const char *dir);

EvalKind eval_loss;
EvalKind eval_tasks;
EvalKind eval_longbench;

#endif
