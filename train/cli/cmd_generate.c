// mha2mla generate: text from a model, original or converted, with the small KV cache.
#include "base/log.h"
#include "infer/infer.h"
#include "infer/weights.h"
#include "model/hf/generation_config.h"
#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/cli/command/kv_options.h"
#include "train/cli/compute_options.h"
#include "train/generate/generate_memory.h"
#include "train/generate/generate_ranks.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"
#include "train/plan/plan.h"
#include "train/stop.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_MAX_NEW = 128, PREFILL_TOKENS = 512, NAME_BYTES = 512, LARGEST_CONTEXT = 1 << 24 };
enum { NOT_GIVEN = -2 };

typedef struct GenerateOptions {
    const char *prompt, *file, *prompts; // one of them; none: standard input
    int64_t max_new;                     // -1: up to the context; NOT_GIVEN
    double temperature;
    int64_t top_k;
    double top_p, min_p, repetition_penalty;
    int64_t repeat_last_n, seed; // seed -1: drawn
    OptionTexts stops;
    int64_t n_samples, batch, context; // context 0: the model's positions
    KvOptions kv;
    ComputeOptions compute;
    double memory_gib; // 0: the machine's
    bool ignore_eos, json, chat;
} GenerateOptions;

// What a rank has opened; released whether or not all of it was.
typedef struct Generation {
    const GenerateOptions *options;
    const char *dir;
    ModelShape shape;
    DType dtype;
    KvFormat format;
    GenerationConfig config;
    ChatTemplate chat;
    Tokenizer *tokenizer;
    PromptList prompts;
    int64_t context, max_new; // max_new -1: up to the context
    int batch, max_tokens;    // answers, and tokens of a forward, at a time
    uint64_t seed;
    InferWeights weights;
    Infer *infer;
    KvCache *cache;
} Generation;

// ---- options
// -------------------------------------------------------------------------------------

static SamplerOptions sampling_options(const GenerateOptions *options)
{
    return (SamplerOptions){.temperature = options->temperature,
                            .top_k = (int)options->top_k,
                            .top_p = options->top_p,
                            .min_p = options->min_p,
                            .repetition_penalty = options->repetition_penalty,
                            .repeat_last_n = (int)options->repeat_last_n};
}

static Status check_options(const GenerateOptions *options)
{
    const SamplerOptions sampling = sampling_options(options);
    const int n_sources =
        (options->prompt != NULL) + (options->file != NULL) + (options->prompts != NULL);
    if (n_sources > 1)
        return fail(BAD_INPUT,
                    "generate: %s and %s are both given; a prompt comes from one of --prompt, "
                    "--file and --prompts",
                    options->prompt != NULL ? "--prompt" : "--file",
                    options->prompts != NULL ? "--prompts" : "--file");
    if (options->max_new == 0)
        return fail(BAD_INPUT,
                    "generate: --max-new-tokens is 0, allowed are -1 (up to the context) and 1 "
                    "and more");
    for (int i = 0; i < options->stops.n; i++) {
        const char *stop = options->stops.items[i];
        const int64_t size = (int64_t)strlen(stop);
        if (utf8_valid_bytes(stop, size) < size)
            return fail(BAD_INPUT, "generate: --stop has byte 0x%02X, which is not UTF-8",
                        (unsigned char)stop[utf8_valid_bytes(stop, size)]);
    }
    return sampler_check(&sampling);
}

// ---- prompts
// -------------------------------------------------------------------------------------

static Status read_on_rank_0(Bytes *out, const GenerateOptions *options)
{
    if (options->prompt != NULL)
        return bytes_append(out, options->prompt, (int64_t)strlen(options->prompt));
    const char *path = options->prompts != NULL ? options->prompts
                       : options->file != NULL  ? options->file
                                                : "-";
    if (options->prompts == NULL && options->file == NULL && isatty(STDIN_FILENO))
        return fail(BAD_INPUT,
                    "generate: no prompt is given; use --prompt, --file or --prompts, or "
                    "pipe one into it");
    return prompts_read(out, path);
}

// The bytes are rank 0's, as standard input is; all ranks get them. Collective.
static Status share_bytes(Bytes *bytes, const Comm *comm, const GenerateOptions *options)
{
    const Status status = comm->rank == 0 ? read_on_rank_0(bytes, options) : OK;
    TRY(comm_agree_of(comm, comm->rank == 0, status));
    int64_t size = bytes->size;
    comm_broadcast(comm, &size, sizeof size, 0);
    TRY(comm_agree(comm, comm->rank == 0 ? OK : bytes_reserve(bytes, size)));
    if (size > 0)
        comm_broadcast(comm, bytes->data, size, 0);
    bytes->size = size;
    return OK;
}

// Editors and echo end a file with a line end that is not part of the prompt.
static Status parse_prompts(PromptList *out, const Bytes *bytes, const GenerateOptions *options)
{
    const char *text = bytes->data != NULL ? bytes->data : "";
    int64_t size = bytes->size;
    if (options->prompts != NULL)
        return prompts_parse_jsonl(out, text, size,
                                   strcmp(options->prompts, "-") == 0 ? "standard input"
                                                                      : options->prompts);
    if (options->prompt != NULL)
        return prompts_parse_text(out, text, size, "--prompt");
    if (size > 0 && text[size - 1] == '\n')
        size--;
    const bool is_file = options->file != NULL && strcmp(options->file, "-") != 0;
    return prompts_parse_text(out, text, size, is_file ? options->file : "standard input");
}

static Status read_prompts(PromptList *out, const Comm *comm, const GenerateOptions *options)
{
    Bytes bytes = {0};
    Status status = share_bytes(&bytes, comm, options);
    if (status == OK)
        status = comm_agree(comm, parse_prompts(out, &bytes, options));
    bytes_release(&bytes);
    return status;
}

// vocab.json and merges.txt say nothing of what is put around a text; with them add_bos_token
// counts, which tokenizer.json overrides in transformers.
static Status find_begin_token(Generation *gen, bool *puts_it)
{
    char path[PATH_BYTES];
    json_t *root;
    *puts_it = false;
    TRY(file_join(path, gen->dir, "tokenizer.json"));
    const bool has_post_processor = file_exists(path);
    TRY(file_join(path, gen->dir, "tokenizer_config.json"));
    if (!file_exists(path))
        return OK;
    TRY(json_read(&root, path));
    const json_t *value = json_object_get(root, "bos_token");
    if (json_is_object(value))
        value = json_object_get(value, "content");
    if (json_is_string(value)) {
        const int32_t id = tokenizer_find(gen->tokenizer, json_string_value(value));
        gen->config.begin_id = id >= 0 ? id : gen->config.begin_id;
    }
    *puts_it = !has_post_processor && json_is_true(json_object_get(root, "add_bos_token"));
    json_decref(root);
    return OK;
}

static Status encode_prompts(Generation *gen)
{
    const GenerateOptions *options = gen->options;
    char context_name[NAME_BYTES];
    bool puts_begin_id;
    TRY(find_begin_token(gen, &puts_begin_id));
    if (options->context > 0)
        snprintf(context_name, sizeof context_name, "--ctx is %lld", (long long)gen->context);
    else
        snprintf(context_name, sizeof context_name, "%.400s has positions for %lld", gen->dir,
                 (long long)gen->context);
    const PromptEncoding encoding = {.tokenizer = gen->tokenizer,
                                     .chat = options->chat ? &gen->chat : NULL,
                                     .begin_id = gen->config.begin_id,
                                     .puts_begin_id = puts_begin_id,
                                     .model = gen->dir,
                                     .vocab_size = gen->shape.vocab_size,
                                     .context = gen->context,
                                     .context_name = context_name,
                                     .n_new = options->max_new > 0 ? options->max_new : 1};
    return prompts_encode(&gen->prompts, &encoding);
}

// ---- memory
// --------------------------------------------------------------------------------------

// Tokens of prompt and answer at most.
static int64_t longest_answer(const Generation *gen, const Prompt *prompt)
{
    const int64_t n = prompt->n_ids + gen->max_new;
    return gen->max_new < 0 || n > gen->context ? gen->context : n;
}

static double sequence_bytes(const Generation *gen, int64_t n_tokens)
{
    return generate_sequence_bytes(&gen->format, &gen->shape, n_tokens);
}

// At most, on one rank: the batch full of the prompt that takes most. Its samples share the pages
// that the prompt has filled.
static double cache_bytes(const Generation *gen)
{
    double most = 0;
    const int64_t n_samples = gen->options->n_samples;
    const double n_sharing = (double)(n_samples < gen->batch ? n_samples : gen->batch);
    for (int64_t p = 0; p < gen->prompts.n; p++) {
        const Prompt *prompt = &gen->prompts.items[p];
        const int64_t shared = prompt->n_ids / KV_BLOCK_TOKENS * KV_BLOCK_TOKENS;
        const double own = sequence_bytes(gen, longest_answer(gen, prompt) - shared);
        const double bytes = (double)gen->batch * (own + sequence_bytes(gen, shared) / n_sharing);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static Status check_memory(const Generation *gen)
{
    const int n_threads = omp_get_max_threads();
    const GenerateMemory need = {
        .model = gen->dir,
        .shape = &gen->shape,
        .dtype = gen->dtype,
        .compute = gen->options->compute.type,
        .format = &gen->format,
        .n_at_a_time = gen->batch,
        .work_bytes = (double)infer_bytes(&gen->shape, gen->max_tokens, gen->batch, n_threads),
        .cache_bytes = cache_bytes(gen),
        .limit_gib = gen->options->memory_gib,
        .options = "--batch, --max-new-tokens or --ctx"};
    return generate_check_memory(&need);
}

// ---- opening
// -------------------------------------------------------------------------------------

// What config.json, the tokenizer and the options say, before any weights.
static Status open_small_files(Generation *gen)
{
    const GenerateOptions *options = gen->options;
    TRY(check_options(options));
    TRY(hf_load_shape(&gen->shape, gen->dir));
    TRY(hf_weights_dtype(&gen->dtype, gen->dir));
    TRY(kv_options_format(&gen->format, &options->kv, KV_BFLOAT16));
    TRY(kv_format_check(&gen->format, &gen->shape));
    gen->context = options->context > 0 ? options->context : shape_longest(&gen->shape);
    TRY(shape_check_length(&gen->shape, gen->context, "--ctx", gen->dir));
    gen->max_new = options->max_new == NOT_GIVEN ? DEFAULT_MAX_NEW : options->max_new;
    TRY(tokenizer_load(&gen->tokenizer, gen->dir));
    TRY(generation_config_load(&gen->config, gen->dir, gen->shape.vocab_size,
                               tokenizer_eos_id(gen->tokenizer)));
    return options->chat ? chat_template_load(&gen->chat, gen->dir) : OK;
}

// Sizes of what is done at a time: no larger than the work.
static void choose_sizes(Generation *gen)
{
    int64_t longest = 1;
    const int64_t n_answers = gen->prompts.n * gen->options->n_samples;
    for (int64_t p = 0; p < gen->prompts.n; p++)
        longest = gen->prompts.items[p].n_ids > longest ? gen->prompts.items[p].n_ids : longest;
    gen->batch = (int)(gen->options->batch < n_answers ? gen->options->batch : n_answers);
    gen->max_tokens = (int)(longest < PREFILL_TOKENS ? longest : PREFILL_TOKENS);
    if (gen->max_tokens < gen->batch)
        gen->max_tokens = gen->batch;
}

static void warn_length(const Generation *gen)
{
    int64_t longest = 0;
    for (int64_t p = 0; p < gen->prompts.n; p++) {
        const int64_t n = longest_answer(gen, &gen->prompts.items[p]);
        longest = n > longest ? n : longest;
    }
    shape_warn_healed(&gen->shape, longest, "prompt and answer", gen->dir);
}

static Status open_model(Generation *gen)
{
    TRY(check_memory(gen));
    TRY(infer_weights_load(&gen->weights, gen->dir, gen->options->compute.type));
    TRY(infer_create(&gen->infer, &gen->weights, gen->max_tokens, gen->batch));
    return kv_cache_create(&gen->cache, &gen->shape, &gen->format, 0);
}

static void release(Generation *gen)
{
    if (gen->cache != NULL)
        kv_cache_release(gen->cache);
    infer_release(gen->infer);
    infer_weights_release(&gen->weights);
    prompts_release(&gen->prompts);
    tokenizer_release(gen->tokenizer);
}

// A seed that was not given is drawn where numbers are, and said, so that the answers can be had
// again. Collective.
static uint64_t choose_seed(const Comm *comm, const GenerateOptions *options)
{
    struct timespec now;
    int64_t seed = options->seed;
    if (seed >= 0 || options->temperature == 0)
        return seed >= 0 ? (uint64_t)seed : 0;
    clock_gettime(CLOCK_REALTIME, &now);
    seed = (now.tv_sec * 1000003 + now.tv_nsec) & INT32_MAX;
    comm_broadcast(comm, &seed, sizeof seed, 0);
    log_info("seed %lld", (long long)seed);
    return (uint64_t)seed;
}

// ---- the work
// ------------------------------------------------------------------------------------

static double rate(double n, double seconds)
{
    return seconds > 0 ? n / seconds : 0;
}

// Collective: memory is summed over the ranks.
static void print_statistics(const Generation *gen, const Comm *comm, const GenerateTotals *totals)
{
    char name[KV_FORMAT_TEXT_BYTES];
    double memory[] = {(double)kv_cache_peak_bytes(gen->cache), (double)plan_peak_resident_bytes()};
    const double per_token = kv_format_bytes_per_token(&gen->format, &gen->shape);
    comm_sum_doubles(comm, memory, 2);
    log_info("prompt: %lld tokens in %.2f s, %.1f tokens/s; decoding: %lld tokens in %.2f s, %.1f "
             "tokens/s",
             (long long)totals->prompt_tokens, totals->prompt_s,
             rate((double)totals->prompt_tokens, totals->prompt_s), (long long)totals->n_decoded,
             totals->decode_s, rate((double)totals->n_decoded, totals->decode_s));
    log_info("KV cache: %s, %g bytes per token, nominal %.1f KiB for %lld tokens, real %.1f KiB; "
             "peak memory %.1f MiB",
             kv_format_describe(name, &gen->format), per_token,
             per_token * (double)totals->peak_tokens / 1024, (long long)totals->peak_tokens,
             memory[0] / 1024, memory[1] / 1024 / 1024);
}

static Status answer(Generation *gen, const Comm *comm)
{
    const GenerateOptions *options = gen->options;
    GenerateTotals totals = {0};
    const GenerateJob job = {
        .model = {.infer = gen->infer,
                  .cache = gen->cache,
                  .tokenizer = gen->tokenizer,
                  .vocab_size = gen->shape.vocab_size,
                  .max_tokens = gen->max_tokens},
        .options = {.sampling = sampling_options(options),
                    .seed = choose_seed(comm, options),
                    .max_new = gen->max_new,
                    .context = gen->context,
                    .batch = gen->batch,
                    .end_ids = gen->config.end_ids,
                    .n_end_ids = options->ignore_eos ? 0 : gen->config.n_end_ids,
                    .stops = options->stops.items,
                    .n_stops = options->stops.n,
                    .is_stopped = stop_requested},
        .prompts = &gen->prompts,
        .n_samples = (int)options->n_samples,
        .as_json = options->json || options->prompts != NULL,
        .out = stdout,
    };
    const Status status = generate_over_ranks(&totals, comm, &job);
    if (status != OK && status != STOPPED)
        return status;
    print_statistics(gen, comm, &totals);
    if (status == STOPPED)
        return fail(FAILED, "interrupted; %lld of %lld answers are complete",
                    (long long)totals.n_answers, (long long)(gen->prompts.n * options->n_samples));
    return OK;
}

// Collective.
static Status generate(const Comm *comm, const GenerateOptions *options, const char *dir)
{
    Generation gen = {.options = options, .dir = dir};
    Status status;
    TRY(agreement_model(comm, dir));
    TRY_GOTO(release, comm_agree(comm, open_small_files(&gen)));
    TRY_GOTO(release, read_prompts(&gen.prompts, comm, options));
    TRY_GOTO(release, comm_agree(comm, encode_prompts(&gen)));
    choose_sizes(&gen);
    warn_length(&gen);
    TRY_GOTO(release, comm_agree(comm, open_model(&gen)));
    status = answer(&gen, comm);
release:
    release(&gen);
    return status;
}

static const GenerateOptions defaults = {
    .max_new = NOT_GIVEN,
    .top_p = 1,
    .repetition_penalty = 1,
    .repeat_last_n = SAMPLER_WHOLE_HISTORY,
    .seed = -1,
    .n_samples = 1,
    .batch = 8,
    .kv = KV_OPTIONS_DEFAULTS,
};

static const Option options[] = {
    {"prompt", OPTION_TEXT, offsetof(GenerateOptions, prompt), "TEXT",
     "text to go on from; '' starts from the token that begins a text", .letter = 'p',
     .may_be_empty = true, .derived = "standard input"},
    {"file", OPTION_TEXT, offsetof(GenerateOptions, file), "FILE",
     "the prompt is this file, without its last line end; - is standard input", .files = ANY_FILE,
     .letter = 'f'},
    {"prompts", OPTION_TEXT, offsetof(GenerateOptions, prompts), "FILE.jsonl",
     "many prompts, a line each: a string, or an object with \"prompt\" and \"id\"; implies --json",
     .files = "*.jsonl"},
    {"max-new-tokens", OPTION_INT, offsetof(GenerateOptions, max_new), "N",
     "tokens of an answer at most; -1: up to the context", -1, LARGEST_CONTEXT, .letter = 'n',
     .derived = "128, or up to the context"},
    {"temperature", OPTION_REAL, offsetof(GenerateOptions, temperature), "T",
     "0: always the most likely token; 1: the model's probabilities", 0, 1000},
    {"top-k", OPTION_INT, offsetof(GenerateOptions, top_k), "K",
     "choose among the K most likely tokens; 0: all", 0, INT32_MAX},
    {"top-p", OPTION_REAL, offsetof(GenerateOptions, top_p), "P",
     "choose among the most likely tokens up to this probability", 0, 1},
    {"min-p", OPTION_REAL, offsetof(GenerateOptions, min_p), "P",
     "leave out tokens less likely than P times the most likely one", 0, 1},
    {"repetition-penalty", OPTION_POSITIVE, offsetof(GenerateOptions, repetition_penalty), "X",
     "divide the positive logits of tokens that have occurred by X, multiply the others; 1: none",
     .max = 1000},
    {"repeat-last-n", OPTION_INT, offsetof(GenerateOptions, repeat_last_n), "N",
     "tokens back that the penalty looks at; -1: all", -1, INT32_MAX},
    {"seed", OPTION_INT, offsetof(GenerateOptions, seed), "S",
     "of the random numbers that a temperature above 0 needs", 0, INT64_MAX,
     .derived = "drawn and printed"},
    {"stop", OPTION_TEXTS, offsetof(GenerateOptions, stops), "TEXT",
     "an answer ends before this text"},
    {"ignore-eos", OPTION_FLAG, offsetof(GenerateOptions, ignore_eos), NULL,
     "go on after tokens that end a text"},
    {"samples", OPTION_INT, offsetof(GenerateOptions, n_samples), "N", "answers to each prompt", 1,
     100000},
    {"batch", OPTION_INT, offsetof(GenerateOptions, batch), "B",
     "answers that a rank decodes together at most", 1, 65536},
    {"ctx", OPTION_INT, offsetof(GenerateOptions, context), "T",
     "tokens of prompt and answer at most", 1, LARGEST_CONTEXT, .derived = "the model's positions"},
    KV_OPTIONS(GenerateOptions, kv, "bfloat16"),
    COMPUTE_OPTIONS(GenerateOptions, compute),
    {"memory", OPTION_POSITIVE, offsetof(GenerateOptions, memory_gib), "GIB",
     "what weights and cache of a rank may take", .max = 1 << 20, .derived = "the machine's"},
    {"chat", OPTION_FLAG, offsetof(GenerateOptions, chat), NULL,
     "the prompt is a user's message: put the model's chat template around it (ChatML)"},
    {"json", OPTION_FLAG, offsetof(GenerateOptions, json), NULL,
     "print one JSON object per answer: text, ids, why it ended"},
};

static Status run(const CommandLine *line)
{
    const GenerateOptions *given = line->options;
    TRY(blas_check(line->comm));
    TRY(compute_check(line->comm, given->compute.type, given->compute.emulate, "--compute"));
    return generate(line->comm, given, line->words[0]);
}

const Command cmd_generate = {
    .name = "generate",
    .summary = "continue texts with a model",
    .description =
        "Prints what an original or a converted model writes after a prompt, without the prompt, "
        "as it comes; statistics go to standard error. The most likely token is chosen unless "
        "--temperature is above 0; then repetition penalty, temperature, top-k, top-p and min-p "
        "apply in this order, as in transformers. A converted model keeps only its small KV cache. "
        "The ranks share the prompts, whose answers are the same on any number of them.",
    COMMAND_OPTIONS(GenerateOptions, options, defaults),
    .words = {"MODEL", 1, 1, ANY_DIRECTORY},
    .is_on_ranks = true,
    .handles_stop = true,
    .examples =
        (const char *const[]){"mha2mla generate runs/demo-dkv8/model --prompt 'Once upon a time'",
                              NULL},
    .run = run,
};
