// One loop on rank 0 that never waits while it has a document of its own to tokenize, and a loop on
// the others that receives, tokenizes and answers. A ring of slots puts the answers in order.
#include "train/cli/tokenize_ranks.h"

#include "base/paths.h"
#include "train/agreement.h"
#include "train/parallel/contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TEXT_BYTES = 2048, TEXTS_BYTES = 64, SLOTS_PER_RANK = 4, NOBODY = -1 };

// What goes before the sizes and bytes of a batch.
typedef struct Header {
    int64_t count, size_bytes; // count -1 to a rank: no more batches
    int64_t status;            // from a rank: of its work; to a rank, with count -1: of rank 0
} Header;

// A batch that is somewhere between read and written.
typedef struct Slot {
    bool is_done;
    Documents ids;
    int64_t text_bytes;
    double fraction; // of the files read when it was
} Slot;

typedef struct Dealer {
    const Comm *comm;
    const TokenizeOptions *options;
    TokenizeJob *job;
    Encoder *encoder;
    bool at_end;         // of the texts
    Documents next;      // owned: read ahead, so that an idle rank need not wait for it
    int64_t next_batch;  // its number; NOBODY: there is none
    Documents own;       // owned: the batch rank 0 works on
    int64_t own_batch;   // its number; NOBODY: there is none
    int64_t own_done;    // documents of it
    int64_t own_offset;  // and their bytes
    int64_t n_read;      // batches so far: batch b is in slot b % n_slots
    int64_t n_written;   // likewise
    int n_slots, n_busy; // ranks with a batch
    int64_t *batch_of;   // owned [ranks]: the batch a rank has, or NOBODY
    Slot *slots;         // owned [n_slots]
    TokenizeCounts counts;
} Dealer;

static void send_documents(const Comm *comm, const Documents *documents, Header header, int to)
{
    comm_send(comm, &header, sizeof header, to);
    comm_send(comm, documents->sizes, header.count * (int64_t)sizeof *documents->sizes, to);
    comm_send(comm, documents->bytes, header.size_bytes, to);
}

// Receives what follows a header; without memory it is received all the same, and dropped.
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

// ---- The other ranks ---------------------------------------------------------------------------

// Receives and tokenizes one batch. On failure its answer is the error text.
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

static Status work(const Comm *comm, Encoder *encoder)
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
    // Rank 0 has the text; the agreement that follows spreads it.
    return header.status == OK ? OK : fail((Status)header.status, "rank 0 failed");
}

// ---- Rank 0 ------------------------------------------------------------------------------------

// Takes the answer of a rank that has one.
static Status collect(Dealer *d, int from)
{
    Header header;
    comm_receive(d->comm, &header, sizeof header, from);
    Slot *slot = &d->slots[d->batch_of[from] % d->n_slots];
    d->batch_of[from] = NOBODY;
    d->n_busy--;
    TRY(receive_documents(d->comm, &slot->ids, &header, from));
    if (header.status != OK)
        return fail((Status)header.status, "rank %d: %.1800s", from, slot->ids.bytes);
    slot->is_done = true;
    return OK;
}

static Status write_finished(Dealer *d)
{
    for (; d->n_written < d->n_read; d->n_written++) {
        Slot *slot = &d->slots[d->n_written % d->n_slots];
        if (!slot->is_done)
            break;
        TRY(tokenize_write(d->job, &slot->ids));
        slot->is_done = false;
        d->counts.text_bytes += slot->text_bytes;
        d->counts.fraction = slot->fraction;
    }
    tokenize_count(d->job, &d->counts);
    if (d->options->on_progress != NULL)
        d->options->on_progress(&d->counts);
    return OK;
}

// Reads the next batch and gives it a slot, if there is neither one read already nor the ring full
// nor the texts at their end.
static Status read_ahead(Dealer *d)
{
    if (d->next_batch != NOBODY || d->at_end || d->n_read - d->n_written == d->n_slots)
        return OK;
    Slot *slot = &d->slots[d->n_read % d->n_slots];
    TRY(tokenize_read(d->job, &d->next, &slot->fraction));
    d->at_end = d->next.count == 0;
    if (d->at_end)
        return OK;
    slot->text_bytes = d->next.size_bytes;
    slot->ids.count = slot->ids.size_bytes = 0;
    d->next_batch = d->n_read++;
    return OK;
}

static Status feed_idle_ranks(Dealer *d)
{
    for (int rank = 1; rank < d->comm->size; rank++) {
        if (d->batch_of[rank] != NOBODY)
            continue;
        TRY(read_ahead(d));
        if (d->next_batch == NOBODY)
            break;
        // The rank waits for this, so it does not stand still for long.
        send_documents(d->comm, &d->next, (Header){d->next.count, d->next.size_bytes, OK}, rank);
        d->batch_of[rank] = d->next_batch;
        d->next_batch = NOBODY;
        d->n_busy++;
    }
    return read_ahead(d);
}

static void take_own(Dealer *d)
{
    const Documents done = d->own;
    d->own = d->next;
    d->own_batch = d->next_batch;
    d->own_done = d->own_offset = 0;
    d->next = done;
    d->next_batch = NOBODY;
}

static Status encode_one_of_own(Dealer *d)
{
    Slot *slot = &d->slots[d->own_batch % d->n_slots];
    const int64_t size_bytes = d->own.sizes[d->own_done];
    TRY(encoder_append(d->encoder, &slot->ids, d->own.bytes + d->own_offset, size_bytes));
    d->own_offset += size_bytes;
    if (++d->own_done == d->own.count) {
        slot->is_done = true;
        d->own_batch = NOBODY;
    }
    return OK;
}

static Status deal(Dealer *d)
{
    for (;;) {
        if (d->options->stop != NULL && *d->options->stop != 0)
            return fail(FAILED, "interrupted; %s is not written", d->options->out);
        for (int from; d->n_busy > 0 && (from = comm_probe(d->comm, false)) >= 0;)
            TRY(collect(d, from));
        TRY(write_finished(d));
        TRY(feed_idle_ranks(d));
        if (d->own_batch != NOBODY) {
            TRY(encode_one_of_own(d));
        } else if (d->next_batch != NOBODY) {
            take_own(d);
        } else if (d->n_busy > 0) {
            TRY(collect(d, comm_probe(d->comm, true)));
        } else if (d->n_written == d->n_read) {
            return OK;
        }
    }
}

// Takes what ranks still answer, and tells all how it ended.
static void dismiss(Dealer *d, Status status)
{
    char text[TEXT_BYTES];
    snprintf(text, sizeof text, "%s", fail_text());
    while (d->n_busy > 0)
        (void)collect(d, comm_probe(d->comm, true)); // the first failure is the one to report
    const Header end = {.count = -1, .status = status};
    for (int rank = 1; rank < d->comm->size; rank++)
        comm_send(d->comm, &end, sizeof end, rank);
    if (status != OK)
        (void)fail(status, "%s", text);
}

static Status start_dealer(Dealer *out, const Comm *comm, const TokenizeOptions *options)
{
    Dealer d = {.comm = comm,
                .options = options,
                .next_batch = NOBODY,
                .own_batch = NOBODY,
                .n_slots = SLOTS_PER_RANK * comm->size};
    d.batch_of = malloc((size_t)comm->size * sizeof *d.batch_of);
    d.slots = calloc((size_t)d.n_slots, sizeof *d.slots);
    for (int rank = 0; rank < comm->size && d.batch_of != NULL; rank++)
        d.batch_of[rank] = NOBODY;
    *out = d;
    return d.batch_of != NULL && d.slots != NULL
               ? OK
               : fail(FAILED, "out of memory for %d ranks", comm->size);
}

static void release_dealer(Dealer *d)
{
    for (int s = 0; s < d->n_slots && d->slots != NULL; s++)
        documents_release(&d->slots[s].ids);
    documents_release(&d->next);
    documents_release(&d->own);
    free(d->slots);
    free(d->batch_of);
}

// ---- All ranks ---------------------------------------------------------------------------------

// What rank 0 did alone goes for all: no rank is named in its text.
static Status follow_rank_0(const Comm *comm, Status status)
{
    return comm_agree_of(comm, comm->rank == 0, status);
}

// "2 files of 4711 bytes in all"; false: this rank does not see them.
static bool describe_texts(char out[TEXTS_BYTES], char *const *patterns, int n_patterns)
{
    PathList list;
    int64_t bytes = 0;
    struct stat info = {0};
    if (paths_expand(&list, patterns, n_patterns) != OK)
        return false;
    int n = 0;
    while (n < list.count && stat(list.paths[n], &info) == 0) {
        bytes += (int64_t)info.st_size;
        n++;
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

// Machines may have files of their own; the ids must come from the same tokenizer.
static Status open_same_encoder(Encoder *out, const Comm *comm, const TokenizeOptions *options)
{
    const Status status = encoder_open(out, options);
    return agreement_tokenizer(comm, status == OK ? tokenizer_sha256(out->tokenizer) : "", status);
}

// Rank 0's whole part once everybody has the tokenizer.
static Status deal_and_finish(Dealer *d)
{
    Status status = deal(d);
    if (status == OK)
        tokenize_count(d->job, &d->counts);
    if (status == OK)
        status = tokenize_finish(d->job);
    else
        tokenize_abandon(d->job); // at once: after a signal there may be little time
    d->job = NULL;
    dismiss(d, status);
    return status;
}

Status tokenize_over_ranks(TokenizeCounts *out, const Comm *comm, const TokenizeOptions *options,
                           char *const *patterns, int n_patterns)
{
    Encoder encoder = {0};
    Dealer d = {0};
    const bool deals = comm->rank == 0;
    Status status = deals ? start_dealer(&d, comm, options) : OK;
    if (deals && status == OK)
        status = tokenize_open(&d.job, options, patterns, n_patterns);
    TRY_GOTO(release, follow_rank_0(comm, status));
    TRY_GOTO(release, agree_on_texts(comm, patterns, n_patterns));
    TRY_GOTO(release, open_same_encoder(&encoder, comm, options));
    d.encoder = &encoder;
    TRY_GOTO(release, follow_rank_0(comm, deals ? tokenize_create(d.job, &encoder) : OK));
    TRY_GOTO(release, comm_agree(comm, deals ? deal_and_finish(&d) : work(comm, &encoder)));
    *out = d.counts;
release:
    tokenize_abandon(d.job);
    release_dealer(&d);
    encoder_close(&encoder);
    return status;
}
