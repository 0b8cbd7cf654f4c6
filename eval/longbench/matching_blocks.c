#include "eval/longbench/matching_blocks.h"

enum { AUTOJUNK_LEAST = 200 };

// A pair of parts: a[a_first:a_end] and b[b_first:b_end].
typedef struct Parts {
    int64_t a_first, a_end, b_first, b_end;
} Parts;

typedef struct Block {
    int64_t a, b, n; // a[a:a + n] == b[b:b + n]
} Block;

// How long the match is that ends at a place of b and at the row's symbol of a.
typedef struct Run {
    int64_t row; // valid in this row alone
    int64_t n;
} Run;

typedef struct Matcher {
    const int32_t *a, *b;
    int64_t *first;  // [n_symbols + 1] where a symbol's places begin
    int32_t *places; // [n_b] places in b by symbol, ascending; a popular symbol has none
    Run *runs[2];    // [n_b] of this row and of the one before
    int64_t row;     // counts over all searches
} Matcher;

// b2j without popular symbols.
static Status index_places(Matcher *m, ScoreWork *work, int64_t n_b, int32_t n_symbols)
{
    const int64_t most = n_b >= AUTOJUNK_LEAST ? n_b / 100 + 1 : n_b;
    int64_t *counts = score_work_take(work, n_symbols, sizeof *counts);
    m->first = score_work_take(work, (int64_t)n_symbols + 1, sizeof *m->first);
    m->places = score_work_take(work, n_b, sizeof *m->places);
    if (counts == NULL || m->first == NULL || m->places == NULL)
        return FAILED;
    for (int64_t j = 0; j < n_b; j++)
        counts[m->b[j]]++;
    for (int32_t s = 0; s < n_symbols; s++) {
        m->first[s + 1] = m->first[s] + (counts[s] > most ? 0 : counts[s]);
        counts[s] = 0;
    }
    for (int64_t j = 0; j < n_b; j++) {
        const int32_t s = m->b[j];
        if (m->first[s] + counts[s] < m->first[s + 1])
            m->places[m->first[s] + counts[s]++] = (int32_t)j;
    }
    return OK;
}

// The index of the first place of a symbol in b[b_first:].
static int64_t first_place(const Matcher *m, int32_t symbol, int64_t b_first)
{
    int64_t low = m->first[symbol], high = m->first[symbol + 1];
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (m->places[middle] < b_first)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Popular symbols beside a block join it.
static void extend(Block *block, const Matcher *m, const Parts *parts)
{
    while (block->a > parts->a_first && block->b > parts->b_first &&
           m->a[block->a - 1] == m->b[block->b - 1])
        *block = (Block){block->a - 1, block->b - 1, block->n + 1};
    while (block->a + block->n < parts->a_end && block->b + block->n < parts->b_end &&
           m->a[block->a + block->n] == m->b[block->b + block->n])
        block->n++;
}

// find_longest_match(): of equally long ones the first in a, then in b; then its extension. The
// block has n = 0 where nothing matches, and may start from nothing at the parts' beginning.
static Status longest_match(Block *out, Matcher *m, ScoreWork *work, const Parts *parts)
{
    Block best = {parts->a_first, parts->b_first, 0};
    m->row++; // no row is the one before the first
    for (int64_t i = parts->a_first; i < parts->a_end; i++) {
        const int32_t symbol = m->a[i];
        Run *runs = m->runs[++m->row % 2];
        const Run *before = m->runs[(m->row - 1) % 2];
        const int64_t from = first_place(m, symbol, parts->b_first);
        int64_t at = from;
        for (; at < m->first[symbol + 1] && m->places[at] < parts->b_end; at++) {
            const int64_t j = m->places[at];
            const bool goes_on = j > parts->b_first && before[j - 1].row == m->row - 1;
            const int64_t n = (goes_on ? before[j - 1].n : 0) + 1;
            runs[j] = (Run){m->row, n};
            if (n > best.n)
                best = (Block){i - n + 1, j - n + 1, n};
        }
        TRY(score_work_spend(work, at - from + 1));
    }
    extend(&best, m, parts);
    *out = best;
    return OK;
}

static int push(Parts *stack, int64_t n, Parts parts)
{
    if (parts.a_first == parts.a_end || parts.b_first == parts.b_end)
        return 0;
    stack[n] = parts;
    return 1;
}

Status matching_blocks_count(int64_t *out, ScoreWork *work, const int32_t *a, int64_t n_a,
                             const int32_t *b, int64_t n_b, int32_t n_symbols)
{
    Matcher m = {.a = a, .b = b, .row = 1};
    TRY(index_places(&m, work, n_b, n_symbols));
    // Pending parts of b do not overlap and none is empty.
    Parts *stack = score_work_take(work, n_b + 1, sizeof *stack);
    for (int i = 0; i < 2; i++)
        m.runs[i] = score_work_take(work, n_b, sizeof *m.runs[i]);
    if (stack == NULL || m.runs[0] == NULL || m.runs[1] == NULL)
        return FAILED;
    int64_t n = push(stack, 0, (Parts){0, n_a, 0, n_b}), total = 0;
    while (n > 0) {
        const Parts parts = stack[--n];
        Block block;
        TRY(longest_match(&block, &m, work, &parts));
        if (block.n == 0)
            continue;
        total += block.n;
        n += push(stack, n, (Parts){parts.a_first, block.a, parts.b_first, block.b});
        n +=
            push(stack, n, (Parts){block.a + block.n, parts.a_end, block.b + block.n, parts.b_end});
    }
    *out = total;
    return OK;
}
