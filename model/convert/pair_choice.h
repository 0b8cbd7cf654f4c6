// The RoPE pairs of a KV head whose loss changes the attention distributions least, by the Gram
// matrices of model/convert/statistics.h, and the map of the query that stands in for the others.
//
// Where pair p is not kept, its rotated score t_p is replaced by b1_p f1_p + b2_p f2_p of unrotated
// queries and keys. The error over all such pairs N,
//
//     1^T G[t_N, t_N] 1 - 2 b^T y + b^T G[f_N, f_N] b,   y = G[f_N, t_N] 1,
//
// is twice the second-order Kullback-Leibler divergence. Without absorption b1 = 1 and b2 = 0. With
// it b solves (G_ff + .02 diag) b = y + .02 diag (1, 0), and queries take the map in:
// q_N <- [[diag b1, diag b2], [-diag b2, diag b1]] q_N, which costs no cache.
//
//     PairChoice choice;
//     TRY(pair_choice_start(&choice, E / 2));
//     pair_choice(kept, &choice, grams, G, P, true);      // ascending
//     error = pair_choice_map(map, &choice, gram, kept, P, true);
//     pair_choice_end(&choice);
#ifndef MHA2MLA_MODEL_CONVERT_PAIR_CHOICE_H
#define MHA2MLA_MODEL_CONVERT_PAIR_CHOICE_H

#include "base/arena.h"

typedef struct PairChoice {
    Arena arena;                           // owns what follows
    int half;                              // E/2
    double *system, *right, *solution, *b; // [2n, 2n] and [2n] of the n pairs that are not kept
    int32_t *rest, *trial, *taken;
    double *map;
} PairChoice;

Status pair_choice_start(PairChoice *out, int half); // FAILED if memory is short
void pair_choice_end(PairChoice *choice);

// Adds to a measuring arena what pair_choice_start() takes.
void pair_choice_measure(Arena *arena, int half);

// Takes f out of the Gram matrices [n_heads, S, S] of a layer without RoPE. A pair that is not kept
// loses nothing there but its place beside the latent; without f the error is that of scores
// without the pair, so that the ones are kept that scores need most.
void pair_choice_without_rope(double *grams, int n_heads, int half);

// kept [P], ascending, P in 0..E/2, for the query heads of one KV head: greedy, then the best swap
// as long as one improves. Of equal choices the lower pairs. Returns the sum of the heads' errors.
double pair_choice(int32_t *kept, PairChoice *choice,
                   const double *grams, // [n_heads, S, S]
                   int n_heads, int P, bool absorb);

// errors [P + 1] of the first 0, 1, ... P pairs that pair_choice() takes, before it swaps.
void pair_choice_errors(double *errors, PairChoice *choice, const double *grams, int n_heads, int P,
                        bool absorb);

// map [2, E/2]: b1 and b2 of one query head; of kept pairs 1 and 0. Returns the error.
double pair_choice_map(double *map, PairChoice *choice,
                       const double *gram, // [S, S]
                       const int32_t *kept, int P, bool absorb);

#endif
