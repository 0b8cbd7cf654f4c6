// Gradient clipping by global norm (Pascanu et al., arXiv 1211.5063), as torch's clip_grad_norm_.
#ifndef MHA2MLA_OPTIM_CLIP_H
#define MHA2MLA_OPTIM_CLIP_H

#include <stdint.h>

// Sum of squares in double; NaN or infinity in, NaN or infinity out. The sum's order depends on
// count alone, not on the number of threads.
double clip_sum_squares(const float *grads, // [count]
                        int64_t count);

// The factor gradients of this norm are multiplied with; max_norm 0: never clip.
double clip_scale(double norm, double max_norm);

#endif
