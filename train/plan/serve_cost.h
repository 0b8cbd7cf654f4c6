// What serving a model takes: memory of weights, KV cache and buffers, and the time of a step of
// decoding, by the machine's rates. An analytical model of one rank:
//
//     weights     are read once for all sequences of the batch, and multiplied with each of them
//     attention   reads the cache of every sequence once. With the original attention a cached
//                 position costs 4 H E FLOP a layer; with MLA, absorbed, 2 H (2R + 2P): the latent
//                 is multiplied by all H heads twice, which for many heads of one KV head each
//                 exceeds what the smaller cache saves
//
// Each of the two takes the longer of its bytes at the rate of reading and its FLOP at the rate of
// products times an efficiency: sgemm's, or bfloat16's for weights in it; absorbed attention is
// float32 with both. A step is their sum: the rate it gives is a limit, as norms, softmax,
// sampling and the widening of quantized codes are not counted.
//
//     ServeLoad load = {.context = 32768, .batch = 8, .dtype = DTYPE_BF16, .n_threads = 2};
//     ServeCost cost = serve_cost(&shape, &kv_widths[1].format, &load, &rates, 0.7);
#ifndef MHA2MLA_TRAIN_PLAN_SERVE_COST_H
#define MHA2MLA_TRAIN_PLAN_SERVE_COST_H

#include "infer/cache/kv_format.h"
#include "model/kernels/compute.h"
#include "model/kernels/dtype.h"
#include "train/plan/rates.h"

// Tokens of a prompt that go through the layers together.
enum { SERVE_PROMPT_CHUNK = 512 };

typedef struct ServeLoad {
    int context, batch; // tokens in the cache of each sequence, sequences
    DType dtype;        // of the weights
    ComputeType compute;
    int n_threads;
    int64_t process_bytes; // of the program and its libraries
    int64_t memory_bytes;  // that may be used
} ServeLoad;

typedef struct ServeCost {
    int64_t weights_bytes;
    int64_t cache_bytes;   // of the batch, with the newest tokens that are not quantized yet
    int64_t buffers_bytes; // activations of a chunk of the prompt or a step, logits
    int64_t total_bytes;   // the peak, with the process; while loading or after it
    int largest_batch;     // of this context that memory_bytes hold; 0: not one
    double weights_s, attention_s;
    bool is_compute_bound; // attention: its FLOP take longer than its bytes
    double tokens_per_s;   // of the batch together
    double prompt_s;       // to read a prompt of `context` tokens, alone
} ServeCost;

ServeCost serve_cost(const ModelShape *shape, const KvFormat *format, const ServeLoad *load,
                     const Rates *rates, double efficiency);

// FLOP of n tokens of a prompt behind `depth` others, in chunks, without logits.
double serve_prompt_flops(const ModelShape *shape, int n, int depth);

#endif
