// The longest common subsequence (LCS) of two sequences of symbols, 64 cells of the table at a
// time.
//
//     Subsequence lcs;
//     TRY(subsequence_create(&lcs, work, most_b, n_symbols));
//     subsequence_set(&lcs, b, n_b);                             // any number of sequences b,
//     length = subsequence_length(&lcs, a, n_a);                 // and of sequences a with each
//     TRY(subsequence_mark(is_in, &lcs, work, a, n_a));
//
// In row i of the table t[i][j], the LCS of a[:i] and b[:j], neighbours differ by 0 or 1, so a row
// is n_b bits. A step makes 64 of them (Hyyrö, "Bit-parallel LCS-length computation revisited",
// 2004).
//
// Memory: 13 bytes per symbol of b, 8 per kind of symbol; for marking 64 MiB of rows at most and
// the first row of each 64 MiB.
#ifndef MHA2MLA_EVAL_LONGBENCH_SUBSEQUENCE_H
#define MHA2MLA_EVAL_LONGBENCH_SUBSEQUENCE_H

#include "eval/longbench/score_work.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct Subsequence {
    const int32_t *b; // [n_b], borrowed
    int64_t n_b;
    int64_t n_words;   // 64-bit words of a row
    int32_t *last;     // [n_symbols] 1 + the last position of a symbol in b; 0: it is not there
    int32_t *before;   // [n_b] the same for the position before this one
    int32_t *dense_of; // [n_symbols] 1 + the dense mask of a symbol; 0: it has none
    uint64_t *dense;   // [at most 63, n_words] positions of the symbols that are frequent in b
    uint64_t *mask;    // [n_words] positions of one other symbol
    uint64_t *kept;    // [n_kept] rows of a trace
    int64_t n_kept;
    uint64_t *row; // [n_words] a bit is 0 where t[i][j + 1] = t[i][j] + 1
} Subsequence;

// Room for sequences b of up to most_b symbols from 0 to n_symbols - 1.
Status subsequence_create(Subsequence *out, ScoreWork *work, int64_t most_b, int32_t n_symbols);

void subsequence_set(Subsequence *lcs, const int32_t *b, int64_t n_b);

// Steps that the functions below take with sequences of these lengths, for score_work_spend();
// linear in n_a.
int64_t subsequence_steps(int64_t n_a, int64_t n_b);

// The length of the LCS of a [n_a] and b.
int64_t subsequence_length(Subsequence *lcs, const int32_t *a, int64_t n_a);

// Sets is_in[s] for each symbol s of that LCS which a trace from the end finds that takes equal
// symbols, else goes to t[i-1][j] if that is more than t[i][j-1], else to t[i][j-1]. FAILED without
// memory.
Status subsequence_mark(bool *is_in, Subsequence *lcs, ScoreWork *work, const int32_t *a,
                        int64_t n_a);

#endif
