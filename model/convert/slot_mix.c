// Complex numbers are pairs of doubles, as LAPACK has them.
#include "model/convert/slot_mix.h"

#include "model/convert/slots.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <string.h>

// Of the largest a_j: heads that nothing reads keep a finite 1 / a.
static const double LEAST_SCALE = 1e-6;

static double *place_doubles(Arena *arena, int64_t count)
{
    return arena_place(arena, count, sizeof(double));
}

void slot_mix_place(SlotMix *mix, Arena *arena, const ModelShape *s)
{
    const int64_t K = s->n_kv_heads, D = s->d_model, P = s->rope_pairs;
    mix->a = place_doubles(arena, P * K * 2);
    mix->b = place_doubles(arena, P * K * 2);
    mix->z = place_doubles(arena, 2 * K * D);
    mix->product = place_doubles(arena, 2 * K * D);
    mix->moment = place_doubles(arena, K * K * 2);
    mix->eigenvalues = place_doubles(arena, K);
    mix->n_work = 64 * K; // LAPACK's block size times the columns, in complex numbers
    mix->work = place_doubles(arena, 2 * mix->n_work);
    mix->reals = place_doubles(arena, 3 * K);
    mix->scale = place_doubles(arena, K);
}

// scale[j] = a_j of pair p.
static void find_scale(SlotMix *mix, const double *query, int p, const ModelShape *s)
{
    const int64_t E = s->head_dim, G = s->n_heads / s->n_kv_heads, second = p + E / 2;
    double largest = 0;
    for (int64_t j = 0; j < s->n_kv_heads; j++) {
        double sum = 0;
        for (int64_t h = j * G; h < (j + 1) * G; h++)
            sum += query[(h * E + p) * E + p] + query[(h * E + second) * E + second];
        mix->scale[j] = sqrt(fmax(sum, 0) * (double)E / 2);
        largest = fmax(largest, mix->scale[j]);
    }
    for (int j = 0; j < s->n_kv_heads; j++)
        mix->scale[j] = largest > 0 ? fmax(mix->scale[j], LEAST_SCALE * largest) : 1;
}

static double dot(const double *x, const double *y, int n)
{
    return cblas_ddot(n, x, 1, y, 1);
}

// moment [K, K] = diag(a) Z C Z^H diag(a), by columns.
static void find_moment(SlotMix *mix, const float *keys, const double *covariance, int p,
                        const ModelShape *s)
{
    const int64_t K = s->n_kv_heads, D = s->d_model, E = s->head_dim;
    for (int64_t j = 0; j < K; j++)
        for (int64_t d = 0; d < D; d++) {
            mix->z[j * D + d] = mix->scale[j] * keys[(j * E + p) * D + d];
            mix->z[(K + j) * D + d] = mix->scale[j] * keys[(j * E + p + E / 2) * D + d];
        }
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)(2 * K), (int)D, (int)D, 1.0,
                mix->z, (int)D, covariance, (int)D, 0.0, mix->product, (int)D);
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j < K; j++) {
            // (x_i + i y_i) C (x_j - i y_j)
            const double *xi = mix->product + i * D, *yi = mix->product + (K + i) * D;
            const double *xj = mix->z + j * D, *yj = mix->z + (K + j) * D;
            double *to = mix->moment + 2 * (j * K + i);
            to[0] = dot(xi, xj, (int)D) + dot(yi, yj, (int)D);
            to[1] = dot(yi, xj, (int)D) - dot(xi, yj, (int)D);
        }
}

// Eigenvectors in moment, ascending; the identity where there are none.
static void find_vectors(SlotMix *mix, int K)
{
    bool is_found = true;
    for (int64_t i = 0; i < 2 * (int64_t)K * K; i++)
        is_found = is_found && isfinite(mix->moment[i]);
    is_found = is_found && LAPACKE_zheev_work(LAPACK_COL_MAJOR, 'V', 'L', K, (void *)mix->moment, K,
                                              mix->eigenvalues, (void *)mix->work,
                                              (lapack_int)mix->n_work, mix->reals) == 0;
    if (is_found)
        return;
    memset(mix->moment, 0, 2 * (size_t)K * (size_t)K * sizeof *mix->moment);
    for (int64_t i = 0; i < K; i++)
        mix->moment[2 * (i * K + i)] = 1;
}

void slot_mix_find(SlotMix *mix, const float *keys, const double *covariance, const double *query,
                   const int32_t *slots, const ModelShape *s)
{
    const int64_t K = s->n_kv_heads;
    for (int64_t i = 0; i < s->rope_pairs; i++) {
        const int p = slot_pair(s, slots[i]), component = slot_kv_head(s, slots[i]);
        find_scale(mix, query, p, s);
        find_moment(mix, keys, covariance, p, s);
        find_vectors(mix, (int)K);
        const double *v = mix->moment + 2 * (K - 1 - component) * K;
        for (int64_t j = 0; j < K; j++)
            for (int part = 0; part < 2; part++) {
                mix->a[(i * K + j) * 2 + part] = v[2 * j + part] / mix->scale[j];
                mix->b[(i * K + j) * 2 + part] = v[2 * j + part] * mix->scale[j];
            }
    }
}

// to += conj(factor) from, or factor from, of rows of complex numbers: real and imaginary parts.
static void add_rotated(float *to_real, float *to_imaginary, const float *real,
                        const float *imaginary, const double factor[2], double sign, bool conjugate,
                        int D)
{
    const double r = sign * factor[0], i = sign * (conjugate ? -factor[1] : factor[1]);
    for (int d = 0; d < D; d++) {
        const double x = real[d], y = imaginary[d];
        to_real[d] = (float)(to_real[d] + r * x - i * y);
        to_imaginary[d] = (float)(to_imaginary[d] + r * y + i * x);
    }
}

void slot_mix_keys(float *k_r, float *keys, const SlotMix *mix, const int32_t *slots,
                   const ModelShape *s)
{
    const int64_t K = s->n_kv_heads, D = s->d_model, E = s->head_dim, P = s->rope_pairs;
    memset(k_r, 0, (size_t)(2 * P * D) * sizeof *k_r);
    for (int64_t i = 0; i < P; i++)
        for (int64_t j = 0; j < K; j++) {
            const float *row = keys + (j * E + slot_pair(s, slots[i])) * D;
            add_rotated(k_r + i * D, k_r + (P + i) * D, row, row + E / 2 * D,
                        mix->b + (i * K + j) * 2, 1, true, (int)D);
        }
    // Slots of one pair are orthogonal, so each takes its own part away.
    for (int64_t i = 0; i < P; i++)
        for (int64_t j = 0; j < K; j++) {
            float *row = keys + (j * E + slot_pair(s, slots[i])) * D;
            add_rotated(row, row + E / 2 * D, k_r + i * D, k_r + (P + i) * D,
                        mix->a + (i * K + j) * 2, -1, false, (int)D);
        }
}

void slot_mix_queries(float *q, const float *original, const SlotMix *mix, const int32_t *slots,
                      const ModelShape *s)
{
    const int64_t D = s->d_model, E = s->head_dim, P = s->rope_pairs, K = s->n_kv_heads;
    memset(q, 0, (size_t)(s->n_heads * 2 * P * D) * sizeof *q);
    for (int64_t h = 0; h < s->n_heads; h++)
        for (int64_t i = 0; i < P; i++) {
            const int64_t j = h / (s->n_heads / K);
            const float *row = original + (h * E + slot_pair(s, slots[i])) * D;
            float *to = q + (h * 2 * P + i) * D;
            add_rotated(to, to + P * D, row, row + E / 2 * D, mix->a + (i * K + j) * 2, 1, true,
                        (int)D);
        }
}

void slot_mix_uniform(int32_t *slots, int P, int stride)
{
    for (int i = 0; i < P; i++)
        slots[i] = i * stride;
}

int slot_mix_max_stride(const ModelShape *s, int P)
{
    const int half = s->head_dim / 2;
    if (P > half)
        return 0;
    return P > 1 ? (half - 1) / (P - 1) : half;
}
