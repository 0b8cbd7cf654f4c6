// A loop of two phases: while a slot is free, the next prompt is run, or the next sample of the
// prompt that was run last begins; then all slots take a step of one token. A prompt's sequence is
// kept until its last sample has begun, which takes it over.
#include "infer/generator.h"

#include "base/log.h"
#include "base/progress.h"
#include "infer/answer_text.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

// An answer that is being decoded.
typedef struct Slot {
    const GeneratorPrompt *prompt; // borrowed; NULL: the slot is free
    int sample;
    KvSequence *sequence; // owned
    SamplerStream stream;
    int32_t *ids; // owned [capacity]: prompt and answer; the last is not in the cache yet
    int64_t n_ids, capacity;
    AnswerText text;
} Slot;

struct Generator {
    GeneratorModel model;
    GeneratorOptions options;
    const GeneratorEvents *events; // borrowed, during a run
    Slot *slots;                   // owned [batch]
    int n_busy;
    Sampler **samplers; // owned [n_threads]
    int n_threads;
    float *logits;               // owned [batch, V]
    float *prompt_logits;        // owned [V]: of the prompt whose samples begin
    InferSegment *segments;      // owned [batch]
    int *rows;                   // owned [batch]: the slot of each segment
    int32_t *drawn;              // owned [batch]
    KvSequence *prompt_sequence; // owned; NULL: no prompt has samples left
    const GeneratorPrompt *prompt;
    int n_begun; // samples of it
    GeneratorCounts counts;
};

static Status check_options(const GeneratorOptions *options)
{
    TRY(sampler_check(&options->sampling));
    if (options->batch < 1)
        return fail(BAD_INPUT, "batch is %d, at least one answer is decoded at a time",
                    options->batch);
    return OK;
}

static Status allocate(Generator *generator)
{
    const size_t batch = (size_t)generator->options.batch, V = (size_t)generator->model.vocab_size;
    generator->slots = calloc(batch, sizeof *generator->slots);
    generator->samplers = calloc((size_t)generator->n_threads, sizeof *generator->samplers);
    generator->logits = malloc(batch * V * sizeof *generator->logits);
    generator->prompt_logits = malloc(V * sizeof *generator->prompt_logits);
    generator->segments = malloc(batch * sizeof *generator->segments);
    generator->rows = malloc(batch * sizeof *generator->rows);
    generator->drawn = malloc(batch * sizeof *generator->drawn);
    if (generator->slots == NULL || generator->samplers == NULL || generator->logits == NULL ||
        generator->prompt_logits == NULL || generator->segments == NULL ||
        generator->rows == NULL || generator->drawn == NULL)
        return fail(FAILED, "no memory for %d answers at a time; lower the batch",
                    generator->options.batch);
    for (int t = 0; t < generator->n_threads; t++)
        TRY(sampler_create(&generator->samplers[t], &generator->options.sampling,
                           generator->model.vocab_size));
    return OK;
}

Status generator_create(Generator **out, const GeneratorModel *model,
                        const GeneratorOptions *options)
{
    TRY(check_options(options));
    Generator *generator = calloc(1, sizeof *generator);
    if (generator == NULL)
        return fail(FAILED, "no memory for %d answers at a time", options->batch);
    generator->model = *model;
    generator->options = *options;
    const int n_threads = omp_get_max_threads();
    generator->n_threads = n_threads < options->batch ? n_threads : options->batch;
    Status status;
    TRY_GOTO(release, allocate(generator));
    *out = generator;
    return OK;
release:
    generator_release(generator);
    return status;
}

static void free_slot(Generator *generator, Slot *slot)
{
    kv_sequence_release(slot->sequence);
    answer_text_release(&slot->text);
    slot->sequence = NULL;
    slot->prompt = NULL;
    generator->n_busy--;
}

static void forget_prompt(Generator *generator)
{
    if (generator->prompt_sequence != NULL)
        kv_sequence_release(generator->prompt_sequence);
    generator->prompt_sequence = NULL;
    generator->prompt = NULL;
}

void generator_release(Generator *generator)
{
    if (generator == NULL)
        return;
    forget_prompt(generator);
    for (int s = 0; s < generator->options.batch && generator->slots != NULL; s++) {
        if (generator->slots[s].prompt != NULL)
            free_slot(generator, &generator->slots[s]);
        free(generator->slots[s].ids);
    }
    for (int t = 0; t < generator->n_threads && generator->samplers != NULL; t++)
        sampler_release(generator->samplers[t]);
    free(generator->slots);
    free(generator->samplers);
    free(generator->logits);
    free(generator->prompt_logits);
    free(generator->segments);
    free(generator->rows);
    free(generator->drawn);
    free(generator);
}

GeneratorCounts generator_counts(const Generator *generator)
{
    return generator->counts;
}

static bool is_stopped(const Generator *generator)
{
    return generator->options.is_stopped != NULL && generator->options.is_stopped();
}

// Tokens that the cache holds, those that samples share counted once.
static int64_t count_tokens(const Generator *generator)
{
    int64_t n = generator->prompt != NULL ? generator->prompt->n_ids : 0;
    for (int s = 0; s < generator->options.batch; s++) {
        const Slot *slot = &generator->slots[s];
        if (slot->prompt == NULL)
            continue;
        bool is_counted = slot->prompt == generator->prompt;
        for (int other = 0; other < s; other++)
            is_counted |= generator->slots[other].prompt == slot->prompt;
        n += kv_sequence_length(slot->sequence) - (is_counted ? slot->prompt->n_ids : 0);
    }
    return n;
}

static void note_peak(Generator *generator)
{
    const int64_t n = count_tokens(generator);
    if (n > generator->counts.peak_tokens)
        generator->counts.peak_tokens = n;
}

// ---- an answer's tokens
// --------------------------------------------------------------------------

static Status tell_text(Generator *generator, const Slot *slot)
{
    const GeneratorEvents *events = generator->events;
    if (slot->text.n_new == 0)
        return OK;
    return events->on_text(events->context, slot->prompt, slot->sample, slot->text.new_text,
                           slot->text.n_new);
}

// The rest of its text may hold a stop string yet, which then is why it ended.
static Status end_answer(Generator *generator, Slot *slot, AnswerEnd end)
{
    const GeneratorEvents *events = generator->events;
    const bool had_stopped = slot->text.stop.found >= 0;
    if (!had_stopped) {
        TRY(answer_text_finish(&slot->text));
        TRY(tell_text(generator, slot));
    }
    const Answer answer = {.prompt = slot->prompt,
                           .sample = slot->sample,
                           .end = slot->text.stop.found >= 0 ? ANSWER_STOP : end,
                           .stop = slot->text.stop.found,
                           .ids = slot->ids + slot->prompt->n_ids,
                           .n_ids = slot->n_ids - slot->prompt->n_ids};
    generator->counts.n_answers++;
    TRY(events->on_end(events->context, &answer));
    free_slot(generator, slot);
    return OK;
}

static bool is_end_id(const GeneratorOptions *options, int32_t id)
{
    for (int i = 0; i < options->n_end_ids; i++)
        if (options->end_ids[i] == id)
            return true;
    return false;
}

static Status reserve_ids(Slot *slot, int64_t n)
{
    if (n <= slot->capacity)
        return OK;
    const int64_t capacity = n < 2 * slot->capacity ? 2 * slot->capacity : n;
    int32_t *ids = realloc(slot->ids, (size_t)capacity * sizeof *ids);
    if (ids == NULL)
        return fail(FAILED, "no memory for %lld tokens", (long long)capacity);
    slot->ids = ids;
    slot->capacity = capacity;
    return OK;
}

// Adds a token to an answer, which may end with it.
static Status accept_token(Generator *generator, Slot *slot, int32_t id)
{
    const GeneratorOptions *options = &generator->options;
    const int64_t max_new = slot->prompt->max_new > 0 ? slot->prompt->max_new : options->max_new;
    if (id < 0)
        return fail(FAILED,
                    "the logits after token %lld are not finite: numbers overflow; the weights are "
                    "damaged or from a run that diverged",
                    (long long)slot->n_ids);
    TRY(reserve_ids(slot, slot->n_ids + 1));
    slot->ids[slot->n_ids++] = id;
    generator->counts.new_tokens++;
    if (is_end_id(options, id))
        return end_answer(generator, slot, ANSWER_END_TOKEN);
    TRY(answer_text_push(&slot->text, id));
    TRY(tell_text(generator, slot));
    if (slot->text.stop.found >= 0)
        return end_answer(generator, slot, ANSWER_STOP);
    if (slot->n_ids - slot->prompt->n_ids == max_new)
        return end_answer(generator, slot, ANSWER_LENGTH);
    if (slot->n_ids == options->context)
        return end_answer(generator, slot, ANSWER_CONTEXT);
    return OK;
}

// ---- the two phases
// ------------------------------------------------------------------------------

// In chunks, between which it may be stopped: a long prompt takes minutes.
static Status run_prompt(Generator *generator, const GeneratorPrompt *prompt)
{
    Status status;
    const GeneratorModel *model = &generator->model;
    KvSequence *sequence;
    CHECK(prompt->n_ids > 0 && prompt->n_ids < generator->options.context, "prompt %lld: %lld ids",
          (long long)prompt->index, (long long)prompt->n_ids);
    TRY(kv_sequence_create(&sequence, model->cache));
    for (int64_t at = 0; at < prompt->n_ids;) {
        const int64_t left = prompt->n_ids - at;
        const int count = left < model->max_tokens ? (int)left : model->max_tokens;
        const InferSegment segment = {sequence, prompt->ids + at, count};
        if (is_stopped(generator)) {
            status = fail(STOPPED, "stopped in a prompt");
            goto release;
        }
        TRY_GOTO(release, infer_forward(model->infer, &segment, 1));
        progress_beat();
        at += count;
    }
    infer_logits(model->infer, generator->prompt_logits, infer_hidden(model->infer, -1), 1);
    TRY_GOTO(release, kv_sequence_end_prompt(sequence));
    generator->prompt_sequence = sequence;
    generator->prompt = prompt;
    generator->n_begun = 0;
    generator->counts.prompt_tokens += prompt->n_ids;
    note_peak(generator);
    return OK;
release:
    kv_sequence_release(sequence);
    return status;
}

static Slot *find_free_slot(const Generator *generator)
{
    for (int s = 0; s < generator->options.batch; s++)
        if (generator->slots[s].prompt == NULL)
            return &generator->slots[s];
    return NULL;
}

// The next sample of the prompt that was run last: its first token follows from the prompt's
// logits. Owns its sequence from then on, whatever fails.
static Status begin_sample(Generator *generator, Slot *slot)
{
    const GeneratorPrompt *prompt = generator->prompt;
    const int sample = prompt->first_sample + generator->n_begun;
    const bool is_last = generator->n_begun + 1 == prompt->n_samples;
    KvSequence *sequence = generator->prompt_sequence;
    if (!is_last)
        TRY(kv_sequence_fork(&sequence, generator->prompt_sequence));
    slot->sequence = sequence;
    slot->prompt = prompt;
    slot->sample = sample;
    slot->n_ids = 0;
    slot->stream = (SamplerStream){
        .key = sampler_key(generator->options.seed, prompt->index, sample), .n_drawn = 0};
    generator->n_busy++;
    generator->n_begun++;
    if (is_last) {
        generator->prompt_sequence = NULL; // the slot's now
        generator->prompt = NULL;
    }
    TRY(reserve_ids(slot, prompt->n_ids + 1));
    memcpy(slot->ids, prompt->ids, (size_t)prompt->n_ids * sizeof *slot->ids);
    slot->n_ids = prompt->n_ids;
    TRY(answer_text_start(&slot->text, generator->model.tokenizer, prompt->ids, prompt->n_ids,
                          generator->options.stops, generator->options.n_stops));
    const int32_t id = sampler_draw(generator->samplers[0], &slot->stream, generator->prompt_logits,
                                    slot->ids, slot->n_ids);
    return accept_token(generator, slot, id);
}

// Fills the free slots; *next is the next prompt to run.
static Status admit(Generator *generator, const GeneratorPrompt *prompts, int64_t n_prompts,
                    int64_t *next)
{
    Slot *slot;
    while ((slot = find_free_slot(generator)) != NULL) {
        if (generator->prompt_sequence == NULL) {
            if (*next == n_prompts)
                return OK;
            TRY(run_prompt(generator, &prompts[*next]));
            ++*next;
        }
        TRY(begin_sample(generator, slot));
        note_peak(generator);
    }
    return OK;
}

// One token for every answer.
static Status take_step(Generator *generator)
{
    const GeneratorModel *model = &generator->model;
    const int64_t V = model->vocab_size;
    int n = 0;
    for (int s = 0; s < generator->options.batch; s++) {
        Slot *slot = &generator->slots[s];
        if (slot->prompt == NULL)
            continue;
        generator->segments[n] = (InferSegment){slot->sequence, &slot->ids[slot->n_ids - 1], 1};
        generator->rows[n++] = s;
    }
    TRY(infer_forward(model->infer, generator->segments, n));
    infer_logits(model->infer, generator->logits, infer_hidden(model->infer, 0), n);
    note_peak(generator);
    progress_beat();
#pragma omp parallel for num_threads(generator->n_threads) schedule(static)
    for (int i = 0; i < n; i++) {
        Slot *slot = &generator->slots[generator->rows[i]];
        generator->drawn[i] = sampler_draw(generator->samplers[omp_get_thread_num()], &slot->stream,
                                           generator->logits + i * V, slot->ids, slot->n_ids);
    }
    generator->counts.n_decoded += n;
    for (int i = 0; i < n; i++)
        TRY(accept_token(generator, &generator->slots[generator->rows[i]], generator->drawn[i]));
    return OK;
}

static Status interrupt(Generator *generator)
{
    for (int s = 0; s < generator->options.batch; s++)
        if (generator->slots[s].prompt != NULL)
            TRY(end_answer(generator, &generator->slots[s], ANSWER_INTERRUPTED));
    return fail(STOPPED, "stopped on request");
}

Status generator_run(Generator *generator, const GeneratorPrompt *prompts, int64_t n_prompts,
                     const GeneratorEvents *events)
{
    int64_t next = 0;
    generator->events = events;
    for (;;) {
        double start_s = log_seconds();
        Status status = admit(generator, prompts, n_prompts, &next);
        generator->counts.prompt_s += log_seconds() - start_s;
        if (status == STOPPED || (status == OK && generator->n_busy > 0 && is_stopped(generator)))
            return interrupt(generator);
        TRY(status);
        if (generator->n_busy == 0)
            return OK;
        start_s = log_seconds();
        status = take_step(generator);
        generator->counts.decode_s += log_seconds() - start_s;
        TRY(status);
    }
}
