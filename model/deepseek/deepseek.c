#include "model/deepseek/deepseek.h"

#include "base/log.h"
#include "model/deepseek/deepseek_config.h"
#include "model/hf/hf.h"
#include "model/hf/hf_directory.h"

#include <stdio.h>

Status deepseek_save(const Deepseek *d, const char *base_dir, DType dtype, const char *dir)
{
    const ModelShape *s = &d->model->shape;
    Status status;
    TensorList list;
    json_t *config;
    TRY(hf_check_target(base_dir, dir));
    if (dtype == DTYPE_F16 && !s->latent_norm)
        return fail(BAD_INPUT,
                    "--format deepseek cannot be float16 for a model whose latent has no "
                    "norm: numbers near 1e-8 and 7e4 are in it; use float32 or bfloat16");
    TRY(deepseek_list_tensors(&list, d, dtype));
    TRY_GOTO(release_list, tensor_list_check(&list));
    TRY_GOTO(release_list, deepseek_config_make(&config, d, base_dir, dtype));
    const HfDirectory files = {.tensors = &list,
                               .config = config,
                               .base_dir = base_dir,
                               .max_positions = s->max_positions};
    status = hf_directory_write(&files, dir);
    json_decref(config);
release_list:
    tensor_list_release(&list);
    return status;
}

void deepseek_describe(const Deepseek *d, DType dtype)
{
    const ModelShape *s = &d->model->shape;
    const int64_t size = dtype_size_bytes(dtype), own = shape_cache_numbers(s);
    const int64_t cache = (int64_t)s->n_layers * (d->latent + d->rho);
    printf("DeepSeek's format: %d rotated slots, of which a layer uses %d; KV cache %lld bytes per "
           "token (own format %lld), weights %lld bytes (own format %lld)\n",
           d->slots.n_slots, d->slots.row, (long long)(cache * size), (long long)(own * size),
           (long long)(deepseek_count(d) * size), (long long)(params_count(s) * size));
    if (!s->latent_norm)
        log_warn("the latent has no norm, so DeepSeek's is made linear: right in float32 and "
                 "bfloat16, not a number or nonsense in engines that compute in float16");
    if (d->slots.stride == 0)
        log_warn("the rotated pairs are not every n-th one from 0, so the frequencies are a "
                 "longrope table: transformers runs it, vLLM does not; --plain-rope makes it plain "
                 "for more slots");
    if (d->nope == 0)
        log_warn("all pairs are rotated, so qk_nope_head_dim is 0: vLLM needs at least one");
    if (d->latent != 512 || d->rho != 64)
        log_info("vLLM: heads of %d + %d need its Triton backend of 2026 or later; FlashMLA takes "
                 "512 + 64 alone",
                 d->latent, d->rho);
}
