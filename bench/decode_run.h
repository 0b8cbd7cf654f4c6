// A measurement of bench_decode: a prompt or a run of decoding steps, a number of times, in
// alternation with the rates that limit it.
//
//     DecodeModel model;
//     TRY(decode_model_make(&model, "smollm-135m", 0, 16, DTYPE_BF16)); // or decode_model_load()
//     DecodeTest test = {.model = &model, .format = format, .n_gen = 128, .depth = 2048, ...};
//     DecodeResult result;
//     TRY(decode_run(&result, &test));
//     decode_model_release(&model);
//
// The tokens that fill the cache to `depth` are rows of random numbers: what they cost does not
// depend on their values.
#ifndef MHA2MLA_BENCH_DECODE_RUN_H
#define MHA2MLA_BENCH_DECODE_RUN_H

#include "infer/cache/kv_format.h"
#include "infer/weights.h"

enum { DECODE_MAX_REPETITIONS = 100, DECODE_NAME_BYTES = 256 };

typedef struct DecodeModel {
    char name[DECODE_NAME_BYTES]; // "smollm-135m, d_kv 16"
    InferWeights weights;         // owned
    int64_t n_params;
} DecodeModel;

// Random weights of a named shape, with n_layers layers (0: the shape's own) and latents of d_kv
// per KV head (0: the original attention), or the shared form with the same cache
// (model/convert/convert_target.h). BAD_INPUT lists the shapes.
Status decode_model_make(DecodeModel *out, const char *shape, int n_layers, int d_kv,
                         bool is_shared, DType dtype);

// d_kv of the table that decode_model_make() has for a shape: the original and three latents.
Status decode_model_widths(int d_kv[4], const char *shape);

// A Hugging Face directory.
Status decode_model_load(DecodeModel *out, const char *dir);

void decode_model_release(DecodeModel *model);

typedef struct DecodeTest {
    const DecodeModel *model; // borrowed
    KvFormat format;
    int n_prompt, n_gen; // one of them is 0
    int depth;           // tokens in the cache of each sequence before
    int batch;           // sequences decoded together; 1 with n_prompt
    int n_threads, n_repetitions;
    bool is_cpu_time; // processor time instead of the wall clock's; with one thread
} DecodeTest;

typedef struct DecodeResult {
    double tokens_per_s[DECODE_MAX_REPETITIONS];  // of all sequences together
    double mean, deviation;                       // of them; the sample's standard deviation
    double read_bytes_per_s, product_flops_per_s; // medians of what was measured beside it
    double limit_per_s;                           // the tokens/s that these rates allow
    bool is_compute_bound;                        // the products limit it
    double cache_bytes_per_token;
    double of_original,
        of_per_head; // tokens/s by those of the original attention and of the form
                     // per KV head with the same cache in this test; 0: not measured
} DecodeResult;

Status decode_run(DecodeResult *out, const DecodeTest *test);

#endif
