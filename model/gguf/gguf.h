// A model as one GGUF file, which llama.cpp and what is built on it run: weights, shape and
// tokenizer.
//
//     Gguf gguf;
//     TRY(gguf_create(&gguf, &model, GGUF_Q8_0, false));
//     gguf_describe(&gguf);                            // what it costs
//     TRY_GOTO(release, gguf_save(&gguf, tokenizer_dir, "model.gguf"));
//     gguf_release(&gguf);
//
// A model with its original attention has the architecture `llama`, `qwen3` or `smollm3`, one with
// latent attention `deepseek2`, where attention runs in the latent and the KV cache holds it and
// the rotated keys. Both are the model's own logits up to rounding: model/gguf/gguf_original.c,
// model/deepseek/deepseek_tensors.h.
#ifndef MHA2MLA_MODEL_GGUF_GGUF_H
#define MHA2MLA_MODEL_GGUF_GGUF_H

#include "model/deepseek/deepseek_tensors.h"
#include "model/gguf/gguf_file.h"

typedef struct Gguf {
    const Model *model; // borrowed
    Deepseek deepseek;  // owned; of a model with latent attention
    GgufType type;      // of matrices, as far as they can have it
} Gguf;

// BAD_INPUT, with the way out, for what llama.cpp's deepseek2 does not have: frequencies that are
// not plain RoPE's (plain_rope: model/deepseek/rope_slots.h), heads that are rotated whole; and for
// what its architectures of original models do not have (model/gguf/gguf_original.h).
Status gguf_create(Gguf *out, const Model *model, GgufType type, bool plain_rope);
void gguf_release(Gguf *gguf);

// Prints the architecture and, for latent attention, the KV cache against the model's own format.
void gguf_describe(const Gguf *gguf);

// Writes the file. tokenizer_dir may be NULL: the file has no tokenizer then. Vectors are F32, as
// ggml's norms need them; with Q8_0, matrices whose rows are not whole blocks are F16, and with F16
// and Q8_0 those with numbers too small for 16 bits are F32.
Status gguf_save(const Gguf *gguf, const char *tokenizer_dir, const char *path);

#endif
