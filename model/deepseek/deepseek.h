// Models with latent attention as DeepSeek-V3's, which transformers, vLLM and others run without
// any code of ours:
//
//     Deepseek deepseek;
//     TRY(deepseek_create(&deepseek, &model, DEEPSEEK_HF, false));
//     deepseek_describe(&deepseek, dtype);          // what it costs, what vLLM would refuse
//     TRY_GOTO(release, deepseek_save(&deepseek, base_dir, dtype, dir));
//     deepseek_release(&deepseek);
//
// What the tensors are: model/deepseek/deepseek_tensors.h.
#ifndef MHA2MLA_MODEL_DEEPSEEK_DEEPSEEK_H
#define MHA2MLA_MODEL_DEEPSEEK_DEEPSEEK_H

#include "model/deepseek/deepseek_tensors.h"

// Prints what the format costs against the model's own, in bytes of `dtype`, and warns of what it
// cannot do: float16 without a norm of the latent, RoPE that vLLM does not run.
void deepseek_describe(const Deepseek *deepseek, DType dtype);

// Writes a directory for DeepseekV3ForCausalLM; the tokenizer is copied from base_dir, if it is not
// NULL. BAD_INPUT for float16 where the latent has no norm: the numbers do not fit.
Status deepseek_save(const Deepseek *deepseek, const char *base_dir, DType dtype, const char *dir);

#endif
