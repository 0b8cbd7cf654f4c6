// Models with latent attention as DeepSeek-V3's, which transformers, vLLM and others run without
// any code of ours:
//
//     Deepseek deepseek;
//     TRY(deepseek_create(&deepseek, &model, false));
//     deepseek_describe(&deepseek, dtype);          // what it costs, what vLLM would refuse
//     TRY_GOTO(release, deepseek_save(&deepseek, base_dir, dtype, dir));
//     deepseek_release(&deepseek);
//
// The same logits, up to rounding, by these steps:
//   - every rotated row goes into a slot of one table (model/hf/rope_slots.h), zeros elsewhere;
//   - scores are scaled by 1/sqrt(n + rho) there: rows of q times sqrt((n + rho) / E);
//   - the latent's norm has eps 1e-6 there whatever config.json says, so rms_norm_eps is 1e-6, and
//     all that enters the residual stream is scaled by s = sqrt(1e-6 / eps);
//   - a latent without a norm is scaled so far below that eps that the norm only multiplies it.
#ifndef MHA2MLA_MODEL_HF_DEEPSEEK_H
#define MHA2MLA_MODEL_HF_DEEPSEEK_H

#include "model/hf/rope_slots.h"
#include "model/hf/tensor_list.h"

typedef struct Deepseek {
    const Model *model;  // borrowed
    RopeSlots slots;     // owned
    int rho;             // rotated dims of a head: 2 slots
    int nope;            // n: dims of a head without position
    int latent;          // R
    double stream_scale; // s
    double latent_scale; // of the rows of the down-projection
} Deepseek;

// BAD_INPUT if the model has its original attention. plain_rope: frequencies that every engine has,
// at the cost of more slots (model/hf/rope_slots.h).
Status deepseek_create(Deepseek *out, const Model *model, bool plain_rope);
void deepseek_release(Deepseek *deepseek);

// Prints what the format costs against the model's own, in bytes of `dtype`, and warns of what it
// cannot do: float16 without a norm of the latent, RoPE that vLLM does not run.
void deepseek_describe(const Deepseek *deepseek, DType dtype);

// Writes a directory for DeepseekV3ForCausalLM; the tokenizer is copied from base_dir, if it is not
// NULL. BAD_INPUT for float16 where the latent has no norm: the numbers do not fit.
Status deepseek_save(const Deepseek *deepseek, const char *base_dir, DType dtype, const char *dir);

#endif
