// Attention of new positions over the KV cache, for decoding (one position of each of several
// sequences) and for prefill (chunks of positions of one): causal, all forms of the model.
//
//     original    out_h = softmax(q_h k_j^T / sqrt(E)) v_j                     j = h / G
//     MLA         scores of head h and position n: (q_r,h . k_r,j[n] + q_c,h . U_k,j c[n]) /
//     sqrt(E)
//                 out_h = U_v,j sum_n p[n] c[n]
//     shared      the same with one k_r[n] for all heads, and U_k,h and U_v,h of every query head
//
// MLA has two ways of computing the same. Absorbed: (U_k,j^T q_c,h) . c[n], so that all heads
// attend to the latent itself, and U_v,j is applied once to the weighted latent. Expanded: keys and
// values are made of the latent block by block, which costs more per cached position and less per
// query. attend() takes the cheaper for each job; attend_break_even() says where that changes.
//
//     kv_write(sequence, layer, key, ld_key, latent, ld_latent, count);
//     AttendJob job = {sequence, q, out, kv_sequence_length(sequence), count};
//     attend(&job, 1, layer, &shape, &weights->up_k, &weights->up_v, ld_q, scratch);
//
// Queries, probabilities and sums are float32; nothing but the cache itself is rounded, unless a
// job asks for products in bfloat16. Where the machine has matrix units for bfloat16 (AMX), queries
// and probabilities are split into a high and a low bfloat16 part, whose sum is float32 to 2^-17:
// outputs differ by 6e-6 of the largest.
#ifndef MHA2MLA_INFER_ATTENTION_ATTEND_H
#define MHA2MLA_INFER_ATTENTION_ATTEND_H

#include "infer/cache/kv_cache.h"
#include "model/kernels/compute.h"
#include "model/kernels/weights/weight_linear.h"

// `count` new positions of a sequence from `first` on. Their keys and values are in the cache.
typedef struct AttendJob {
    const KvSequence *sequence; // borrowed
    const float *q; // [count, ld_q] original: H heads of E, rotated; MLA: all heads' 2P rotated
                    // dims, then all heads' others, E - 2P or (shared form) E
    float *out;     // [count, H E]
    int first, count;
    ComputeType compute; // BFLOAT16: of a chunk, queries, keys, probabilities and values are
                         // rounded to bfloat16 where they are multiplied
} AttendJob;

// Fills `out` of all jobs. Parallel inside. The bits of a job's output depend neither on the other
// jobs nor on the number of threads.
void attend(const AttendJob *jobs, int n_jobs, int layer, const ModelShape *shape,
            const WeightMatrix *up_k, // [K (E - 2P), R or R/2], shared form [H E, R]; MLA only
            const WeightMatrix *up_v, // [K E, R or R/2], shared form [H E, R]; MLA only
            int ld_q, float *scratch);

// Of `scratch`, which begins at a multiple of 64 bytes, for at most max_jobs jobs of together at
// most max_total_tokens positions.
int64_t attend_scratch_floats(const ModelShape *shape, int max_jobs, int max_total_tokens,
                              int n_threads);

// Positions of a job from which attend() expands keys and values; INT_MAX: never. The original
// attention has nothing to expand: there, positions from which a job is computed as a chunk.
int attend_break_even(const ModelShape *shape);

#endif
