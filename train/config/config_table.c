// The order of the rows is that of the reference and of every config.yaml that is written. Names of
// model.init are those of Hugging Face's config.json, so that values can be copied from there.
#include "train/config/config_table.h"

#include "train/config/config_value.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

const char *const config_dtype_names[] = {
    [DTYPE_F32] = "float32", [DTYPE_F16] = "float16", [DTYPE_BF16] = "bfloat16", NULL};
const char *const config_rope_names[] = {
    [ROPE_HIGH] = "high",       [ROPE_LOW] = "low",
    [ROPE_UNIFORM] = "uniform", [ROPE_2NORM] = "2-norm",
    [ROPE_KL] = "kl",           [ROPE_SHARED_UNIFORM] = "shared-uniform",
    [ROPE_AUTO] = "auto",       NULL};
const char *const config_distill_names[] = {
    [DISTILL_SEQUENTIAL] = "sequential", [DISTILL_APART] = "apart", NULL};
static const char *const recompute_names[] = {[RECOMPUTE_NONE] = "none",
                                              [RECOMPUTE_ATTENTION] = "attention",
                                              [RECOMPUTE_LAYER] = "layer",
                                              NULL};
static const char *const teacher_names[] = {
    [TEACHER_FLOAT32] = "float32", [TEACHER_BFLOAT16] = "bfloat16", NULL};
static const char *const reduce_names[] = {
    [REDUCE_FLOAT32] = "float32", [REDUCE_BFLOAT16] = "bfloat16", NULL};

static const char *const save_failure_names[] = {
    [SAVE_FAILURE_CONTINUE] = "continue", [SAVE_FAILURE_STOP] = "stop", NULL};

static const char *const rules_names[] = {
    [EVAL_RULES_REFERENCE] = "reference", [EVAL_RULES_LM_EVAL] = "lm-eval", NULL};

#define MAX_SEED 9007199254740992.0 // 2^53: what every reader of JSON keeps exactly

#define IN(member)    .offset = offsetof(Config, member)
#define COUNT(member) .count_offset = offsetof(Config, member)
#define ITEM(member)  .offset = offsetof(SourceSpec, member)

// Bounds are the type's where nothing else is known to be wrong; they exist to catch slips of the
// keyboard, not to forbid experiments.
#define RANGE(a, b) .min = (a), .max = (b)

// Fields of the model's shape share their bounds with config.json and the checkpoint's manifest.
#define INIT(member, id)   IN(model.init.shape.member), .field = &shape_fields[id]
#define TARGET(member, id) IN(model.convert.target.member), .field = &shape_fields[id]

const Key config_keys[] = {
    {"run", KEY_SECTION, .help = "the run and its directory"},
    {"run.name", KEY_TEXT, IN(run.name), .is_off = true,
     .derived = "the config file's name without .yaml", .example = "smollm-135m-dkv16",
     .effect = EFFECT_NONE, .help = "name of the run directory"},
    {"run.dir", KEY_TEXT, IN(run.dir), .is_path = true, .standard = "runs", .effect = EFFECT_NONE,
     .help = "directory in which run directories are created"},
    // The seed decides which samples a step reads, so it has an effect on the result.
    {"run.seed", KEY_LONG, IN(run.seed), .standard = "42", RANGE(0, MAX_SEED),
     .help = "seed of the data order and of random weights"},
    {"run.export_dtype", KEY_NAME, IN(run.export_dtype), .standard = "float32",
     .names = config_dtype_names, .effect = EFFECT_ROUNDING,
     .help = "number format of the exported model"},
    {"run.max_minutes", KEY_REAL, IN(run.max_minutes), .standard = "0", RANGE(0, 1e7),
     .unit = "minutes", .effect = EFFECT_NONE,
     .help = "time limit, after which the run saves a checkpoint and exits with status 75; 0: no "
             "limit"},
    {"run.stall_minutes", KEY_REAL, IN(run.stall_minutes), .standard = "30", RANGE(0, 1e7),
     .unit = "minutes", .effect = EFFECT_NONE,
     .help = "a rank without a heartbeat for this long ends the run; 0: never"},

    {"model", KEY_SECTION, .help = "the model: exactly one of base and init"},
    {"model.base", KEY_TEXT, IN(model.base), .is_path = true, .example = "models/SmolLM-135M",
     .help = "Hugging Face directory of the pretrained model"},
    {"model.init", KEY_BLOCK, IN(model.init.given), .is_off = true,
     .help = "a model with random weights, of this shape"},
    // Rows of model.init and model.convert have no bounds here: those of shape_fields[] apply.
    {"model.init.hidden_size", KEY_INT, INIT(d_model, SHAPE_D_MODEL), .required = true,
     .example = "576", .unit = "numbers", .help = "width of the model"},
    {"model.init.intermediate_size", KEY_INT, INIT(d_ffn, SHAPE_D_FFN), .required = true,
     .example = "1536", .unit = "numbers", .help = "width of the feed-forward layers"},
    {"model.init.num_hidden_layers", KEY_INT, INIT(n_layers, SHAPE_N_LAYERS), .required = true,
     .example = "30", .help = "number of transformer layers"},
    {"model.init.num_attention_heads", KEY_INT, INIT(n_heads, SHAPE_N_HEADS), .required = true,
     .example = "9", .help = "number of query heads"},
    {"model.init.num_key_value_heads", KEY_INT, INIT(n_kv_heads, SHAPE_N_KV_HEADS),
     .derived = "num_attention_heads", .example = "3", .help = "number of key/value heads"},
    {"model.init.head_dim", KEY_INT, INIT(head_dim, SHAPE_HEAD_DIM),
     .derived = "hidden_size / num_attention_heads", .example = "64", .unit = "numbers",
     .help = "width of a head; must be even"},
    {"model.init.vocab_size", KEY_INT, INIT(vocab_size, SHAPE_VOCAB_SIZE), .required = true,
     .example = "49152", .unit = "tokens", .help = "size of the vocabulary"},
    {"model.init.max_position_embeddings", KEY_INT, INIT(max_positions, SHAPE_MAX_POSITIONS),
     .standard = "2048", .unit = "tokens", .help = "longest sequence that the model supports"},
    {"model.init.rms_norm_eps", KEY_REAL, INIT(rms_eps, SHAPE_RMS_EPS), .standard = "1.0e-5",
     .help = "added to the mean square in RMSNorm"},
    {"model.init.rope_theta", KEY_REAL, INIT(rope_theta, SHAPE_ROPE_THETA), .standard = "10000",
     .help = "base of the RoPE frequencies"},
    {"model.init.tie_word_embeddings", KEY_BOOL, INIT(tied_head, SHAPE_TIED_HEAD),
     .standard = "true", .help = "share one matrix between the embedding and the output head"},
    {"model.init.initializer_range", KEY_REAL, IN(model.init.initializer_range), .standard = "0.02",
     RANGE(0, 10), .help = "standard deviation of the initial weights"},
    {"model.init.tokenizer", KEY_TEXT, IN(model.init.tokenizer), .is_path = true,
     .example = "models/SmolLM-135M", .effect = EFFECT_NONE,
     .help = "directory with tokenizer.json; shards made with another tokenizer are refused"},

    {"model.convert", KEY_BLOCK, IN(model.convert.given),
     .help = "conversion to multi-head latent attention; none: train the original attention, as a "
             "baseline"},
    {"model.convert.method", KEY_NAME, IN(model.convert.recipe.method), .standard = "auto",
     .names = convert_method_names,
     .help = "paper: SVD of the weights; whitened: in the norm of the activations; closed: in that "
             "of scores and outputs; auto: closed in the form shared, else paper, "
             "docs/conversion.md"},
    {"model.convert.key_weight", KEY_REAL, IN(model.convert.recipe.key_weight), .standard = "0.1",
     RANGE(0, 1e6),
     .help = "weight of the keys' squared errors against the values', not with the method paper; "
             "0: the values' mean square over the keys', with whitened alone"},
    {"model.convert.refit", KEY_NAME, IN(model.convert.recipe.refit), .standard = "all",
     .names = refit_parts_names,
     .help = "what the method closed refits at its end: queries and output projections (all), or "
             "outputs alone"},
    {"model.convert.rope", KEY_NAME, IN(model.convert.rope), .standard = "auto",
     .names = config_rope_names,
     .help = "strategy that selects the RoPE pairs that a KV head keeps; auto: kl with the method "
             "closed, else 2-norm"},
    {"model.convert.form", KEY_NAME, IN(model.convert.target.form), .standard = "auto",
     .names = convert_form_names,
     .help =
         "per-head: every KV head keeps pairs of its own; shared: all heads see all rotated "
         "slots of a layer; auto: per-head where a width, strategy or method is MHA2MLA's, else "
         "shared, docs/conversion.md"},
    {"model.convert.rope_pairs", KEY_INT, TARGET(rope_pairs, SHAPE_ROPE_PAIRS),
     .derived = "from cache", .example = "4", .unit = "pairs",
     .help = "per-head: RoPE pairs kept per KV head, at most half the head width"},
    {"model.convert.svd", KEY_NAME, TARGET(svd, SHAPE_SVD), .standard = "joint",
     .names = shape_svd_names,
     .help = "joint: one factorization of keys and values together; split: one of each"},
    {"model.convert.d_kv", KEY_INT, TARGET(d_kv, SHAPE_D_KV), .derived = "from cache",
     .example = "16", .min = 1, .unit = "numbers",
     .help = "per-head: width of the latent per KV head and token"},
    {"model.convert.slots", KEY_INT, IN(model.convert.target.slots), .is_off = true,
     .derived = "from cache", .example = "12", RANGE(1, 32768), .unit = "slots",
     .help = "shared: rotated slots of a layer, two numbers per token each"},
    {"model.convert.latent", KEY_INT, TARGET(latent, SHAPE_LATENT), .is_off = true,
     .derived = "from cache", .example = "24", .min = 1, .unit = "numbers",
     .help = "shared: width of a layer's latent per token"},
    {"model.convert.latent_norm", KEY_BOOL, TARGET(latent_norm, SHAPE_LATENT_NORM),
     .standard = "false", .help = "shared: RMSNorm of the latent"},
    {"model.convert.cache", KEY_SHARE, IN(model.convert.target.cache), .is_off = true,
     .derived = "of the widths", .example = "12.5%", RANGE(1e-6, 1),
     .help =
         "share of the original's KV cache to keep, which widths that are left out follow from"},
    {"model.convert.samples", KEY_INT, IN(model.convert.samples), .standard = "1024",
     RANGE(1, INT_MAX), .unit = "sequences",
     .help = "sequences of the training data used for calibration"},
    {"model.convert.windows", KEY_INT, IN(model.convert.windows), .standard = "40",
     RANGE(1, 16777216), .unit = "sequences",
     .help = "of these, sequences for the statistics of activations, which the methods whitened "
             "and closed and the strategy kl need"},
    {"model.convert.attention_windows", KEY_INT, IN(model.convert.attention_windows),
     .standard = "12", RANGE(1, 16777216), .unit = "sequences",
     .help = "of these, sequences for the statistics of attention weights"},
    {"model.convert.window_len", KEY_INT, IN(model.convert.window_len), .standard = "512",
     RANGE(1, 16777216), .unit = "tokens",
     .help = "length of such a sequence at most; longer ones are cut"},
    {"model.convert.pool", KEY_NAME, IN(model.convert.pool), .standard = "layer",
     .names = statistics_pool_names,
     .help = "heads that share their statistics of keys and values: more memory and a larger file "
             "the fewer they are"},
    {"model.convert.scores", KEY_TEXT, IN(model.convert.scores), .is_path = true, .is_off = true,
     .example = "scores.h5", .derived = "measured at the start",
     .help = "file written by mha2mla score"},

    {"data", KEY_SECTION, .help = "training and validation data"},
    {"data.seq_len", KEY_INT, IN(data.seq_len), .standard = "2048", RANGE(1, 16777216),
     .unit = "tokens", .help = "length of a sequence"},
    {"data.pretraining_tokens", KEY_REAL, IN(data.pretraining_tokens), .is_off = true,
     .example = "600.0e+9", RANGE(1, 1e18), .unit = "tokens", .effect = EFFECT_NONE,
     .help = "number of tokens that the base model was pretrained on"},
    {"data.sources", KEY_ITEMS, IN(data.sources), COUNT(data.n_sources),
     .item_bytes = sizeof(SourceSpec), .required = true,
     .help = "the mixture: one entry per source"},
    // "[]" stands for each item; offsets are those within a SourceSpec.
    {"data.sources[].name", KEY_TEXT, ITEM(name), .required = true, .example = "fineweb-edu-dedup",
     .help = "name in messages and metrics; must be unique"},
    {"data.sources[].shards", KEY_TEXTS, ITEM(shards), .is_path = true,
     .count_offset = offsetof(SourceSpec, n_shards), .required = true,
     .example = "[shards/fineweb-edu-dedup-*.h5]",
     .help = "token shards of mha2mla tokenize: a path, a glob pattern, or a list of them"},
    {"data.sources[].weight", KEY_REAL, ITEM(weight), .standard = "1.0", RANGE(1e-9, 1e9),
     .help = "sampling weight, relative to the other sources"},
    {"data.validation", KEY_BLOCK, IN(data.validation.given),
     .help = "held-out data on which the loss is measured"},
    {"data.validation.shards", KEY_TEXTS, IN(data.validation.shards), .is_path = true,
     COUNT(data.validation.n_shards), .required = true, .example = "[shards/valid.h5]",
     .help = "token shards, as in sources"},
    {"data.validation.every", KEY_INT, IN(data.validation.every), .standard = "0",
     RANGE(0, INT_MAX), .unit = "steps", .effect = EFFECT_NONE,
     .help = "interval between measurements; 0: only before the first and after the last step"},
    {"data.validation.sequences", KEY_INT, IN(data.validation.sequences), .standard = "64",
     RANGE(1, INT_MAX), .unit = "sequences", .help = "sequences read for each measurement"},

    {"optim", KEY_SECTION, .help = "AdamW and its learning rate"},
    {"optim.lr", KEY_REAL, IN(optim.schedule.lr), .standard = "1.0e-4", RANGE(0, 10),
     .help = "peak learning rate"},
    {"optim.min_lr", KEY_REAL, IN(optim.schedule.min_lr), .standard = "0", RANGE(0, 10),
     .help = "learning rate at the end of the decay"},
    {"optim.beta1", KEY_REAL, IN(optim.adamw.beta1), .standard = "0.9", RANGE(0, 0.999999),
     .help = "exponential decay rate of the first moment"},
    {"optim.beta2", KEY_REAL, IN(optim.adamw.beta2), .standard = "0.95", RANGE(0, 0.999999),
     .help = "exponential decay rate of the second moment"},
    {"optim.eps", KEY_REAL, IN(optim.adamw.eps), .standard = "1.0e-8", RANGE(1e-20, 1),
     .help = "added to the square root of the second moment"},
    {"optim.weight_decay", KEY_REAL, IN(optim.adamw.weight_decay), .standard = "0", RANGE(0, 10),
     .help = "decoupled weight decay, multiplied by the learning rate"},
    {"optim.clip", KEY_REAL, IN(optim.clip), .standard = "1.0", RANGE(0, 1e9),
     .help = "global gradient norm above which the gradient is scaled down to it; 0: no clipping"},
    {"optim.warmup_steps", KEY_INT, IN(optim.schedule.warmup_steps), .standard = "0",
     RANGE(0, INT_MAX), .unit = "steps", .help = "length of the linear warm-up from 0"},
    {"optim.decay_start", KEY_INT, IN(optim.schedule.decay_start), .is_off = true,
     .derived = "train.steps - decay_steps", .example = "16200", RANGE(0, INT_MAX), .unit = "steps",
     .only_with = offsetof(Config, optim.schedule.decay_steps),
     .help = "steps before the decay starts"},
    {"optim.decay_steps", KEY_INT, IN(optim.schedule.decay_steps), .standard = "0",
     RANGE(0, INT_MAX), .unit = "steps",
     .help = "length of the 1-sqrt decay to min_lr; 0: no decay"},

    {"train", KEY_SECTION, .help = "length of training, batch, memory and communication"},
    {"train.steps", KEY_INT, IN(train.steps), .derived = "from train.fraction", .example = "18000",
     RANGE(0, INT_MAX), .unit = "steps",
     .help = "number of optimizer steps; 0: only convert and export"},
    {"train.fraction", KEY_SHARE, IN(train.fraction), .is_off = true, .example = "0.4%",
     RANGE(1e-12, 100),
     .help = "length of training as a share of data.pretraining_tokens, instead of steps"},
    {"train.trainable", KEY_TEXTS, IN(train.trainable), COUNT(train.n_trainable), .is_off = true,
     .derived = "all", .example = "attention",
     .help = "tensors that are trained: all, attention, or patterns of names such as "
             "'*.self_attn.*' or a list of them; the others are frozen and kept as they are"},
    {"train.loss", KEY_SECTION,
     .help = "weights of the losses whose sum is trained; validation is cross-entropy whatever "
             "they are"},
    {"train.loss.ce", KEY_REAL, IN(train.loss.ce), .standard = "1", RANGE(0, 1e6),
     .help = "cross-entropy against the text"},
    {"train.loss.kl", KEY_REAL, IN(train.loss.kl), .standard = "0", RANGE(0, 1e6),
     .help = "KL divergence of the model's distribution from the teacher's, times temperature "
             "squared"},
    {"train.loss.attention_mse", KEY_REAL, IN(train.loss.attention_mse), .standard = "0",
     RANGE(0, 1e6),
     .help = "squared error of the outputs of attention relative to the teacher's, mean over "
             "layers and sequences"},
    {"train.loss.temperature", KEY_REAL, IN(train.loss.temperature), .standard = "1",
     RANGE(0.01, 100), .help = "divides the logits of both models in kl"},
    {"train.teacher", KEY_TEXT, IN(train.teacher), .is_path = true, .is_off = true,
     .derived = "model.base", .example = "models/SmolLM-360M",
     .help = "Hugging Face directory of the teacher for kl and attention_mse, with the model's "
             "tokenizer"},
    {"train.teacher_dtype", KEY_NAME, IN(train.teacher_dtype), .standard = "float32",
     .names = teacher_names,
     .help = "number format in which the teacher's weights are held, once by the ranks that share "
             "a copy of the parameters"},
    {"train.global_batch", KEY_INT, IN(train.global_batch), .required = true, .example = "64",
     RANGE(1, 1048576), .unit = "sequences", .help = "sequences per step over all ranks"},
    // EFFECT_ROUNDING: micro-batches and groups decide only in which order gradients are added.
    // Memory, overlap and copies, with EFFECT_NONE, leave every bit as it is, which tests hold them
    // to.
    {"train.micro_batch", KEY_INT, IN(train.micro_batch), .standard = "1", RANGE(1, 1048576),
     .unit = "sequences", .effect = EFFECT_ROUNDING,
     .help = "sequences that a rank processes at once; must divide global_batch"},
    {"train.compute", KEY_NAME, IN(train.compute), .standard = "float32", .names = compute_names,
     .help =
         "number format of the operands of matrix products; sums, parameters, norms, softmax and "
         "the optimizer stay in float32"},
    {"train.recompute", KEY_NAME, IN(train.recompute), .standard = "none", .names = recompute_names,
     .effect = EFFECT_NONE,
     .help = "activations that backward recomputes instead of storing: less memory, more time, "
             "same bits"},
    {"train.sum_groups", KEY_INT, IN(train.sum_groups), .is_off = true,
     .derived = "one for each micro-batch", .example = "32", RANGE(1, 1048576), .unit = "groups",
     .effect = EFFECT_ROUNDING,
     .help = "groups of micro-batches whose gradients are reduced together; up to this many ranks "
             "give the same bits"},
    {"train.overlap", KEY_BOOL, IN(train.overlap), .standard = "true", .effect = EFFECT_NONE,
     .help = "overlap communication with computation; the bits are the same"},
    {"train.ranks_per_copy", KEY_INT, IN(train.ranks_per_copy), .standard = "0", RANGE(0, 1048576),
     .unit = "ranks", .effect = EFFECT_NONE,
     .help = "ranks of a host that share one copy of the parameters; 0: all of them; 1: every rank "
             "has its own copy"},
    {"train.reduce_dtype", KEY_NAME, IN(train.reduce_dtype), .standard = "float32",
     .names = reduce_names,
     .help = "number format in which gradients are sent; they are summed in float32"},
    {"train.skip_spikes", KEY_REAL, IN(train.skip_spikes), .standard = "0", RANGE(0, 1e9),
     .help = "skips the update when the gradient norm exceeds this multiple of its running mean; "
             "0: off"},
    {"train.spike_window", KEY_INT, IN(train.spike_window), .standard = "100", RANGE(1, INT_MAX),
     .unit = "steps",
     .help = "length of that running mean; none of the first steps up to this number is skipped"},

    {"distill", KEY_BLOCK, IN(distill.given), .is_off = true,
     .help = "local distillation of every converted layer before training, docs/conversion.md"},
    {"distill.steps", KEY_INT, IN(distill.steps), .standard = "200", RANGE(1, 10000000),
     .unit = "steps", .help = "steps of 8 windows for every layer"},
    {"distill.windows", KEY_INT, IN(distill.windows), .standard = "256", RANGE(1, 16777216),
     .unit = "sequences",
     .help = "sequences of the training data that they read; each may be seen about 15 times"},
    {"distill.window_len", KEY_INT, IN(distill.window_len), .standard = "512", RANGE(1, 16777216),
     .unit = "tokens", .help = "length of such a sequence at most; longer ones are cut"},
    {"distill.rho", KEY_REAL, IN(distill.rho), .standard = "1.0", RANGE(0, 10),
     .help = "share of the error of the layers below that a layer's target takes back"},
    {"distill.lr", KEY_REAL, IN(distill.lr), .standard = "0.2", RANGE(1e-9, 10),
     .help = "highest learning rate, in parts of the root mean square of each tensor's weights; a "
             "cosine takes it to 2 %"},
    {"distill.layers", KEY_NAME, IN(distill.layers), .standard = "sequential",
     .names = config_distill_names,
     .help = "sequential: layer after layer, on up to 8 ranks; apart: each rank distills layers of "
             "its own, whose inputs are the original's and rho 0"},

    {"checkpoint", KEY_SECTION, .help = "checkpoints, from which a run resumes"},
    // None of these has an effect on the result: a resumed run has the bits of one that was not
    // interrupted.
    {"checkpoint.every", KEY_INT, IN(checkpoint.every), .standard = "500", RANGE(0, INT_MAX),
     .unit = "steps", .effect = EFFECT_NONE,
     .help = "interval between checkpoints; 0: only when the run is stopped and at its end"},
    {"checkpoint.keep", KEY_INT, IN(checkpoint.keep), .standard = "2", RANGE(1, INT_MAX),
     .unit = "checkpoints", .effect = EFFECT_NONE,
     .help = "keep this many of the most recent checkpoints"},
    {"checkpoint.keep_every", KEY_INT, IN(checkpoint.keep_every), .standard = "0",
     RANGE(0, INT_MAX), .unit = "steps", .effect = EFFECT_NONE,
     .help = "also keep checkpoints whose step is a multiple of this; 0: no others"},
    {"checkpoint.on_error", KEY_NAME, IN(checkpoint.on_error), .standard = "continue",
     .names = save_failure_names, .effect = EFFECT_NONE,
     .help = "what the run does when a checkpoint cannot be written"},

    {"log", KEY_SECTION, .help = "log lines and metrics"},
    {"log.every", KEY_INT, IN(log.every), .standard = "10", RANGE(1, INT_MAX), .unit = "steps",
     .effect = EFFECT_NONE, .help = "interval between log lines when stderr is not a terminal"},
    {"log.phases", KEY_INT, IN(log.phases), .standard = "0", RANGE(0, INT_MAX), .unit = "steps",
     .effect = EFFECT_NONE,
     .help = "interval between tables of the time spent in each phase; 0: one table at the end"},
    {"log.tensorboard", KEY_BOOL, IN(log.tensorboard), .standard = "false", .effect = EFFECT_NONE,
     .help = "write TensorBoard event files next to metrics.jsonl"},

    // Evaluation reads the weights and changes none.
    {"eval", KEY_SECTION,
     .help = "multiple-choice tasks on which the model is evaluated in the run"},
    {"eval.tasks", KEY_TEXT, IN(eval.tasks), .is_path = true, .is_off = true, .example = "tasks",
     .effect = EFFECT_NONE,
     .help = "directory with the rows of tasks, as for eval --tasks; without it nothing is "
             "evaluated"},
    {"eval.only", KEY_TEXTS, IN(eval.only), COUNT(eval.n_only), .is_off = true,
     .derived = "all whose rows are there", .example = "[arc_easy, piqa]", .effect = EFFECT_NONE,
     .help = "names of the tasks"},
    {"eval.rules", KEY_NAME, IN(eval.rules), .standard = "reference", .names = rules_names,
     .effect = EFFECT_NONE, .help = "prompts and scores: the reference's or lm-eval's"},
    {"eval.every", KEY_INT, IN(eval.every), .standard = "0", RANGE(0, INT_MAX), .unit = "steps",
     .effect = EFFECT_NONE, .help = "interval between evaluations; 0: only after the last step"},
    {"eval.limit", KEY_LONG, IN(eval.limit), .standard = "100", RANGE(0, MAX_SEED),
     .unit = "samples", .effect = EFFECT_NONE, .help = "samples of each task at most; 0: all"},
};
const int n_config_keys = sizeof config_keys / sizeof *config_keys;

const char *config_reduce_dtype_name(ReduceDtype dtype)
{
    return reduce_names[dtype];
}

// Blocks are not linked to their keys: a table of under a hundred rows is searched by path, which
// keeps it one flat list.
const char *key_name_in(const Key *key, const char *block)
{
    size_t length = strlen(block);
    const char *name = key->path;
    if (length > 0) {
        if (strncmp(key->path, block, length) != 0 || key->path[length] != '.')
            return NULL;
        name += length + 1;
    }
    return strchr(name, '.') == NULL ? name : NULL;
}

// Counts and identifiers are whole numbers; %g would round them.
static void describe_bounds(char out[KEY_NOTES_BYTES], const Key *key)
{
    char min[REAL_TEXT_BYTES], max[REAL_TEXT_BYTES], names[128];
    const char *gap = key->unit != NULL ? " " : "", *unit = key->unit != NULL ? key->unit : "";
    switch (key->kind) {
    case KEY_NAME:
        value_format_names(names, sizeof names, key->names);
        snprintf(out, KEY_NOTES_BYTES, "one of %s; ", names);
        return;
    case KEY_BOOL:
        snprintf(out, KEY_NOTES_BYTES, "true or false; ");
        return;
    case KEY_INT:
    case KEY_LONG:
        // A bound that is the largest int tells the user nothing.
        if (key_max(key) >= INT_MAX)
            snprintf(out, KEY_NOTES_BYTES, "%s%sat least %.0f; ", unit,
                     key->unit != NULL ? ", " : "", key_min(key));
        else
            snprintf(out, KEY_NOTES_BYTES, "%.0f to %.0f%s%s; ", key_min(key), key_max(key), gap,
                     unit);
        return;
    case KEY_REAL:
    case KEY_SHARE:
        value_format_real(min, key_min(key));
        value_format_real(max, key_max(key));
        snprintf(out, KEY_NOTES_BYTES, "%s to %s%s%s; ", min, max, gap, unit);
        return;
    default:
        out[0] = '\0';
    }
}

// Notes for --help-config, the manual and the reference, all from the table.
void key_describe(char out[KEY_NOTES_BYTES], const Key *key)
{
    describe_bounds(out, key);
    const size_t used = strlen(out), left = KEY_NOTES_BYTES - used;
    if (key->standard != NULL)
        snprintf(out + used, left, "default %s", key->standard);
    else if (key->derived != NULL)
        snprintf(out + used, left, "default: %s", key->derived);
    else
        snprintf(out + used, left, key->required ? "required" : "optional");
}

// Linear: the table has under a hundred rows, and a config is read once.
const Key *key_find(const char *block, const char *name)
{
    for (int k = 0; k < n_config_keys; k++) {
        const char *own = key_name_in(&config_keys[k], block);
        if (own != NULL && strcmp(own, name) == 0)
            return &config_keys[k];
    }
    return NULL;
}
