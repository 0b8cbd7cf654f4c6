// RMSNorm (Zhang & Sennrich, arXiv 1910.07467): y = w x / sqrt(mean(x^2) + eps), per token.
#ifndef MHA2MLA_MODEL_KERNELS_RMSNORM_H
#define MHA2MLA_MODEL_KERNELS_RMSNORM_H

#include "model/kernels/rows.h"

// What backward needs of x is x itself, or x / rms(x) in half the memory: rows of bfloat16 that
// forward fills.
//
//     rmsnorm_forward_keeping(normalized, y, inv_rms, NULL, x, w, N, D, eps);
//     rmsnorm_backward(dx, dx_copy, dw, y, dy, inv_rms, normalized, w, N, D);
//
// Rows y are float32 or bfloat16, rounded once.
void rmsnorm_forward(Rows y,                  // [N, D]
                     float *restrict inv_rms, // [N] saved: 1 / sqrt(mean(x^2) + eps)
                     float *restrict copy,    // [N, D] = x, for a residual stream; NULL: none
                     const float *restrict x, // [N, D]
                     const float *restrict w, // [D]
                     int N, int D, float eps);

// The same, which also fills normalized [N, D], bfloat16, with x / rms(x) unless it has no data.
void rmsnorm_forward_keeping(Rows normalized, Rows y, float *restrict inv_rms, float *restrict copy,
                             const float *restrict x, const float *restrict w, int N, int D,
                             float eps);

// y again, from the saved inv_rms and x, or from bfloat16 rows of x / rms(x).
void rmsnorm_apply(Rows y,                        // [N, D]
                   const float *restrict inv_rms, // [N]
                   Rows x,                        // [N, D]
                   const float *restrict w,       // [D]
                   int N, int D);

// dx += (not =): the residual connection around the norm brings a gradient, too. dw +=. dy is used
// up as scratch. With y also y again, which the gradient of the next weight needs.
void rmsnorm_backward(float *restrict dx,            // [N, D]
                      Rows dx_copy,                  // [N, D] = dx after it, or without data
                      float *restrict dw,            // [D], or NULL: frozen
                      Rows y,                        // [N, D], or without data
                      float *restrict dy,            // [N, D] overwritten
                      const float *restrict inv_rms, // [N] saved
                      Rows x,                        // [N, D], as in rmsnorm_apply()
                      const float *restrict w,       // [D]
                      int N, int D);

// One row alone, on the calling thread: y = w x / rms(x). Returns 1 / rms(x).
float rmsnorm_row(float *restrict y, const float *restrict x, const float *restrict w, int D,
                  float eps);

// Its gradient: dx += (not =), and dy is replaced by the row's term of dw.
void rmsnorm_row_backward(float *restrict dx, float *restrict dy, float inv_rms,
                          const float *restrict x, const float *restrict w, int D);

#endif
