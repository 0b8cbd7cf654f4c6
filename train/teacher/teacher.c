// The teacher's forward comes before the student's and reads none of its parameters, so that it
// overlaps with their exchange. The head's losses need the head's input alone; logits are made
// again there, by blocks of tokens, as nothing of N x V is kept.
#include "train/teacher/teacher.h"

#include "base/intmath.h"
#include "data/tokenizer/tokenizer_file.h"
#include "model/hf/hf.h"
#include "train/parallel/watchdog.h"

#include <string.h>

bool teacher_is_needed(const TrainConfig *train)
{
    return train->loss.kl > 0 || train->loss.attention_mse > 0;
}

const char *teacher_dir(const Config *config)
{
    return config->train.teacher != NULL ? config->train.teacher : config->model.base;
}

// ---- what a teacher must be --------------------------------------------------------------------

static Status check_shape(const ModelShape *teacher, const ModelShape *student,
                          const Config *config, const char *dir)
{
    if (teacher->vocab_size != student->vocab_size)
        return fail(BAD_INPUT,
                    "%s: has a vocabulary of %d tokens, the trained model of %d; a teacher "
                    "(train.teacher) needs the same tokenizer",
                    dir, teacher->vocab_size, student->vocab_size);
    if (config->train.loss.attention_mse > 0 &&
        (teacher->n_layers != student->n_layers || teacher->d_model != student->d_model))
        return fail(BAD_INPUT,
                    "%s: has %d layers of width %d, the trained model %d of %d; set "
                    "train.loss.attention_mse to 0 or name a teacher of the same layers",
                    dir, teacher->n_layers, teacher->d_model, student->n_layers, student->d_model);
    return shape_check_length(teacher, config->data.seq_len, "data.seq_len", dir);
}

Status teacher_load_shape(ModelShape *out, const Config *config, const ModelShape *student)
{
    const char *dir = teacher_dir(config);
    ModelShape shape;
    TRY(hf_load_shape(&shape, dir));
    TRY(check_shape(&shape, student, config, dir));
    *out = shape;
    return OK;
}

Status teacher_check_tokenizer(const Config *config, const char *tokenizer_sha256)
{
    char sha256[SHA256_HEX_BYTES];
    TRY(tokenizer_file_sha256(sha256, teacher_dir(config)));
    if (sha256[0] == '\0' || tokenizer_sha256[0] == '\0' || strcmp(sha256, tokenizer_sha256) == 0)
        return OK;
    return fail(BAD_INPUT,
                "%s: has another tokenizer (sha256 %.12s) than the trained model (%.12s), which "
                "cannot follow it; name a teacher with the same one (train.teacher)",
                teacher_dir(config), sha256, tokenizer_sha256);
}

// ---- weights -----------------------------------------------------------------------------------

static DType dtype_of(const TrainConfig *train)
{
    return train->teacher_dtype == TEACHER_BFLOAT16 ? DTYPE_BF16 : DTYPE_F32;
}

int64_t teacher_weight_bytes(const ModelShape *shape, const TrainConfig *train)
{
    return held_model_bytes(shape, dtype_of(train));
}

int64_t teacher_own_bytes(const ModelShape *shape, const TrainConfig *train)
{
    return held_model_part_bytes(shape, dtype_of(train));
}

Status teacher_load(HeldModel *out, const Config *config, const Comm *comm, CommGroup *group)
{
    watchdog_phase("load the teacher", 0);
    return held_model_load(out, teacher_dir(config), dtype_of(&config->train), comm, group);
}

// ---- a pass ------------------------------------------------------------------------------------

void teacher_place(TeacherPass *out, Arena *kept, Arena *scratch, const ModelShape *shape,
                   const Config *config, int n_threads)
{
    const TrainConfig *train = &config->train;
    const int B = train->micro_batch, T = config->data.seq_len, D = shape->d_model;
    TeacherPass pass = {.train = train};
    if (train->loss.attention_mse > 0)
        attention_match_place(&pass.match, kept, shape, train->compute, B, T);
    pass.normed = compute_rows(train->compute, D);
    pass.normed.data = arena_place(kept, (int64_t)B * T * pass.normed.ld,
                                   (size_t)dtype_size_bytes(pass.normed.dtype));
    const int64_t first = scratch->used_bytes;
    workspace_place(&pass.ws, kept, scratch, shape, B, T, n_threads, FORWARD_ONLY, train->compute);
    const int64_t end = scratch->used_bytes;
    arena_rewind(scratch, first);
    if (train->loss.kl > 0)
        pass.head_scratch =
            arena_place(scratch, head_kl_scratch_bytes(B * T, shape->vocab_size), 1);
    if (scratch->used_bytes < end)
        arena_place(scratch, end - scratch->used_bytes, 1);
    *out = pass;
}

static void widen_layer(void *context, int layer)
{
    const TeacherPass *pass = context;
    if (layer >= 0) // the embedding's rows are widened already
        held_model_widen(pass->teacher, layer);
}

void teacher_start(TeacherPass *pass, const HeldModel *teacher)
{
    pass->teacher = teacher;
    transformer_start(&pass->ws, &teacher->model);
    if (pass->train->loss.attention_mse > 0)
        pass->ws.keeps = &pass->match;
    pass->ws.before_layer = (LayerCallback){widen_layer, pass};
}

void teacher_forward(TeacherPass *pass, const int32_t *inputs)
{
    const HeldModel *teacher = pass->teacher;
    held_model_widen_rows(teacher, inputs, (int64_t)pass->ws.B * pass->ws.T);
    transformer_forward(&pass->ws, &teacher->model, inputs, NULL);
    transformer_normed(&pass->ws, &teacher->model, pass->normed);
}

AttentionMatch *teacher_match(TeacherPass *pass, int64_t n_sequences)
{
    const double weight = pass->train->loss.attention_mse;
    if (weight == 0)
        return NULL;
    attention_match_start(&pass->match, (float)(weight / (double)n_sequences), pass->ws.B);
    return &pass->match;
}

TeacherLosses teacher_losses(TeacherPass *pass, Workspace *ws, const Model *model,
                             const int32_t *targets, float scale, Params *grads)
{
    const LossConfig *loss = &pass->train->loss;
    TeacherLosses losses = {0};
    if (loss->attention_mse > 0)
        losses.attention_mse = attention_match_loss(&pass->match, ws->B);
    if (loss->kl == 0) {
        losses.ce = transformer_loss(ws, model, targets, scale * (float)loss->ce, grads);
        return losses;
    }
    const Model *teacher = &pass->teacher->model;
    const HeadTeacher head = {pass->normed, teacher->params.head, teacher->shape.d_model};
    const HeadWeights weights = {loss->ce, loss->kl, loss->temperature};
    const HeadLosses sums = transformer_kl_losses(ws, model, targets, &head, &weights,
                                                  pass->head_scratch, scale, grads);
    losses.ce = sums.ce;
    losses.kl = sums.kl;
    return losses;
}
