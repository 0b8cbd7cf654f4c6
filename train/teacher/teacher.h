// The teacher: the model beside the trained one whose distributions and attention outputs
// train.loss has it follow, the original unless train.teacher names another. Its weights are held
// once by the ranks of a host that share parameters, in train.teacher_dtype.
//
//     HeldModel teacher;
//     TRY(teacher_load(&teacher, &config, &comm, &group));          // collective
//     TeacherPass pass;
//     teacher_place(&pass, &kept, &scratch, &teacher.model.shape, &config, n_threads);  // twice
//     teacher_start(&pass, &teacher);
//     for each micro-batch:
//         teacher_forward(&pass, inputs);            // leaves targets and the head's input
//         ws.follows = teacher_match(&pass, n_sequences);
//         transformer_forward(&ws, model, inputs, NULL);
//         losses = teacher_losses(&pass, &ws, model, targets, scale, &grads);
//         transformer_backward(&ws, model, inputs, &grads);
//         ws.follows = NULL;
//     held_model_release(&teacher);                                 // collective
//
// A pass's memory: what waits for the student's forward and loss, and scratch that the teacher's
// forward and the head's losses use one after the other.
//
//     kept     [ attention's targets of all layers | head's input | tables, activations of a layer
//     ] scratch  [ of a forward pass  ]
//              [ logits of both models of a block of tokens ]
//
// Functions are not collective unless marked.
#ifndef MHA2MLA_TRAIN_TEACHER_TEACHER_H
#define MHA2MLA_TRAIN_TEACHER_TEACHER_H

#include "model/transformer/transformer.h"
#include "train/config/config.h"
#include "train/teacher/held_model.h"

// The sums of a micro-batch: ce and kl over its tokens, attention_mse over its sequences, without
// their weights.
typedef struct TeacherLosses {
    double ce, kl, attention_mse;
} TeacherLosses;

typedef struct TeacherPass {
    const HeldModel *teacher; // borrowed, as is the next
    const TrainConfig *train;
    Workspace ws;
    AttentionMatch match; // with train.loss.attention_mse
    Rows normed;          // [N, D] the head's input
    void *head_scratch;   // with train.loss.kl
} TeacherPass;

// Whether the config's losses have one; its directory, which may be NULL.
bool teacher_is_needed(const TrainConfig *train);
const char *teacher_dir(const Config *config);

// Its shape, from its config.json. BAD_INPUT if a model of the shape `student` cannot follow it.
Status teacher_load_shape(ModelShape *out, const Config *config, const ModelShape *student);

// BAD_INPUT if the teacher has another tokenizer than this one; "": it is not known.
Status teacher_check_tokenizer(const Config *config, const char *tokenizer_sha256);

// Bytes of the weights, which ranks share, and of what a rank has for itself besides.
int64_t teacher_weight_bytes(const ModelShape *shape, const TrainConfig *train);
int64_t teacher_own_bytes(const ModelShape *shape, const TrainConfig *train);

// Collective. Errors of hf_load().
Status teacher_load(HeldModel *out, const Config *config, const Comm *comm, CommGroup *group);
void teacher_place(TeacherPass *out, Arena *kept, Arena *scratch, const ModelShape *shape,
                   const Config *config, int n_threads);
void teacher_start(TeacherPass *pass, const HeldModel *teacher);

void teacher_forward(TeacherPass *pass, const int32_t *inputs); // [B, T]

// What the student's workspace is to follow; NULL: its attention is not compared. The gradients are
// those of the mean over n_sequences.
AttentionMatch *teacher_match(TeacherPass *pass, int64_t n_sequences);

// After the student's forward: its losses, and the gradients of the weighted ones times `scale`.
TeacherLosses teacher_losses(TeacherPass *pass, Workspace *ws, const Model *model,
                             const int32_t *targets, float scale, Params *grads);

#endif
