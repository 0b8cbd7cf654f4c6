// The forms of attention, one row of a table each: what a layer saves, what it works in, and the
// four functions between its normed input and the heads' output. Another form joins by another row.
//
//     normed --project--> qkv --attend--> out           saved for backward: qkv, lse, out, ...
//     d_normed <--project_backward-- d_qkv <--attend_backward-- d_out
//
//     const AttentionForm *form = attention_form(&shape, compute, T);
//     const AttentionWidths widths = form->widths(&shape);    // places AttentionSaved and scratch
//     form->project(&saved, normed, &context);
//     form->attend(&saved, &context);
//     form->attend_backward(d_qkv, &grads, d_out, &saved, &context);
//     form->project_backward(d_normed, &grads, d_qkv, normed, &saved, &context);
#ifndef MHA2MLA_MODEL_ATTENTION_ATTENTION_FORM_H
#define MHA2MLA_MODEL_ATTENTION_ATTENTION_FORM_H

#include "model/attention/attention_context.h"

// What forward leaves for backward; a form uses those of its widths, whose rows lie side by side.
typedef struct AttentionSaved {
    Rows qkv;    // [N, widths.qkv] queries, keys and values, or the latent, after RoPE
    Rows latent; // [N, widths.latent]; before its norm if it has one
    Rows heads;  // [N, widths.heads] queries and keys before their norm (head_norm.h)
    Rows values; // [N, widths.values] what each head took of the latent
    Rows out;    // [N, Q]
    float *lse;  // [N, H] log of the softmax's denominator
} AttentionSaved;

// Numbers of a token; 0: the form has no such buffer.
typedef struct AttentionWidths {
    int qkv, latent, heads, values; // saved
    int projected, expanded;        // scratch
    bool remakes_out;               // attend_backward() computes `out` again: layers can share one
} AttentionWidths;

typedef struct AttentionForm {
    const char *name;
    // Whether a model of this shape is to use the form for sequences of T tokens.
    bool (*fits)(const ModelShape *shape, ComputeType compute, int T);
    AttentionWidths (*widths)(const ModelShape *shape);
    // Scratch of the attention proper for n_threads, with or without backward; it starts at a
    // multiple of 64 bytes.
    int64_t (*tile_bytes)(const ModelShape *shape, ComputeType compute, int B, int T, int n_threads,
                          bool is_training);

    // saved->qkv and latent = of normed [N, D].
    void (*project)(const AttentionSaved *saved, Rows normed, const AttentionContext *context);
    // saved->out, values, lse = of saved->qkv.
    void (*attend)(const AttentionSaved *saved, const AttentionContext *context);
    // d_qkv [N, widths.qkv] = of d_out [N, Q]; gradients of weights read by attend() +=, or = (see
    // context).
    void (*attend_backward)(Rows d_qkv, LayerParams *grads, Rows d_out, const AttentionSaved *saved,
                            const AttentionContext *context);
    // d_normed [N, D] = of d_qkv, which is used up; gradients of weights read by project() += or =.
    void (*project_backward)(Rows d_normed, LayerParams *grads, Rows d_qkv, Rows normed,
                             const AttentionSaved *saved, const AttentionContext *context);
} AttentionForm;

enum {
    ATTENTION_MHA,
    ATTENTION_MLA_LATENT,
    ATTENTION_SHARED_LATENT,
    ATTENTION_MLA_EXPANDED, // per head and shared
    N_ATTENTION_FORMS
};

// The first that fits is taken.
extern const AttentionForm attention_forms[N_ATTENTION_FORMS];

const AttentionForm *attention_form(const ModelShape *shape, ComputeType compute, int T);

#endif
