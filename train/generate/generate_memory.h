// What answering takes in memory, prompts or questions, on each rank for itself, as ranks may be on
// hosts of their own: said before anything is loaded or computed.
//
//     const GenerateMemory need = {.model = dir, .shape = &shape, .dtype = dtype, ...,
//                                  .cache_bytes = batch * generate_sequence_bytes(&format, &shape,
//                                  T)};
//     TRY(generate_check_memory(&need));
#ifndef MHA2MLA_TRAIN_GENERATE_GENERATE_MEMORY_H
#define MHA2MLA_TRAIN_GENERATE_GENERATE_MEMORY_H

#include "infer/cache/kv_format.h"
#include "model/kernels/compute.h"
#include "model/kernels/dtype.h"

typedef struct GenerateMemory {
    const char *model;       // names it in the error
    const ModelShape *shape; // borrowed, as all here
    DType dtype;             // of the weights
    ComputeType compute;     // of products, which decides how weights lie in memory
    const KvFormat *format;
    int n_at_a_time;     // what the cache is for: answers decoded together, or tokens of questions
    double work_bytes;   // of activations, and of what else is neither weights nor cache
    double cache_bytes;  // full
    double limit_gib;    // --memory; 0: what the machine has
    const char *options; // what makes it less, "--batch or --ctx"
} GenerateMemory;

// Bytes of the cache for so many tokens of one sequence, while they are a prompt.
double generate_sequence_bytes(const KvFormat *format, const ModelShape *shape, int64_t n_tokens);

// BAD_INPUT with the numbers if the limit is exceeded.
Status generate_check_memory(const GenerateMemory *need);

#endif
