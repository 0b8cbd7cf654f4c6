#include "model/paper/paper_names.h"

#include <stdio.h>
#include <string.h>

// Names below self_attn in one layout.
typedef struct NameDesc {
    size_t field; // in LayerParams
    PaperLayout layout;
    const char *joint;    // of the tensor, with joint SVD
    const char *split[2]; // with split SVD: of the tensor, or of the keys' and the values' half
} NameDesc;

// Any other tensor has the same name in all layouts.
static const NameDesc table[] = {
    {offsetof(LayerParams, k_r), PAPER_V10, "W_k_r", {"W_k_r"}},
    {offsetof(LayerParams, k_r), PAPER_V12, "k_r_proj", {"k_r_proj"}},
    {offsetof(LayerParams, down_kv), PAPER_V10, "W_down_k", {"W_down_k", "W_down_v"}},
    {offsetof(LayerParams, down_kv),
     PAPER_V12,
     "kv_proj.down_kv",
     {"kv_proj.down_k", "kv_proj.down_v"}},
    {offsetof(LayerParams, up_k), PAPER_V10, "W_up_k", {"W_up_k"}},
    {offsetof(LayerParams, up_k), PAPER_V12, "kv_proj.up_k", {"kv_proj.up_k"}},
    {offsetof(LayerParams, up_v), PAPER_V10, "W_up_v", {"W_up_v"}},
    {offsetof(LayerParams, up_v), PAPER_V12, "kv_proj.up_v", {"kv_proj.up_v"}},
};

static const NameDesc *find(const ParamInfo *info, PaperLayout layout)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (info->layer >= 0 && table[i].field == info->field && table[i].layout == layout)
            return &table[i];
    return NULL;
}

static void set_name(PaperTensor *part, int layer, const char *name)
{
    snprintf(part->name, sizeof part->name, "model.layers.%d.self_attn.%s.weight", layer, name);
}

int paper_names(PaperTensor out[2], const ModelShape *shape, const ParamInfo *info,
                PaperLayout layout)
{
    const NameDesc *desc = find(info, layout);
    out[0] = (PaperTensor){.rows = info->rows};
    if (desc == NULL) {
        memcpy(out[0].name, info->name, sizeof out[0].name);
        return 1;
    }
    const bool is_split = shape->svd == SVD_SPLIT;
    set_name(&out[0], info->layer, is_split ? desc->split[0] : desc->joint);
    if (!is_split || desc->split[1] == NULL)
        return 1;
    out[0].rows = info->rows / 2;
    out[1] = (PaperTensor){.first_row = out[0].rows, .rows = info->rows - out[0].rows};
    set_name(&out[1], info->layer, desc->split[1]);
    return 2;
}
