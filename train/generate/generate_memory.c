#include "train/generate/generate_memory.h"

#include "infer/weights.h"

#include <unistd.h>

static const double GIB = 1024.0 * 1024.0 * 1024.0;

// The reference policy holds a prompt as rows before it quantizes it.
double generate_sequence_bytes(const KvFormat *format, const ModelShape *shape, int64_t n_tokens)
{
    const KvFormat plain = kv_format_plain(format->type);
    return (double)kv_format_sequence_bytes(format->reference_policy ? &plain : format, shape,
                                            (int)n_tokens);
}

Status generate_check_memory(const GenerateMemory *need)
{
    char name[KV_FORMAT_TEXT_BYTES];
    const double machine = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / GIB;
    const double limit = need->limit_gib > 0 ? need->limit_gib : machine;
    const double weights =
        (double)infer_weights_bytes(need->shape, need->dtype, need->compute) / GIB;
    const double work = need->work_bytes / GIB;
    const double cache = need->cache_bytes / GIB;
    if (weights + work + cache <= limit)
        return OK;
    return fail(BAD_INPUT,
                "%s: %.3g GiB are needed, of which the weights take %.3g and the KV cache (%s, %g "
                "bytes per token, %d at a time) %.3g, %s %.3g; lower %s, or quantize the cache "
                "with --kv-bits",
                need->model, weights + work + cache, weights,
                kv_format_describe(name, need->format),
                kv_format_bytes_per_token(need->format, need->shape), need->n_at_a_time, cache,
                need->limit_gib > 0 ? "--memory is" : "the machine has", limit, need->options);
}
