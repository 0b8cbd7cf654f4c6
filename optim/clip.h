// Gradient clipping by global norm (Pascanu et al., arXiv 1211.5063), as torch's clip_grad_norm_.
#ifndef MHA2MLA_OPTIM_CLIP_H
#define MHA2MLA_OPTIM_CLIP_H

#include <stdint.h>

// Sums of squares in double of each block of CLIP_BLOCK gradients, the last of which may be
// shorter; NaN or infinity in, NaN or infinity out. Added up in order, they give the squared norm:
// the same bits however the blocks are dealt out to threads and ranks.
enum { CLIP_BLOCK = 1024 };
int64_t clip_n_blocks(int64_t count);
void clip_sum_squares(double *sums,       // [clip_n_blocks(count)] =
                      const float *grads, // [count]
                      int64_t count);

// The factor gradients of this norm are multiplied with; max_norm 0: never clip.
double clip_scale(double norm, double max_norm);

#endif
