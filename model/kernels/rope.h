// Rotary position embedding (Su et al., arXiv 2104.09864) on the kept pairs of each head.
//
// In the layout of every head here the P kept pairs come first: P first halves, P second halves,
// then E - 2P dims that stay as they are. The original attention is the case P = E/2, which is
// Hugging Face's rotate_half. Pair p turns by position * theta^(-2p/E), unless the frequencies are
// scaled.
#ifndef MHA2MLA_MODEL_KERNELS_ROPE_H
#define MHA2MLA_MODEL_KERNELS_ROPE_H

#include <stdint.h>

// Llama 3's scaling, "llama3" in transformers: with W = original_positions, pairs that turn less
// than low_freq_factor times in W positions turn slower by `factor`, those that turn more than
// high_freq_factor times stay as they are, and those between are interpolated.
typedef struct RopeScaling {
    double factor; // 0: frequencies are not scaled
    double low_freq_factor, high_freq_factor;
    int original_positions;
} RopeScaling;

// Radians per position of pair p.
float rope_frequency(int p, int E, double theta, const RopeScaling *scaling);

// What scaling divides the frequency of pair p by, which engines take as a table of factors.
double rope_slowdown(int p, int E, double theta, const RopeScaling *scaling);

// cos and sin of every pair at one position.
void rope_row(float *cos_row, // [E/2]
              float *sin_row, // [E/2]
              int position, int E, double theta, const RopeScaling *scaling);

// The same for the positions 0 .. T - 1.
void rope_table(float *cos_table, // [T, E/2]
                float *sin_table, // [T, E/2]
                int T, int E, double theta, const RopeScaling *scaling);

// Tables of layers without RoPE, whose pairs turn by the angle 0: a rotation by them changes
// nothing.
void rope_identity(float *cos_table, // [T, E/2] ones
                   float *sin_table, // [T, E/2] zeros
                   int T, int E);

// Rotates one head of one token, in place or not (out may be in).
static inline void rope_rotate(float *out,             // [2P]
                               const float *in,        // [2P]
                               const float *cos_row,   // [E/2] of the token's position
                               const float *sin_row,   // [E/2]
                               const int32_t *pairs,   // [P]
                               int P, float direction) // +1: forward, -1: backward
{
    for (int i = 0; i < P; i++) {
        float c = cos_row[pairs[i]], s = direction * sin_row[pairs[i]];
        float a = in[i], b = in[P + i];
        out[i] = a * c - b * s;
        out[P + i] = b * c + a * s;
    }
}

#endif
