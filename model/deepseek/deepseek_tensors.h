// The tensors of DeepSeek's attention for a model with latent attention, in the spelling of each
// format that has them (model/deepseek/deepseek.h, model/gguf/gguf.h):
//
//     Deepseek deepseek;
//     TensorList list;
//     TRY(deepseek_create(&deepseek, &model, DEEPSEEK_HF, false));
//     TRY_GOTO(release, deepseek_list_tensors(&list, &deepseek, DTYPE_F32));
//     ...                                          // the tensors are made while they are written
//     tensor_list_release(&list);
//     deepseek_release(&deepseek);
//
// The same logits, up to rounding, by these steps:
//   - every rotated row goes into a slot of one table (model/deepseek/rope_slots.h), zeros
//   elsewhere;
//   - scores are scaled by 1/sqrt(n + rho) there: rows of q times sqrt((n + rho) / E);
//   - in transformers the latent's norm has eps 1e-6 whatever config.json says, so that is the eps
//     of all norms there, and all that enters the residual stream is scaled by s = sqrt(1e-6 /
//     eps); llama.cpp takes the model's eps, and s is 1;
//   - a latent without a norm is scaled so far below that eps that the norm only multiplies it.
#ifndef MHA2MLA_MODEL_DEEPSEEK_DEEPSEEK_TENSORS_H
#define MHA2MLA_MODEL_DEEPSEEK_DEEPSEEK_TENSORS_H

#include "model/deepseek/rope_slots.h"
#include "model/hf/tensor_list.h"

// DEEPSEEK_GGUF is llama.cpp's: other names, and the up-projections as two tensors of three dims.
typedef enum DeepseekFormat { DEEPSEEK_HF, DEEPSEEK_GGUF } DeepseekFormat;

typedef struct Deepseek {
    const Model *model; // borrowed
    DeepseekFormat format;
    RopeSlots slots;     // owned
    int rho;             // rotated dims of a head: 2 slots
    int nope;            // n: dims of a head without position
    int latent;          // R
    double eps;          // of all norms
    double stream_scale; // s
    double latent_scale; // of the rows of the down-projection
} Deepseek;

// BAD_INPUT if the model has its original attention. plain_rope: frequencies that every engine has,
// at the cost of more slots (model/deepseek/rope_slots.h).
Status deepseek_create(Deepseek *out, const Model *model, DeepseekFormat format, bool plain_rope);
void deepseek_release(Deepseek *deepseek);

// The caller releases the list; its tensors borrow from `deepseek`.
Status deepseek_list_tensors(TensorList *out, const Deepseek *deepseek, DType dtype);

int64_t deepseek_count(const Deepseek *deepseek); // numbers of all tensors

// Whether a tensor of the list has the rows that make the norm of a latent linear: numbers near
// 1e-8, below what a float16 holds.
bool deepseek_has_tiny_rows(const Deepseek *deepseek, const TensorSpec *spec);

#endif
