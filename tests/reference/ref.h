// Oracles: the kernels of model/ written plainly, naive loops in double, with the fast kernels'
// signatures and the prefix ref_. Tests compare a fast kernel with its oracle, and the oracle's
// backward with central differences of its forward.
//
//     ref_swiglu_backward(expected, act, d_act, gate_up, N, F);
//     swiglu_backward(got, act2, d_act, gate_up, N, F);
//     testing_assert_close("d_gate_up", got, expected, N * 2 * F, 1e-6); // seen 2e-7
//
// ref_gradient_error() needs a forward whose rounding does not hide the difference of two losses:
// that is what exact_*_forward is, the same oracle before its outputs are rounded to float.
// An oracle's backward computes what forward saved again from the inputs and ignores the saved
// arguments and the scratch, so those may be NULL. Memory of ref_floats() is the caller's; short
// memory aborts.
#ifndef MHA2MLA_TESTS_REFERENCE_REF_H
#define MHA2MLA_TESTS_REFERENCE_REF_H

#include "model/attention/attention.h"
#include "model/attention/attention_context.h"
#include "model/attention/attention_latent.h"
#include "model/kernels/head_kl.h"
#include "model/params.h"

#include <stdbool.h>
#include <stdint.h>

// Zeroed; count may be 0. The second form is filled with Normal(0, scale), the third with NaN: an
// output that must be written (=) starts as NaN, one that is added to (+=) as random numbers.
float *ref_floats(int64_t count);
float *ref_random(int64_t count, double scale, uint64_t seed);
float *ref_nans(int64_t count);
double *ref_doubles(int64_t count);

// Rounds to float: to = or to +=.
void ref_narrow(float *to, const double *from, int64_t count);
void ref_narrow_add(float *to, const double *from, int64_t count);

// sum of a * weights: makes a scalar loss of a kernel's output, whose gradient is `weights`.
double ref_dot(const double *a, const float *weights, int64_t count);

// Fails the test unless error <= allowed, and names both; a NaN fails.
void ref_assert_error(const char *what, double error, double allowed);

// Largest |gradient - central difference of the loss| over all elements of `values` (restored on
// return), relative to the largest gradient. The error is O(step^2).
typedef double (*RefLoss)(void *context);
double ref_gradient_error(RefLoss loss, void *context, float *values, const float *gradient,
                          int64_t count, float step);

void ref_linear_forward(float *y, int ldy, const float *x, int ldx, const float *w, int N, int n_in,
                        int n_out, bool add);
void ref_linear_backward_input(float *dx, int lddx, const float *dy, int lddy, const float *w,
                               int N, int n_in, int n_out, bool add);
void ref_linear_backward_weight(float *dw, const float *dy, int lddy, const float *x, int ldx,
                                int N, int n_in, int n_out, bool add);

// out = up down, summed in double: the product of a rank-R factorization.
void ref_multiply(float *out,        // [m, n]
                  const float *up,   // [m, R]
                  const float *down, // [R, n]
                  int m, int n, int R);

void exact_rmsnorm_forward(double *y,      // [N, D]
                           const float *x, // [N, D]
                           const float *w, // [D]
                           int N, int D, float eps);
void ref_rmsnorm_forward(float *y, float *inv_rms, const float *x, const float *w, int N, int D,
                         float eps);
void ref_rmsnorm_backward(float *dx, float *dw, const float *dy, const float *inv_rms,
                          const float *x, const float *w, int N, int D); // reads inv_rms

void exact_swiglu_forward(double *act,          // [N, F]
                          const float *gate_up, // [N, 2F]
                          int N, int F);
void ref_swiglu_forward(float *act, const float *gate_up, int N, int F);
void ref_swiglu_backward(float *d_gate_up, float *act, const float *d_act, const float *gate_up,
                         int N, int F);

void exact_attention_forward(double *out,      // [N, H E]
                             double *lse,      // [N, H]
                             const float *qkv, // [N, row]
                             const AttentionDims *dims);
void ref_attention_forward(float *out, float *lse, const float *qkv, float *scratch,
                           const AttentionDims *dims);
void ref_attention_backward(float *d_qkv, const float *d_out, const float *out, const float *lse,
                            const float *qkv, float *scratch, const AttentionDims *dims);

// `values` is not computed. ref_latent_expand(): the rows of ordinary attention, [N, (H + 2 K) E];
// not of the shared form.
float *ref_latent_expand(const LatentArrays *arrays, const LatentDims *dims);
void ref_attention_latent_forward(const LatentArrays *arrays, const LatentDims *dims);
void ref_attention_latent_backward(const LatentArrays *arrays, const LatentDims *dims);

// Original attention: weights q, k and v are read one by one, not as one matrix. Pairs must be
// 0 .. E/2 - 1.
void exact_mha_forward(double *qkv,         // [N, Q + 2 KV]
                       const float *normed, // [N, D]
                       const AttentionContext *context);
void ref_mha_forward(float *qkv, const float *normed, const AttentionContext *context);
void ref_mha_backward(float *d_normed, LayerParams *grads, const float *d_qkv, const float *normed,
                      const AttentionContext *context);

void exact_mla_forward(double *qkv,         // [N, Q + 2 KV]
                       double *latent,      // [N, R]
                       const float *normed, // [N, D]
                       const AttentionContext *context);
void ref_mla_forward(float *qkv, float *latent, const float *normed,
                     const AttentionContext *context);
void ref_mla_backward(float *d_normed, LayerParams *grads, const float *d_qkv, const float *latent,
                      const float *normed, const AttentionContext *context);

// The shared form. Attention of rows that are rotated, and the latent normed, already, and the
// whole form from the normed input to the heads' outputs and back. Gradients of doubles are +=.
void exact_shared_attend(double *out,        // [N, H E]
                         double *lse,        // [N, H]
                         const double *rows, // [N, row]
                         const float *up_k,  // [H E, R]
                         const float *up_v,  // [H E, R]
                         const LatentDims *dims);
void exact_shared_attend_backward(double *d_rows, double *d_up_k, double *d_up_v,
                                  const double *d_out, const double *rows, const float *up_k,
                                  const float *up_v, const LatentDims *dims);
void exact_shared_forward(double *out,         // [N, H E]
                          double *lse,         // [N, H]
                          const float *normed, // [N, D]
                          const AttentionContext *context);
void ref_shared_forward(float *out, float *lse, const float *normed,
                        const AttentionContext *context);
void ref_shared_backward(float *d_normed, LayerParams *grads, const float *d_out,
                         const float *normed, const AttentionContext *context);

double ref_head_loss(float *d_normed, float *d_head, float *logits, const float *normed,
                     const float *head, const int32_t *targets, int N, int D, int V, float scale);

// The teacher's normed rows are float32. Gradients NULL: the losses alone.
HeadLosses ref_head_kl_losses(float *d_normed, float *d_head, const float *normed,
                              const float *head, const int32_t *targets, const HeadTeacher *teacher,
                              const HeadWeights *weights, int N, int D, int V, float scale);

#endif
