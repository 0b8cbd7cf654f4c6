#include "eval/longbench/subsequence.h"

#include "base/intmath.h"

#include <string.h>

enum { WORD_BITS = 64, KEPT_BYTES = 1 << 26 };

static int64_t words_of(int64_t n_bits)
{
    return (n_bits + WORD_BITS - 1) / WORD_BITS;
}

Status subsequence_create(Subsequence *out, ScoreWork *work, int64_t most_b, int32_t n_symbols)
{
    const int64_t n_words = words_of(most_b);
    Subsequence lcs = {.last = score_work_take(work, n_symbols, sizeof *lcs.last)};
    lcs.dense_of = score_work_take(work, n_symbols, sizeof *lcs.dense_of);
    lcs.before = score_work_take(work, most_b, sizeof *lcs.before);
    lcs.dense = score_work_take(work, (WORD_BITS - 1) * n_words, sizeof *lcs.dense);
    lcs.mask = score_work_take(work, n_words, sizeof *lcs.mask);
    lcs.row = score_work_take(work, n_words, sizeof *lcs.row);
    if (lcs.last == NULL || lcs.dense_of == NULL || lcs.before == NULL || lcs.dense == NULL ||
        lcs.mask == NULL || lcs.row == NULL)
        return FAILED;
    *out = lcs;
    return OK;
}

// A mask that is made anew for every row costs a step per position that it has. So that this is no
// more than the row's, symbols at more than n_words positions, of which there are less than 64,
// have masks of their own.
static void make_dense_masks(Subsequence *lcs)
{
    int32_t *dense_of = lcs->dense_of, n_dense = 0;
    for (int64_t j = 0; j < lcs->n_b; j++)
        dense_of[lcs->b[j]]++; // counts, until the next loop has been at the symbol's last position
    for (int64_t j = 0; j < lcs->n_b; j++)
        if (lcs->last[lcs->b[j]] == j + 1)
            dense_of[lcs->b[j]] = dense_of[lcs->b[j]] > lcs->n_words ? ++n_dense : 0;
    memset(lcs->dense, 0, (size_t)(n_dense * lcs->n_words) * sizeof *lcs->dense);
    for (int64_t j = 0; j < lcs->n_b; j++) {
        const int32_t mask = dense_of[lcs->b[j]];
        if (mask > 0)
            lcs->dense[(mask - 1) * lcs->n_words + j / WORD_BITS] |= (uint64_t)1 << j % WORD_BITS;
    }
}

void subsequence_set(Subsequence *lcs, const int32_t *b, int64_t n_b)
{
    for (int64_t j = 0; j < lcs->n_b; j++)
        lcs->last[lcs->b[j]] = lcs->dense_of[lcs->b[j]] = 0;
    lcs->b = b;
    lcs->n_b = n_b;
    lcs->n_words = words_of(n_b);
    for (int64_t j = 0; j < n_b; j++) {
        lcs->before[j] = lcs->last[b[j]];
        lcs->last[b[j]] = (int32_t)j + 1;
    }
    make_dense_masks(lcs);
}

static void set_positions(Subsequence *lcs, int32_t symbol, bool to)
{
    for (int32_t j = lcs->last[symbol]; j > 0; j = lcs->before[j - 1]) {
        const uint64_t bit = (uint64_t)1 << (j - 1) % WORD_BITS;
        uint64_t *word = &lcs->mask[(j - 1) / WORD_BITS];
        *word = to ? *word | bit : *word & ~bit;
    }
}

// From the row of a[:i] to that of a[:i + 1], whose last symbol this is. In one word:
// row = (row + (row & mask)) | (row & ~mask).
static void advance(Subsequence *lcs, int32_t symbol)
{
    const int32_t dense = lcs->dense_of[symbol];
    const uint64_t *mask = lcs->mask;
    uint64_t carry = 0;
    if (dense > 0)
        mask = lcs->dense + (dense - 1) * lcs->n_words;
    else if (lcs->last[symbol] == 0)
        return;
    else
        set_positions(lcs, symbol, true);
    for (int64_t w = 0; w < lcs->n_words; w++) {
        const uint64_t old = lcs->row[w], matches = old & mask[w];
        uint64_t sum;
        const bool overflows = __builtin_add_overflow(old, matches, &sum);
        const bool carries = __builtin_add_overflow(sum, carry, &sum);
        lcs->row[w] = sum | (old & ~mask[w]);
        carry = overflows || carries;
    }
    if (dense == 0)
        set_positions(lcs, symbol, false);
}

static void start(Subsequence *lcs)
{
    memset(lcs->row, 0xFF, (size_t)lcs->n_words * sizeof *lcs->row);
}

// Rows may be made twice; a call's own costs are those of some 64 words.
int64_t subsequence_steps(int64_t n_a, int64_t n_b)
{
    return n_a * 2 * (words_of(n_b) + 1) + n_b + 64;
}

int64_t subsequence_length(Subsequence *lcs, const int32_t *a, int64_t n_a)
{
    start(lcs);
    for (int64_t i = 0; i < n_a; i++)
        advance(lcs, a[i]);
    int64_t length = 0;
    for (int64_t j = 0; j < lcs->n_b; j++)
        length += !(lcs->row[j / WORD_BITS] >> j % WORD_BITS & 1);
    return length;
}

// Where a trace is: before a[i - 1] and b[j - 1].
typedef struct Trace {
    int64_t i, j;
} Trace;

// Goes back through the rows of a[:first + 1], a[:first + 2] ... in `rows`. If a step to the left
// loses a symbol, the upper cell is the larger one: where the symbols differ, t[i][j] is the larger
// of the two.
static void trace_back(Trace *trace, bool *is_in, const Subsequence *lcs, const int32_t *a,
                       const uint64_t *rows, int64_t first)
{
    while (trace->i > first && trace->j > 0) {
        const int64_t i = trace->i - 1, j = trace->j - 1;
        const uint64_t *row = rows + (i - first) * lcs->n_words;
        if (a[i] == lcs->b[j]) {
            is_in[a[i]] = true;
            *trace = (Trace){i, j};
        } else if (row[j / WORD_BITS] >> j % WORD_BITS & 1) {
            trace->j = j;
        } else {
            trace->i = i;
        }
    }
}

static Status keep_words(Subsequence *lcs, ScoreWork *work, int64_t n)
{
    if (n <= lcs->n_kept)
        return OK;
    n = max_int64(n, 2 * lcs->n_kept);
    lcs->kept = score_work_take(work, n, sizeof *lcs->kept);
    lcs->n_kept = lcs->kept != NULL ? n : 0;
    return lcs->kept != NULL ? OK : FAILED;
}

// All rows of two long sequences would not fit the memory: every block's first one is kept, and the
// blocks are made again, the last one first.
Status subsequence_mark(bool *is_in, Subsequence *lcs, ScoreWork *work, const int32_t *a,
                        int64_t n_a)
{
    const int64_t n_words = lcs->n_words;
    const size_t row_bytes = (size_t)n_words * sizeof *lcs->row;
    const int64_t block_rows = max_int64(1, KEPT_BYTES / (int64_t)(row_bytes + 1));
    const int64_t n_blocks = (n_a + block_rows - 1) / block_rows;
    const int64_t n_rows = min_int64(n_a, block_rows);
    Trace trace = {n_a, lcs->n_b};
    TRY(keep_words(lcs, work, (n_rows + n_blocks) * n_words));
    uint64_t *rows = lcs->kept, *first_rows = rows + n_rows * n_words;
    start(lcs);
    for (int64_t i = 0; i < n_a; i++) {
        if (i % block_rows == 0)
            memcpy(first_rows + i / block_rows * n_words, lcs->row, row_bytes);
        if (n_blocks == 1)
            break;
        advance(lcs, a[i]);
    }
    for (int64_t block = n_blocks - 1; block >= 0; block--) {
        const int64_t first = block * block_rows, end = min_int64(n_a, first + block_rows);
        memcpy(lcs->row, first_rows + block * n_words, row_bytes);
        for (int64_t i = first; i < end; i++) {
            advance(lcs, a[i]);
            memcpy(rows + (i - first) * n_words, lcs->row, row_bytes);
        }
        trace_back(&trace, is_in, lcs, a, rows, first);
    }
    return OK;
}
