#include "model/paper/paper_import.h"

#include "model/head_rows.h"
#include "model/hf/hf_weights.h"
#include "model/paper/paper_names.h"
#include "model/paper/paper_ranks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// ---- pairs -------------------------------------------------------------------------------------

static void repeat(Model *model, const int32_t *pairs)
{
    const ModelShape *s = &model->shape;
    for (int row = 0; row < s->n_layers * s->n_kv_heads; row++)
        memcpy(model->rope_pairs + (int64_t)row * s->rope_pairs, pairs,
               (size_t)s->rope_pairs * sizeof *pairs);
}

// "0,4,8" into the first row of the model's pairs.
static Status parse_list(Model *model, const char *text)
{
    const ModelShape *s = &model->shape;
    const int P = s->rope_pairs, half = s->head_dim / 2;
    int n = 0;
    for (const char *at = text; n < P; at++) {
        char *end;
        const int least = n > 0 ? model->rope_pairs[n - 1] + 1 : 0;
        const long pair = strtol(at, &end, 10);
        if (end == at || *at < '0' || *at > '9' || pair < least || pair >= half ||
            (*end != ',' && *end != '\0'))
            break;
        model->rope_pairs[n++] = (int32_t)pair;
        at = end;
        if (*at == '\0')
            break;
        if (n == P) // more of them
            n = P + 1;
    }
    if (n != P)
        return fail(BAD_INPUT,
                    "--rope-pairs %s: expected are the %d pairs that the weights have, ascending "
                    "numbers of 0 to %d with commas between",
                    text, P, half - 1);
    return OK;
}

// The config's path is one of the machine that the model was trained on: its file may lie beside
// the weights.
static Status find_ranks(char out[PATH_BYTES], const PaperConfig *paper, const char *dir)
{
    const char *slash = strrchr(paper->ranks_path, '/');
    const char *name = slash != NULL ? slash + 1 : paper->ranks_path;
    TRY(file_join(out, dir, name));
    if (name[0] != '\0' && file_exists(out))
        return OK;
    return fail(BAD_INPUT,
                "%s: the kept RoPE pairs are in a file of ranks%s%s, which is not beside the "
                "weights; give it by --ranks FILE.pth, or the pairs by --rope-pairs",
                dir, name[0] != '\0' ? " called " : "", name);
}

static Status find_pairs(Model *model, const PaperConfig *paper, const char *dir,
                         const PaperPairs *given)
{
    char path[PATH_BYTES];
    if (given->ranks != NULL && (given->list != NULL || !paper->is_by_ranks))
        return fail(BAD_INPUT, "--ranks is for pairs by 2-norm without --rope-pairs; %s has '%s'",
                    dir, paper->strategy);
    if (given->list != NULL) {
        TRY(parse_list(model, given->list));
        repeat(model, model->rope_pairs);
        return OK;
    }
    if (!paper->is_by_ranks) {
        repeat(model, paper->pairs);
        return OK;
    }
    if (given->ranks == NULL)
        TRY(find_ranks(path, paper, dir));
    return paper_ranks_read(model->rope_pairs, &model->shape,
                            given->ranks != NULL ? given->ranks : path);
}

// ---- weights -----------------------------------------------------------------------------------

static Status read_tensor(Model *model, const ParamInfo *info, PaperLayout layout,
                          const HfWeights *weights)
{
    PaperTensor parts[2];
    const int n_parts = paper_names(parts, &model->shape, info, layout);
    for (int i = 0; i < n_parts; i++) {
        float *values =
            model->params.flat + info->offset + (int64_t)parts[i].first_row * info->cols;
        TRY(hf_weights_read(values, weights, parts[i].name, (int[]){parts[i].rows, info->cols},
                            info->is_vector ? 1 : 2));
    }
    return OK;
}

// From the original order, head by head, to that of v1.2.
static Status reorder_queries(Model *model)
{
    const ModelShape *s = &model->shape;
    const size_t count = (size_t)shape_dim(s, DIM_QUERY) * (size_t)s->d_model;
    float *original = malloc(count * sizeof *original);
    int *rows = malloc((size_t)s->head_dim * sizeof *rows);
    if (original == NULL || rows == NULL) {
        free(original);
        free(rows);
        return fail(FAILED, "no memory for %zu queries", count);
    }
    for (int l = 0; l < s->n_layers; l++) {
        float *q = model->params.layers[l].q;
        memcpy(original, q, count * sizeof *q);
        head_rows_queries(q, model, original, l, model->shape.d_model, rows);
    }
    free(original);
    free(rows);
    return OK;
}

// Before memory is asked for: a config that does not belong to the files is refused at once.
// *n_tensors: of those that are read.
static Status check_present(int *n_tensors, const HfWeights *weights, const PaperConfig *paper,
                            const char *dir)
{
    const ModelShape *s = &paper->shape;
    const int n = params_n_tensors(s);
    *n_tensors = 0;
    for (int t = 0; t < n; t++) {
        const ParamInfo info = params_info(s, t);
        PaperTensor parts[2];
        const int n_parts = paper_names(parts, s, &info, paper->layout);
        *n_tensors += n_parts;
        for (int i = 0; i < n_parts; i++) {
            const SafeTensors *file;
            TRY(hf_weights_find(&file, weights, parts[i].name));
            if (file == NULL)
                return fail(BAD_INPUT, "%s: tensor '%s' is missing", weights->path, parts[i].name);
        }
    }
    return s->tied_head ? hf_weights_check_tied(weights, dir) : OK;
}

static Status read_weights(Model *model, PaperLayout layout, const HfWeights *weights)
{
    const int n_tensors = params_n_tensors(&model->shape);
    for (int t = 0; t < n_tensors; t++) {
        const ParamInfo info = params_info(&model->shape, t);
        TRY(read_tensor(model, &info, layout, weights));
    }
    return layout == PAPER_V10 ? reorder_queries(model) : OK;
}

Status paper_load(Model *out, const PaperConfig *paper, const char *dir, const PaperPairs *given)
{
    HfWeights weights;
    Model model;
    int n_tensors;
    Status status;
    TRY(hf_weights_open(&weights, dir));
    TRY_GOTO(close_weights, check_present(&n_tensors, &weights, paper, dir));
    TRY_GOTO(close_weights, model_create(&model, &paper->shape));
    TRY_GOTO(release_model, find_pairs(&model, paper, dir, given));
    TRY_GOTO(release_model, read_weights(&model, paper->layout, &weights));
    hf_weights_warn(&weights, n_tensors, paper->shape.tied_head, dir);
    hf_weights_close(&weights);
    *out = model;
    return OK;
release_model:
    model_release(&model);
close_weights:
    hf_weights_close(&weights);
    return status;
}
