// The attention of one converted layer while it is distilled: its parameters and gradients apart
// from the model, and a workspace of a single layer. Every form of attention is trained by the same
// code, that of the table model/attention/attention_form.h.
//
//     student_place(&student, &arena, &shape, T, compute, n_threads);     // twice, see
//     base/arena.h TRY(student_load(&student, &mla, layer)); sum = student_backward(&student, x,
//     target, scale);  // student.gradient is of this window
//     ... update student.trained ...
//     TRY(student_store(&student, mla.params.layers[layer].attn_norm));
//
//     values    [ attn_norm | q, k_r, down_kv, (latent_norm,) up_k, up_v, o ]
//     gradient  the same          ^ trained, n_trained floats
//
// While it is trained narrow latents are read by queries and output projection themselves
// (train/distill/absorb.h).
//
// Weights of a layer differ in size by more than ten times (queries that read a latent, outputs of
// weak values), and one rate of Adam's would be too low for some and too high for others:
//
//     n = student_parts(&student, parts);     // after student_load()
//     ... the rate of parts[i] is that of all times parts[i].size ...
#ifndef MHA2MLA_TRAIN_DISTILL_STUDENT_H
#define MHA2MLA_TRAIN_DISTILL_STUDENT_H

#include "model/transformer/transformer.h"
#include "train/distill/absorb.h"

// What is trained at a rate of its own: a tensor, or one kind of a tensor's rows.
typedef struct StudentPart {
    int64_t first, count; // of student->trained
    double size;          // root mean square of the values that are not 0
} StudentPart;

enum { STUDENT_MAX_PARTS = 12 };

typedef struct Student {
    ModelShape shape; // of the converted model, with a single layer
    int64_t count, n_trained;
    float *values, *gradient; // [count]
    float *trained;           // [n_trained] of values
    float *basis;             // of the absorption
    float *out;               // [T, D] of the window at hand; then the gradient of it
    double *row_sums;         // [T]
    Absorption absorption;
    Workspace ws;
    Model model; // views of values and gradient; its RoPE pairs are borrowed from the model
    LayerParams weights, slopes;
    Params grads;
} Student;

// Floats of a layer's attention that are trained.
int64_t student_n_trained(const ModelShape *mla);

// In an arena that measures or is allocated; `mla` is the shape of the converted model.
void student_place(Student *student, Arena *arena, const ModelShape *mla, int T,
                   ComputeType compute, int n_threads);

// Takes the layer from the model, whose RoPE pairs must stay; gives back what has become of it.
// Errors of absorb_layer().
Status student_load(Student *student, const Model *mla, int layer);
Status student_store(Student *student, float *layer); // layer [count]: from attn_norm on

// The parts in their order, without gaps, and their number. Rows of queries with and without
// position are parts of their own. Zeros do not count: they are what a head does not use yet. A
// part of nothing but zeros has the size of all together, or 1.
int student_parts(const Student *student, StudentPart parts[STUDENT_MAX_PARTS]);

// The sum of squares of attention(norm(x)) - target over a window, x and target [T, D], each
// token's times its weight, weights [T]; its gradient times `scale` is in student->gradient (=).
double student_backward(Student *student, const float *x, const float *target, const float *weights,
                        float scale);

// What the heads give for x: [T, H E], until the student's next use.
Rows student_heads(Student *student, const float *x);

#endif
