// RMSNorm (Zhang & Sennrich, arXiv 1910.07467): y = w x / sqrt(mean(x^2) + eps), per token.
#ifndef MHA2MLA_MODEL_KERNELS_RMSNORM_H
#define MHA2MLA_MODEL_KERNELS_RMSNORM_H

void rmsnorm_forward(float *restrict y,       // [N, D]
                     float *restrict inv_rms, // [N] saved: 1 / sqrt(mean(x^2) + eps)
                     const float *restrict x, // [N, D]
                     const float *restrict w, // [D]
                     int N, int D, float eps);

// y again from the saved inv_rms, without reading x twice.
void rmsnorm_apply(float *restrict y,             // [N, D]
                   const float *restrict inv_rms, // [N]
                   const float *restrict x,       // [N, D]
                   const float *restrict w,       // [D]
                   int N, int D);

// dx += (not =): the residual connection around the norm brings a gradient, too. dw +=. dy is used
// up as scratch.
void rmsnorm_backward(float *restrict dx,            // [N, D]
                      float *restrict dw,            // [D]
                      float *restrict dy,            // [N, D] overwritten
                      const float *restrict inv_rms, // [N] saved
                      const float *restrict x,       // [N, D]
                      const float *restrict w,       // [D]
                      int N, int D);

#endif
