// Three phases with barriers between them: queries into tiles (absorbed: through U_k), tiles over
// the blocks of the cache, and the output (absorbed: through U_v). The up-projections run head by
// head over all positions of the batch, so that a weight is read once.
//
// A span's blocks are divided into parts, each with accumulators of its own, which the third phase
// merges. Where parts end depends on the number of blocks alone, so that the bits of a position's
// output depend neither on the other spans of the batch nor on the number of threads. Both decide
// how many of a span's parts in a row make a work item of the second phase, so that one long
// sequence keeps all threads busy and many are not cut up.
#include "infer/attention/attend_paths.h"

#include "base/intmath.h"
#include "base/simd.h"

#include <omp.h>
#include <string.h>

enum {
    TILE_ROWS = 96,       // of a tile, about: its scores stay in the first cache
    PART_BLOCKS = 2,      // of a part: merging it costs as much as two or three more positions
    MAX_PARTS = 32,       // of a span, for their accumulators' memory; then parts are longer
    ITEMS_PER_THREAD = 4, // so that threads end together
};

typedef struct BatchSpan {
    AttendSpan span;
    int first_token;         // of the batch
    int n_blocks;            // that its last position sees
    int n_parts;             // of the blocks
    int first_item, n_items; // work items of the second phase
    int64_t first_part_row;  // of the accumulators
} BatchSpan;

typedef struct Batch {
    const AttendCall *call;
    AttendDims dims;
    BatchSpan spans[ATTEND_BATCH_TOKENS];
    int n_spans, n_tokens, n_items;
    // Scratch of all threads. Rows of a span: head h, position i at H first_token + h n + i.
    float *q_key, *q_latent;          // [n_tokens H, width]
    float *sums, *row_max, *row_sums; // [part rows, ...]
    // Each thread its own.
    AttendWork work;
    float *product_in,
        *product_out; // [ATTEND_BATCH_TOKENS, ...] of an up-projection
} Batch;

int attend_span_tokens(const AttendDims *dims)
{
    return TILE_ROWS / dims->H > 0 ? TILE_ROWS / dims->H : 1;
}

static void place_shared(Batch *b, Arena *arena, int n_tokens)
{
    const AttendDims *d = &b->dims;
    const int64_t rows = (int64_t)n_tokens * d->H;
    // Most where every position is a span of its own.
    const int64_t part_rows = (int64_t)MAX_PARTS * n_tokens * round_up(d->H, ATTEND_ROWS);
    b->q_key = arena_floats(arena, rows * d->key_width);
    b->q_latent = arena_floats(arena, rows * d->latent);
    b->sums = arena_floats(arena, part_rows * d->value_ld);
    b->row_max = arena_floats(arena, part_rows);
    b->row_sums = arena_floats(arena, part_rows * ATTEND_LANES);
}

static void place_own(Batch *b, Arena *arena, int n_tokens)
{
    const AttendDims *d = &b->dims;
    attend_work_place(&b->work, arena, d, d->H * min_int(attend_span_tokens(d), n_tokens));
    if (!d->is_mla)
        return;
    const int rows = min_int(ATTEND_BATCH_TOKENS, n_tokens * d->up_group);
    const int most = d->value_width > d->E ? d->value_width : d->E; // latent <= value_width
    b->product_in = arena_floats(arena, (int64_t)rows * most);
    b->product_out = arena_floats(arena, (int64_t)rows * most);
}

int64_t attend_batch_scratch_floats(const ModelShape *shape, int max_tokens, int n_threads)
{
    Batch b = {.dims = attend_dims(shape)};
    const int n_tokens = min_int(max_tokens, ATTEND_BATCH_TOKENS);
    Arena shared = arena_start("attend"), own = arena_start("attend");
    place_shared(&b, &shared, n_tokens);
    place_own(&b, &own, n_tokens);
    return (shared.used_bytes + n_threads * own.used_bytes) / (int64_t)sizeof(float);
}

// Numbers the spans' positions, blocks, parts and items. A span gets items by its share of the
// work, at least one.
static void divide(Batch *b, const AttendSpan *spans, int n_spans, int n_threads)
{
    double work = 0; // blocks times positions
    for (int i = 0; i < n_spans; i++) {
        const AttendSpan *s = &spans[i];
        const int end = s->job->first + s->offset + s->n;
        b->spans[i] = (BatchSpan){*s, b->n_tokens, kv_n_blocks(s->job->sequence, end)};
        b->n_tokens += s->n;
        work += (double)b->spans[i].n_blocks * s->n;
    }
    b->n_spans = n_spans;
    const double items_per_work = ITEMS_PER_THREAD * n_threads / work;
    int64_t part_row = 0;
    for (int i = 0; i < n_spans; i++) {
        BatchSpan *s = &b->spans[i];
        const int n_items = (int)(items_per_work * s->n_blocks * s->span.n);
        s->n_parts = min_int(ceil_div(s->n_blocks, PART_BLOCKS), MAX_PARTS);
        s->n_items = min_int(n_items > 1 ? n_items : 1, s->n_parts);
        s->first_item = b->n_items;
        s->first_part_row = part_row;
        b->n_items += s->n_items;
        part_row += (int64_t)s->n_parts * round_up(b->dims.H * s->span.n, ATTEND_ROWS);
    }
}

static const BatchSpan *span_of_token(const Batch *b, int token)
{
    const BatchSpan *s = b->spans;
    while (token >= s->first_token + s->span.n)
        s++;
    return s;
}

static const BatchSpan *span_of_item(const Batch *b, int item)
{
    const BatchSpan *s = b->spans;
    while (item >= s->first_item + s->n_items)
        s++;
    return s;
}

// The row of a position of the batch and a head within its span.
static int row_in_span(const BatchSpan *s, int token, int h)
{
    return h * s->span.n + token - s->first_token;
}

static const float *query_of(const Batch *b, const BatchSpan *s, int token)
{
    return s->span.job->q + (int64_t)(s->span.offset + token - s->first_token) * b->call->ld_q;
}

static float *out_of(const Batch *b, const BatchSpan *s, int token)
{
    return s->span.job->out +
           (int64_t)(s->span.offset + token - s->first_token) * b->dims.H * b->dims.E;
}

HOT static void copy_scaled(float *restrict to, const float *restrict from, int count, float scale)
{
    for (int i = 0; i < count; i++)
        to[i] = scale * from[i];
}

// What of a position's queries meets keys as the cache has them.
static void pack_queries(const Batch *b, int token)
{
    const AttendDims *d = &b->dims;
    const BatchSpan *s = span_of_token(b, token);
    const float *q = query_of(b, s, token);
    for (int h = 0; h < d->H; h++) {
        const int64_t row = (int64_t)d->H * s->first_token + row_in_span(s, token, h);
        copy_scaled(b->q_key + row * d->key_width, q + h * d->key_width, d->key_width, d->scale);
    }
}

// Rows of one head of the up-projections: those of all positions, of up_group query heads each. An
// item is a range of them.
typedef struct HeadRows {
    int j, first, count;
} HeadRows;

static int n_head_items(const Batch *b)
{
    return b->dims.up_heads * ceil_div(b->n_tokens * b->dims.up_group, ATTEND_BATCH_TOKENS);
}

static HeadRows head_rows(const Batch *b, int item)
{
    const int rows = b->n_tokens * b->dims.up_group, n_ranges = ceil_div(rows, ATTEND_BATCH_TOKENS);
    const int first = item % n_ranges * ATTEND_BATCH_TOKENS;
    return (HeadRows){item / n_ranges, first, min_int(ATTEND_BATCH_TOKENS, rows - first)};
}

static int token_of_row(const AttendDims *d, HeadRows r, int i)
{
    return (r.first + i) / d->up_group;
}

static int head_of_row(const AttendDims *d, HeadRows r, int i)
{
    return r.j * d->up_group + (r.first + i) % d->up_group;
}

// q_latent = scale U_k,j^T q_c.
static void absorb_keys(const Batch *b, int item)
{
    const AttendDims *d = &b->dims;
    const HeadRows r = head_rows(b, item);
    for (int i = 0; i < r.count; i++) {
        const int token = token_of_row(d, r, i), h = head_of_row(d, r, i);
        const float *q = query_of(b, span_of_token(b, token), token);
        copy_scaled(b->product_in + (int64_t)i * d->nope, q + d->H * d->key_width + h * d->nope,
                    d->nope, d->scale);
    }
    const WeightMatrix up = weight_rows(b->call->up_k, r.j * d->nope, d->nope);
    weight_product_transposed(b->product_out, d->latent, b->product_in, d->nope, &up, r.count,
                              false);
    for (int i = 0; i < r.count; i++) {
        const int token = token_of_row(d, r, i), h = head_of_row(d, r, i);
        const BatchSpan *s = span_of_token(b, token);
        const int64_t row = (int64_t)d->H * s->first_token + row_in_span(s, token, h);
        memcpy(b->q_latent + row * d->latent, b->product_out + (int64_t)i * d->latent,
               (size_t)d->latent * sizeof(float));
    }
}

static AttendTile tile_of(const Batch *b, const BatchSpan *s, int part)
{
    const AttendDims *d = &b->dims;
    const int64_t row = (int64_t)d->H * s->first_token;
    const int64_t part_row =
        s->first_part_row + (int64_t)part * round_up(d->H * s->span.n, ATTEND_ROWS);
    return (AttendTile){
        .first = s->span.job->first + s->span.offset,
        .n = s->span.n,
        .n_heads = d->K,
        .q_key = b->q_key + row * d->key_width,
        .q_latent = b->q_latent + row * d->latent,
        .sums = b->sums + part_row * d->value_ld,
        .row_max = b->row_max + part_row,
        .row_sums = b->row_sums + part_row * ATTEND_LANES,
    };
}

// The first of n things for share i of n_shares, or their end for i = n_shares.
static int share_start(int n, int i, int n_shares)
{
    return (int)((int64_t)i * n / n_shares);
}

// Some of a span's parts, one after the other. What a kernel starts with are the queries, which all
// have in common; the next block is asked for across their borders.
static void run_item(const Batch *b, int item)
{
    const AttendKernel *kernel = b->call->kernel;
    const BatchSpan *s = span_of_item(b, item);
    const KvSequence *sequence = s->span.job->sequence;
    const int share = item - s->first_item;
    const int first_part = share_start(s->n_parts, share, s->n_items),
              end_part = share_start(s->n_parts, share + 1, s->n_items),
              end = share_start(s->n_blocks, end_part, s->n_parts);
    AttendTile tile = tile_of(b, s, first_part);
    if (kernel->start != NULL)
        kernel->start(&b->work, &tile);
    int i = share_start(s->n_blocks, first_part, s->n_parts);
    KvBlock next = kv_block(sequence, b->call->layer, i);
    for (int part = first_part; part < end_part; part++) {
        tile = tile_of(b, s, part);
        attend_tile_start(&tile, &b->dims);
        for (; i < share_start(s->n_blocks, part + 1, s->n_parts); i++) {
            const KvBlock block = next;
            *b->work.ahead = (KvFetch){0};
            if (i + 1 < end) {
                next = kv_block(sequence, b->call->layer, i + 1);
                *b->work.ahead = kv_block_fetch(&next, ATTEND_SLICES);
            }
            kernel->block(&b->work, &tile, &block);
        }
    }
    if (kernel->finish != NULL)
        kernel->finish(&b->work);
}

static void merge_row(float *out, const Batch *b, const BatchSpan *s, int token, int h)
{
    const AttendTile tile = tile_of(b, s, 0);
    attend_tile_merge(out, &tile, &b->dims, s->n_parts, row_in_span(s, token, h));
}

// Original attention: the weighted values are the output.
static void write_output(const Batch *b, int token)
{
    const BatchSpan *s = span_of_token(b, token);
    for (int h = 0; h < b->dims.H; h++)
        merge_row(out_of(b, s, token) + h * b->dims.E, b, s, token, h);
}

// out = U_v,j times the weighted latent.
static void expand_output(const Batch *b, int item)
{
    const AttendDims *d = &b->dims;
    const HeadRows r = head_rows(b, item);
    for (int i = 0; i < r.count; i++) {
        const int token = token_of_row(d, r, i), h = head_of_row(d, r, i);
        merge_row(b->product_in + (int64_t)i * d->value_width, b, span_of_token(b, token), token,
                  h);
    }
    const WeightMatrix up = weight_rows(b->call->up_v, r.j * d->E, d->E);
    weight_product(b->product_out, d->E, b->product_in, d->value_width, &up, r.count, false);
    for (int i = 0; i < r.count; i++) {
        const int token = token_of_row(d, r, i), h = head_of_row(d, r, i);
        memcpy(out_of(b, span_of_token(b, token), token) + h * d->E,
               b->product_out + (int64_t)i * d->E, (size_t)d->E * sizeof(float));
    }
}

void attend_batch(const AttendCall *call, const AttendSpan *spans, int n_spans)
{
    const int n_threads = omp_get_max_threads();
    Batch shared = {.call = call, .dims = attend_dims(call->shape)};
    divide(&shared, spans, n_spans, n_threads);
    Arena arena = arena_over("attend", call->scratch, INT64_MAX), own = arena_start("attend");
    place_shared(&shared, &arena, shared.n_tokens);
    place_own(&shared, &own, shared.n_tokens);
    const int64_t shared_floats = arena.used_bytes / (int64_t)sizeof(float),
                  own_floats = own.used_bytes / (int64_t)sizeof(float);
    const bool is_mla = shared.dims.is_mla;
#pragma omp parallel num_threads(n_threads)
    {
        Batch b = shared;
        Arena mine = arena_over(
            "attend", call->scratch + shared_floats + omp_get_thread_num() * own_floats, INT64_MAX);
        place_own(&b, &mine, b.n_tokens);
#pragma omp for schedule(static) nowait
        for (int token = 0; token < b.n_tokens; token++)
            pack_queries(&b, token);
#pragma omp for schedule(static)
        for (int item = 0; item < (b.dims.latent > 0 ? n_head_items(&b) : 0); item++)
            absorb_keys(&b, item);
#pragma omp for schedule(dynamic)
        for (int item = 0; item < b.n_items; item++)
            run_item(&b, item);
#pragma omp for schedule(static)
        for (int item = 0; item < (is_mla ? n_head_items(&b) : b.n_tokens); item++)
            if (is_mla)
                expand_output(&b, item);
            else
                write_output(&b, item);
    }
}
