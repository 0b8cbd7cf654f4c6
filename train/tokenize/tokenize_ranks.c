// A dispatcher and workers. Rank 0 hands batches of documents to workers that are idle, and
// tokenizes one document of a batch of its own between looks at the messages, so that no worker
// waits for longer than that. Answers arrive in any order; a ring of slots, a reorder buffer, puts
// them back into that of the texts. The ring is also the bound of memory: a slow batch stops the
// reading when all slots behind it are taken.
#include "train/tokenize/tokenize_ranks.h"

#include "base/paths.h"
#include "train/agreement.h"
#include "train/parallel/contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TEXT_BYTES = 2048, TEXTS_BYTES = 64, SLOTS_PER_RANK = 4, NO_BATCH = -1 };

// Precedes the sizes and bytes of a batch, in both directions.
typedef struct Header {
    int64_t count, size_bytes; // count -1 to a worker: no more batches
    int64_t status;            // a worker's for this batch; with count -1 rank 0's for all
} Header;

// A batch that has been read and is not yet written.
typedef struct Slot {
    bool is_done;
    Documents ids;
    int64_t text_bytes;
    double fraction; // of the files that had been read with this batch
} Slot;

typedef struct Dispatcher {
    const Comm *comm;
    const TokenizeOptions *options;
    TokenizeJob *job;
    Encoder *encoder;
    bool at_end;         // all texts are read
    Documents next;      // owned: a batch read ahead, so that an idle worker need not wait for it
    int64_t next_batch;  // its number, or NO_BATCH
    Documents own;       // owned: the batch that rank 0 itself tokenizes
    int64_t own_batch;   // its number, or NO_BATCH
    int64_t own_done;    // documents of it that are tokenized
    int64_t own_offset;  // and their bytes
    int64_t n_read;      // batches so far; batch b is in slot b % n_slots
    int64_t n_written;   // batches so far, always the first ones
    int n_slots, n_busy; // slots of the ring; workers that have a batch
    int64_t *batch_of;   // owned [ranks]: the batch that a worker has, or NO_BATCH
    Slot *slots;         // owned [n_slots]
    TokenizeCounts counts;
} Dispatcher;

// Three messages in a fixed order: header, sizes, bytes. MPI keeps the order of messages between
// two ranks, so the receiver needs no tags.
static void send_documents(const Comm *comm, const Documents *documents, Header header, int to)
{
    comm_send(comm, &header, sizeof header, to);
    comm_send(comm, documents->sizes, header.count * (int64_t)sizeof *documents->sizes, to);
    comm_send(comm, documents->bytes, header.size_bytes, to);
}

// Receives what follows a header. Without memory for it, the messages are received and dropped, so
// that the sender is not left waiting.
static Status receive_documents(const Comm *comm, Documents *out, const Header *header, int from)
{
    out->count = out->size_bytes = 0;
    const Status status = documents_reserve(out, header->count, header->size_bytes);
    const bool fits = status == OK;
    comm_receive(comm, fits ? out->sizes : NULL, header->count * (int64_t)sizeof *out->sizes, from);
    comm_receive(comm, fits ? out->bytes : NULL, header->size_bytes, from);
    if (fits) {
        out->count = header->count;
        out->size_bytes = header->size_bytes;
    }
    return status;
}

// ---- the workers --------------------------------------------------------------------------------

// Receives and tokenizes one batch.
static Status answer(const Comm *comm, Encoder *encoder, const Header *header, Documents *texts,
                     Documents *ids)
{
    TRY(receive_documents(comm, texts, header, 0));
    const char *text = texts->bytes;
    for (int64_t d = 0; d < texts->count; d++) {
        TRY(encoder_append(encoder, ids, text, texts->sizes[d]));
        text += texts->sizes[d];
    }
    return OK;
}

// Until rank 0 has no more batches. The answer to a batch that fails is the error text instead of
// ids; the worker stays, as only rank 0 decides when all of them end.
static Status run_worker(const Comm *comm, Encoder *encoder)
{
    Documents texts = {0}, ids = {0};
    Header header;
    for (;;) {
        comm_receive(comm, &header, sizeof header, 0);
        if (header.count < 0)
            break;
        ids.count = ids.size_bytes = 0;
        const Status status = answer(comm, encoder, &header, &texts, &ids);
        if (status == OK) {
            send_documents(comm, &ids, (Header){ids.count, ids.size_bytes, OK}, 0);
        } else {
            char text[TEXT_BYTES] = "";
            snprintf(text, sizeof text, "%s", fail_text());
            const Documents reason = {.bytes = text};
            send_documents(comm, &reason, (Header){0, sizeof text, status}, 0);
        }
    }
    documents_release(&texts);
    documents_release(&ids);
    // Rank 0 has the text, which the agreement that follows gives to all.
    return header.status == OK ? OK : fail((Status)header.status, "rank 0 failed");
}

// ---- rank 0, the dispatcher ---------------------------------------------------------------------

// Receives the answer of a worker that has sent one.
static Status collect(Dispatcher *dispatcher, int from)
{
    Header header;
    comm_receive(dispatcher->comm, &header, sizeof header, from);
    Slot *slot = &dispatcher->slots[dispatcher->batch_of[from] % dispatcher->n_slots];
    dispatcher->batch_of[from] = NO_BATCH;
    dispatcher->n_busy--;
    TRY(receive_documents(dispatcher->comm, &slot->ids, &header, from));
    if (header.status != OK)
        return fail((Status)header.status, "rank %d: %.1800s", from, slot->ids.bytes);
    slot->is_done = true;
    return OK;
}

// Writes the batches at the head of the ring that are done.
static Status write_finished(Dispatcher *dispatcher)
{
    for (; dispatcher->n_written < dispatcher->n_read; dispatcher->n_written++) {
        Slot *slot = &dispatcher->slots[dispatcher->n_written % dispatcher->n_slots];
        if (!slot->is_done)
            break;
        TRY(tokenize_write(dispatcher->job, &slot->ids));
        slot->is_done = false;
        dispatcher->counts.text_bytes += slot->text_bytes;
        dispatcher->counts.fraction = slot->fraction;
    }
    tokenize_count(dispatcher->job, &dispatcher->counts);
    if (dispatcher->options->on_progress != NULL)
        dispatcher->options->on_progress(&dispatcher->counts);
    return OK;
}

// Reads the next batch into a free slot, unless one is read already, the ring is full or the texts
// are at their end.
static Status read_ahead(Dispatcher *dispatcher)
{
    if (dispatcher->next_batch != NO_BATCH || dispatcher->at_end ||
        dispatcher->n_read - dispatcher->n_written == dispatcher->n_slots)
        return OK;
    Slot *slot = &dispatcher->slots[dispatcher->n_read % dispatcher->n_slots];
    TRY(tokenize_read(dispatcher->job, &dispatcher->next, &slot->fraction));
    dispatcher->at_end = dispatcher->next.count == 0;
    if (dispatcher->at_end)
        return OK;
    slot->text_bytes = dispatcher->next.size_bytes;
    slot->ids.count = slot->ids.size_bytes = 0;
    dispatcher->next_batch = dispatcher->n_read++;
    return OK;
}

// Each idle worker gets the batch that was read ahead, and the next one is read at once.
static Status feed_idle_ranks(Dispatcher *dispatcher)
{
    for (int rank = 1; rank < dispatcher->comm->size; rank++) {
        if (dispatcher->batch_of[rank] != NO_BATCH)
            continue;
        TRY(read_ahead(dispatcher));
        if (dispatcher->next_batch == NO_BATCH)
            break;
        // A blocking send is enough: the worker is already waiting for it.
        send_documents(dispatcher->comm, &dispatcher->next,
                       (Header){dispatcher->next.count, dispatcher->next.size_bytes, OK}, rank);
        dispatcher->batch_of[rank] = dispatcher->next_batch;
        dispatcher->next_batch = NO_BATCH;
        dispatcher->n_busy++;
    }
    return read_ahead(dispatcher);
}

// The batch that was read ahead becomes rank 0's own; the buffers change places.
static void start_own_batch(Dispatcher *dispatcher)
{
    const Documents done = dispatcher->own;
    dispatcher->own = dispatcher->next;
    dispatcher->own_batch = dispatcher->next_batch;
    dispatcher->own_done = dispatcher->own_offset = 0;
    dispatcher->next = done;
    dispatcher->next_batch = NO_BATCH;
}

static Status encode_one_of_own(Dispatcher *dispatcher)
{
    Slot *slot = &dispatcher->slots[dispatcher->own_batch % dispatcher->n_slots];
    const int64_t size_bytes = dispatcher->own.sizes[dispatcher->own_done];
    TRY(encoder_append(dispatcher->encoder, &slot->ids,
                       dispatcher->own.bytes + dispatcher->own_offset, size_bytes));
    dispatcher->own_offset += size_bytes;
    if (++dispatcher->own_done == dispatcher->own.count) {
        slot->is_done = true;
        dispatcher->own_batch = NO_BATCH;
    }
    return OK;
}

static bool is_stopped(const Dispatcher *dispatcher)
{
    return dispatcher->options->stop != NULL && *dispatcher->options->stop != 0;
}

// Rank 0's loop. Each turn does the most urgent thing that there is: collect answers, write, keep
// the workers busy, tokenize a document, and only then wait for a worker.
static Status dispatch(Dispatcher *dispatcher)
{
    for (;;) {
        if (is_stopped(dispatcher))
            return fail(FAILED, "interrupted");
        for (int from; dispatcher->n_busy > 0 && (from = comm_probe(dispatcher->comm, false)) >= 0;)
            TRY(collect(dispatcher, from));
        TRY(write_finished(dispatcher));
        TRY(feed_idle_ranks(dispatcher));
        if (dispatcher->own_batch != NO_BATCH) {
            TRY(encode_one_of_own(dispatcher));
        } else if (dispatcher->next_batch != NO_BATCH) {
            start_own_batch(dispatcher);
        } else if (dispatcher->n_busy > 0) {
            TRY(collect(dispatcher, comm_probe(dispatcher->comm, true)));
        } else if (dispatcher->n_written == dispatcher->n_read) {
            return OK;
        }
    }
}

// Receives the answers that are still to come, as their senders would not end otherwise, and tells
// the workers how it went.
static void end_workers(Dispatcher *dispatcher, Status status)
{
    char text[TEXT_BYTES];
    snprintf(text, sizeof text, "%s", fail_text());
    // The failure that ends the work is the one to report, not those that follow it.
    while (dispatcher->n_busy > 0)
        (void)collect(dispatcher, comm_probe(dispatcher->comm, true));
    const Header end = {.count = -1, .status = status};
    for (int rank = 1; rank < dispatcher->comm->size; rank++)
        comm_send(dispatcher->comm, &end, sizeof end, rank);
    if (status != OK)
        (void)fail(status, "%s", text);
}

// SLOTS_PER_RANK batches for each rank may be read and not yet written: enough that one slow batch
// does not stop the others at once.
static Status start_dispatcher(Dispatcher *out, const Comm *comm, const TokenizeOptions *options)
{
    Dispatcher dispatcher = {.comm = comm,
                             .options = options,
                             .next_batch = NO_BATCH,
                             .own_batch = NO_BATCH,
                             .n_slots = SLOTS_PER_RANK * comm->size};
    dispatcher.batch_of = malloc((size_t)comm->size * sizeof *dispatcher.batch_of);
    dispatcher.slots = calloc((size_t)dispatcher.n_slots, sizeof *dispatcher.slots);
    for (int rank = 0; rank < comm->size && dispatcher.batch_of != NULL; rank++)
        dispatcher.batch_of[rank] = NO_BATCH;
    *out = dispatcher;
    return dispatcher.batch_of != NULL && dispatcher.slots != NULL
               ? OK
               : fail(FAILED, "out of memory for %d ranks", comm->size);
}

// Also after start_dispatcher() has failed half way.
static void release_dispatcher(Dispatcher *dispatcher)
{
    for (int s = 0; s < dispatcher->n_slots && dispatcher->slots != NULL; s++)
        documents_release(&dispatcher->slots[s].ids);
    documents_release(&dispatcher->next);
    documents_release(&dispatcher->own);
    free(dispatcher->slots);
    free(dispatcher->batch_of);
}

// ---- all ranks ----------------------------------------------------------------------------------

// What rank 0 did alone counts for all ranks, and its error text names no rank.
static Status follow_rank_0(const Comm *comm, Status status)
{
    return comm_agree_of(comm, comm->rank == 0, status);
}

// "2 files of 4711 bytes in all"; false: this rank does not see them. Standard input is rank 0's.
static bool describe_texts(char out[TEXTS_BYTES], char *const *patterns, int n_patterns)
{
    PathList list;
    int64_t bytes = 0;
    struct stat info = {0};
    if (text_source_expand(&list, patterns, n_patterns) != OK)
        return false;
    int n = 0;
    for (; n < list.count; n++) {
        if (text_source_is_stdin(list.paths[n]))
            continue;
        if (stat(list.paths[n], &info) != 0)
            break;
        bytes += (int64_t)info.st_size;
    }
    const bool are_seen = n == list.count;
    snprintf(out, TEXTS_BYTES, "%d file%s of %lld bytes in all", n, n == 1 ? "" : "s",
             (long long)bytes);
    paths_release(&list);
    return are_seen;
}

// The texts are rank 0's to read. A rank that sees other ones was given other arguments; one that
// sees none need not.
static Status agree_on_texts(const Comm *comm, char *const *patterns, int n_patterns)
{
    Contract contract = {0};
    char own[TEXTS_BYTES] = "", first[TEXTS_BYTES];
    const bool are_seen = describe_texts(own, patterns, n_patterns);
    memcpy(first, own, sizeof first);
    comm_broadcast(comm, first, sizeof first, 0);
    contract_add(&contract, "FILE", "%s", are_seen ? own : first);
    return contract_agree(&contract, comm, OK, "every rank needs the same command line");
}

// Hosts may have their own copies of the tokenizer; all ids must come from the same one.
static Status open_same_encoder(Encoder *out, const Comm *comm, const TokenizeOptions *options)
{
    const Status status = encoder_open(out, options);
    return agreement_tokenizer(comm, status == OK ? tokenizer_sha256(out->tokenizer) : "", status);
}

// The shard from its first to its last byte. It is finished or removed before the workers end:
// after a signal there may be little time.
static Status write_shard(Dispatcher *dispatcher)
{
    const Status status = dispatch(dispatcher);
    TokenizeJob *job = dispatcher->job;
    dispatcher->job = NULL;
    if (status != OK) {
        tokenize_abandon(job);
        // Reading, encoding or the loop has noticed it, this rank or another.
        return is_stopped(dispatcher)
                   ? fail(FAILED, "interrupted; %s is not written", dispatcher->options->out)
                   : status;
    }
    tokenize_count(job, &dispatcher->counts);
    return tokenize_finish(job);
}

static Status run_dispatcher(Dispatcher *dispatcher)
{
    const Status status = write_shard(dispatcher);
    end_workers(dispatcher, status);
    return status;
}

static Status open_texts(Dispatcher *out, const Comm *comm, const TokenizeOptions *options,
                         char *const *patterns, int n_patterns)
{
    TRY(start_dispatcher(out, comm, options));
    return tokenize_open(&out->job, options, patterns, n_patterns);
}

Status tokenize_over_ranks(TokenizeCounts *out, const Comm *comm, const TokenizeOptions *options,
                           char *const *patterns, int n_patterns)
{
    Encoder encoder = {0};
    Dispatcher dispatcher = {0};
    const bool dispatches = comm->rank == 0;
    Status status = OK;
    if (dispatches)
        status = open_texts(&dispatcher, comm, options, patterns, n_patterns);
    TRY_GOTO(release, follow_rank_0(comm, status));
    TRY_GOTO(release, agree_on_texts(comm, patterns, n_patterns));
    TRY_GOTO(release, open_same_encoder(&encoder, comm, options));
    dispatcher.encoder = &encoder;
    TRY_GOTO(release,
             follow_rank_0(comm, dispatches ? tokenize_create(dispatcher.job, &encoder) : OK));
    TRY_GOTO(release, comm_agree(comm, dispatches ? run_dispatcher(&dispatcher)
                                                  : run_worker(comm, &encoder)));
    *out = dispatcher.counts;
release:
    tokenize_abandon(dispatcher.job);
    release_dispatcher(&dispatcher);
    encoder_close(&encoder);
    return status;
}
