// Rank 0 takes part like the others and looks for their answers after every token of its own, so
// that nobody waits long to hand one over; at the end it waits for theirs. A rank that fails says
// so in its last message and rank 0 goes on, as the others would wait for it otherwise: the error
// is agreed on when all have ended.
#include "train/generate/generate_ranks.h"

#include <stdlib.h>

// The first message of an answer; its ids and text follow. index < 0: the rank has ended.
typedef struct Header {
    int64_t index, n_ids, text_bytes;
    int32_t end, stop;
} Header;

typedef struct Exchange {
    const Comm *comm;
    const GenerateJob *job;
    Answers answers; // rank 0: all; others: their own, until they are sent
    int n_open;      // rank 0: ranks that have not ended
    int64_t n_complete;
    int32_t *ids; // owned [ids_capacity]: what rank 0 receives
    char *text;   // owned [text_capacity]
    int64_t ids_capacity, text_capacity;
} Exchange;

static Status reserve(void **memory, int64_t *capacity, int64_t n, size_t size_bytes)
{
    if (n <= *capacity)
        return OK;
    void *larger = realloc(*memory, (size_t)n * size_bytes);
    if (larger == NULL)
        return fail(FAILED, "no memory for an answer of %lld tokens or bytes", (long long)n);
    *memory = larger;
    *capacity = n;
    return OK;
}

// ---- rank 0
// --------------------------------------------------------------------------------------

static Status take_answer(Exchange *exchange, int64_t index, const AnswerEnding *ending)
{
    const GenerateJob *job = exchange->job;
    if (job->on_answer == NULL)
        return answers_end(&exchange->answers, index, ending);
    return job->on_answer(job->context, index / job->n_samples, (int)(index % job->n_samples),
                          ending);
}

// Receives what a rank has sent. Without memory for it, the messages are received and dropped, so
// that the sender is not left waiting.
static Status receive(Exchange *exchange, int from)
{
    const Comm *comm = exchange->comm;
    Header header;
    comm_receive(comm, &header, sizeof header, from);
    if (header.index < 0) {
        exchange->n_open--;
        return OK;
    }
    Status status = reserve((void **)&exchange->ids, &exchange->ids_capacity, header.n_ids,
                            sizeof *exchange->ids);
    if (status == OK)
        status = reserve((void **)&exchange->text, &exchange->text_capacity, header.text_bytes, 1);
    const bool fits = status == OK;
    comm_receive(comm, fits ? exchange->ids : NULL, header.n_ids * (int64_t)sizeof(int32_t), from);
    comm_receive(comm, fits ? exchange->text : NULL, header.text_bytes, from);
    TRY(status);
    TRY(answers_add_text(&exchange->answers, header.index, exchange->text, header.text_bytes));
    const AnswerEnding ending = {.end = (AnswerEnd)header.end,
                                 .stop = header.stop,
                                 .ids = exchange->ids,
                                 .n_ids = header.n_ids};
    return take_answer(exchange, header.index, &ending);
}

static Status receive_arrived(Exchange *exchange)
{
    for (int from; exchange->n_open > 0 && (from = comm_probe(exchange->comm, false)) >= 0;)
        TRY(receive(exchange, from));
    return OK;
}

// The first error is kept, and the rest is received all the same.
static Status receive_all(Exchange *exchange, Status status)
{
    char text[2048];
    snprintf(text, sizeof text, "%s", fail_text());
    while (exchange->n_open > 0) {
        const Status own = receive(exchange, comm_probe(exchange->comm, true));
        if (own != OK && status == OK) {
            status = own;
            snprintf(text, sizeof text, "%s", fail_text());
        }
    }
    return status == OK ? OK : fail(status, "%s", text);
}

// ---- the other ranks
// -----------------------------------------------------------------------------

static void send_answer(Exchange *exchange, int64_t index)
{
    const Comm *comm = exchange->comm;
    const AnswerRecord *record = &exchange->answers.records[index];
    const Header header = {.index = index,
                           .n_ids = record->n_ids,
                           .text_bytes = record->text.size,
                           .end = (int32_t)record->end,
                           .stop = record->stop};
    comm_send(comm, &header, sizeof header, 0);
    comm_send(comm, record->ids, header.n_ids * (int64_t)sizeof *record->ids, 0);
    comm_send(comm, record->text.data, header.text_bytes, 0);
    answers_forget(&exchange->answers, index);
}

// ---- events of the generator
// ---------------------------------------------------------------------

static int64_t answer_index(const Exchange *exchange, const GeneratorPrompt *prompt, int sample)
{
    return prompt->index * exchange->job->n_samples + sample;
}

static Status on_text(void *context, const GeneratorPrompt *prompt, int sample, const char *text,
                      int64_t size)
{
    Exchange *exchange = context;
    if (exchange->job->on_answer == NULL) // else its ids say all
        TRY(answers_add_text(&exchange->answers, answer_index(exchange, prompt, sample), text,
                             size));
    return receive_arrived(exchange);
}

static Status on_end(void *context, const Answer *answer)
{
    Exchange *exchange = context;
    const int64_t index = answer_index(exchange, answer->prompt, answer->sample);
    const AnswerEnding ending = {
        .end = answer->end, .stop = answer->stop, .ids = answer->ids, .n_ids = answer->n_ids};
    exchange->n_complete += answer->end != ANSWER_INTERRUPTED;
    if (exchange->comm->rank == 0) {
        TRY(take_answer(exchange, index, &ending));
        return receive_arrived(exchange);
    }
    TRY(answers_end(&exchange->answers, index, &ending));
    send_answer(exchange, index);
    return OK;
}

// ---- all ranks
// -----------------------------------------------------------------------------------

// The prompts and samples that are this rank's own: at most as many as there are prompts. With
// fewer prompts than ranks the samples of each are divided.
static int64_t choose_own(GeneratorPrompt *out, const GenerateJob *job, const Comm *comm)
{
    const PromptList *prompts = job->prompts;
    const bool shares_prompts = prompts->n >= comm->size;
    int64_t n = 0, first = 0, count = job->n_samples;
    if (!shares_prompts)
        comm_range(job->n_samples, comm->rank, comm->size, &first, &count);
    for (int64_t p = 0; p < prompts->n; p++) {
        if ((shares_prompts && p % comm->size != comm->rank) || count == 0)
            continue;
        out[n++] = (GeneratorPrompt){.index = p,
                                     .ids = prompts->items[p].ids,
                                     .n_ids = prompts->items[p].n_ids,
                                     .first_sample = (int)first,
                                     .n_samples = (int)count,
                                     .max_new = prompts->items[p].max_new};
    }
    return n;
}

static Status answer_own(Exchange *exchange, GeneratorCounts *counts)
{
    const GenerateJob *job = exchange->job;
    const GeneratorEvents events = {.context = exchange, .on_text = on_text, .on_end = on_end};
    Status status;
    Generator *generator = NULL;
    GeneratorPrompt *own = malloc((size_t)job->prompts->n * sizeof *own);
    if (own == NULL)
        return fail(FAILED, "no memory for %lld prompts", (long long)job->prompts->n);
    const int64_t n = choose_own(own, job, exchange->comm);
    TRY_GOTO(release, generator_create(&generator, &job->model, &job->options));
    status = generator_run(generator, own, n, &events);
    *counts = generator_counts(generator);
release:
    generator_release(generator);
    free(own);
    return status;
}

static void sum_counts(GenerateTotals *out, const Exchange *exchange, const GeneratorCounts *counts)
{
    double sums[] = {(double)exchange->n_complete, (double)counts->prompt_tokens,
                     (double)counts->new_tokens, (double)counts->n_decoded,
                     (double)counts->peak_tokens};
    double seconds[] = {counts->prompt_s, counts->decode_s};
    comm_sum_doubles(exchange->comm, sums, 5);
    comm_max_doubles(exchange->comm, seconds, 2);
    *out = (GenerateTotals){.n_answers = (int64_t)sums[0],
                            .prompt_tokens = (int64_t)sums[1],
                            .new_tokens = (int64_t)sums[2],
                            .n_decoded = (int64_t)sums[3],
                            .peak_tokens = (int64_t)sums[4],
                            .prompt_s = seconds[0],
                            .decode_s = seconds[1]};
}

// A rank's part from its first to its last message.
static Status run_part(Exchange *exchange, GeneratorCounts *counts)
{
    const Comm *comm = exchange->comm;
    Status status = answer_own(exchange, counts);
    if (comm->rank > 0) {
        const Header end = {.index = -1};
        comm_send(comm, &end, sizeof end, 0);
        return status;
    }
    status = receive_all(exchange, status);
    if (status == OK || status == STOPPED) {
        const Status printed = answers_finish(&exchange->answers);
        status = printed != OK ? printed : status;
    }
    return status;
}

Status generate_over_ranks(GenerateTotals *out, const Comm *comm, const GenerateJob *job)
{
    GeneratorCounts counts = {0};
    const bool prints = comm->rank == 0;
    Exchange exchange = {.comm = comm, .job = job, .n_open = prints ? comm->size - 1 : 0};
    const AnswersOptions options = {.out = prints ? job->out : NULL,
                                    .prompts = job->prompts,
                                    .n_samples = job->n_samples,
                                    .as_json = job->as_json,
                                    .stops = job->options.stops};
    Status status;
    TRY_GOTO(release, comm_agree(comm, answers_start(&exchange.answers, &options)));
    status = run_part(&exchange, &counts);
    sum_counts(out, &exchange, &counts);
    status = comm_agree(comm, status);
release:
    answers_release(&exchange.answers);
    free(exchange.ids);
    free(exchange.text);
    return status;
}
