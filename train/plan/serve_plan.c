// The rows of the table: the original, the widths that the paper's tables have (d_kv of a half, a
// quarter and an eighth of the head, with an eighth of its dims under RoPE) and the model's own, or
// for a model of the shared form the same caches in that form.
#include "train/plan/serve_plan.h"

#include "infer/cache/kv_table.h"
#include "model/convert/convert_target.h"
#include "model/params.h"

#include <stdlib.h>

enum { MAX_VARIANTS = 5, LABEL_BYTES = 32 };

static const double MIB = 1024.0 * 1024.0, GIB = 1024.0 * 1024.0 * 1024.0;

typedef struct Variant {
    ModelShape shape;
    bool is_own; // the shape that was asked for
} Variant;

typedef struct Variants {
    Variant items[MAX_VARIANTS];
    int count;
} Variants;

static void add_variant(Variants *variants, const ModelShape *shape, const ModelShape *own)
{
    const bool is_own = shape->d_kv == own->d_kv && shape->latent == own->latent &&
                        shape->rope_pairs == own->rope_pairs;
    variants->items[variants->count++] = (Variant){*shape, is_own};
}

static int by_cache_descending(const void *a, const void *b)
{
    const int64_t first = shape_cache_numbers(&((const Variant *)a)->shape),
                  second = shape_cache_numbers(&((const Variant *)b)->shape);
    return (first < second) - (first > second);
}

// The model's form with a cache of the paper's width `d_kv`.
static Status convert_like(ModelShape *out, const ModelShape *own, int d_kv)
{
    const ModelShape original = shape_original(own);
    const int kept = own->head_dim > 16 ? own->head_dim / 16 : 1;
    ConvertTarget target = {.rope_pairs = kept, .d_kv = d_kv};
    if (shape_is_shared(own))
        target = (ConvertTarget){.form = FORM_SHARED,
                                 .latent_norm = own->latent_norm,
                                 .cache = (2.0 * kept + d_kv) / (2.0 * own->head_dim)};
    else if (shape_is_mla(own))
        target = (ConvertTarget){.rope_pairs = own->rope_pairs, .d_kv = d_kv, .svd = own->svd};
    return convert_target_shape(out, &original, &target);
}

// The original first, then from the widest latent to the narrowest. Widths that the shape cannot
// have are left out.
static Variants list_variants(const ModelShape *own)
{
    const ModelShape original = shape_original(own);
    const bool is_mla = shape_is_mla(own);
    Variants variants = {0};
    add_variant(&variants, &original, own);
    for (int part = 2; part <= 8; part *= 2) {
        ModelShape shape;
        if (convert_like(&shape, own, original.head_dim / part) != OK ||
            shape_cache_numbers(&shape) == shape_cache_numbers(own))
            continue;
        add_variant(&variants, &shape, own);
    }
    if (is_mla)
        add_variant(&variants, own, own);
    qsort(variants.items + 1, (size_t)variants.count - 1, sizeof variants.items[0],
          by_cache_descending);
    return variants;
}

Status serve_plan_check(const ServePlan *plan)
{
    TRY(shape_check_length(&plan->shape, plan->load.context, "--context", plan->model));
    shape_warn_healed(&plan->shape, plan->load.context, "--context", plan->model);
    return OK;
}

// ---- the page ----------------------------------------------------------------------------------

static const char *source_of(bool is_given)
{
    return is_given ? "given" : "measured";
}

static void print_head(FILE *out, const ServePlan *plan, const Rates *rates)
{
    const ModelShape *s = &plan->shape;
    const ServeLoad *load = &plan->load;
    fprintf(out, "serve        %s: %.2f M parameters in %s, %d layers, %d heads, %d KV heads of %d",
            plan->model, (double)params_count(s) / 1e6, dtype_name(load->dtype), s->n_layers,
            s->n_heads, s->n_kv_heads, s->head_dim);
    if (shape_is_shared(s))
        fprintf(out, ", shared form, %d rotated slots, latent %d", s->rope_pairs, s->latent);
    else if (shape_is_mla(s))
        fprintf(out, ", d_kv %d, %d RoPE pairs", s->d_kv, s->rope_pairs);
    fprintf(out, "\nload         %d sequence%s of %d tokens, %d thread%s\n", load->batch,
            load->batch == 1 ? "" : "s", load->context, load->n_threads,
            load->n_threads == 1 ? "" : "s");
    fprintf(out, "memory       %.4g GiB (%s)\n", (double)load->memory_bytes / GIB,
            plan->is_memory_given ? "--memory" : "this machine's");
    const bool is_float32 = load->compute == COMPUTE_FLOAT32;
    fprintf(out, "rates        reading %.1f GB/s, %s; %s %.1f GFLOP/s, %s", rates->read_bytes / 1e9,
            source_of(plan->is_reading_given), is_float32 ? "sgemm" : "products in bfloat16",
            rates->product_flops / 1e9, source_of(plan->is_rate_given));
    if (!is_float32)
        fprintf(out, "; sgemm, for absorbed attention, %.1f GFLOP/s, %s",
                rates->attention_flops / 1e9, source_of(plan->is_attention_given));
    fprintf(out, ", of which products reach %.0f %% (--efficiency)\n", 100 * plan->efficiency);
}

static void print_row(FILE *out, const char *label, const char *width, double bytes_per_token,
                      const ServeCost *cost)
{
    fprintf(out, "%-12s %-9s %10.10g %10.1f %10.1f %10.1f ", label, width, bytes_per_token,
            (double)cost->weights_bytes / MIB, (double)cost->cache_bytes / MIB,
            (double)cost->total_bytes / MIB);
    if (cost->largest_batch > 0)
        fprintf(out, "%8d", cost->largest_batch);
    else
        fprintf(out, "%8s", "none");
    fprintf(out, " %10.4g %9.1f  %s\n", cost->tokens_per_s, 1e3 * cost->attention_s,
            cost->is_compute_bound ? "products" : "reading");
}

static const char *variant_label(char out[LABEL_BYTES], const Variant *variant)
{
    const char *mark = variant->is_own ? " *" : "";
    if (shape_is_shared(&variant->shape))
        snprintf(out, LABEL_BYTES, "P %d, R %d%s", variant->shape.rope_pairs, variant->shape.latent,
                 mark);
    else if (shape_is_mla(&variant->shape))
        snprintf(out, LABEL_BYTES, "d_kv %d%s", variant->shape.d_kv, mark);
    else
        snprintf(out, LABEL_BYTES, "original%s", mark);
    return out;
}

static void print_table(FILE *out, const ServePlan *plan, const Rates *rates,
                        const Variants *variants)
{
    fprintf(out, "%-12s %-9s %10s %10s %10s %10s %8s %10s %9s\n", "", "", "bytes per", "weights",
            "cache", "total", "largest", "", "attention");
    fprintf(out, "%-12s %-9s %10s %10s %10s %10s %8s %10s %9s  %s\n", "attention", "cache", "token",
            "MiB", "MiB", "MiB", "batch", "tokens/s", "ms", "limited by");
    for (int v = 0; v < variants->count; v++)
        for (int w = 0; w < N_KV_WIDTHS; w++) {
            char label[LABEL_BYTES];
            const Variant *variant = &variants->items[v];
            const KvFormat *format = &kv_widths[w].format;
            const ServeCost cost =
                serve_cost(&variant->shape, format, &plan->load, rates, plan->efficiency);
            print_row(out, w == 0 ? variant_label(label, variant) : "", kv_widths[w].name,
                      kv_format_bytes_per_token(format, &variant->shape), &cost);
        }
    fprintf(out, "* %s\n", plan->model);
}

// Where the small cache buys memory and not time: absorbed decoding multiplies the latent with
// every head.
static void print_attention(FILE *out, const ServePlan *plan, const Rates *rates,
                            const Variants *variants)
{
    const KvFormat plain = kv_format_plain(KV_BFLOAT16);
    const ServeCost original =
        serve_cost(&variants->items[0].shape, &plain, &plan->load, rates, plan->efficiency);
    fprintf(out, "decoding against the original, both caches in bfloat16\n");
    for (int v = 1; v < variants->count; v++) {
        char label[LABEL_BYTES];
        const Variant *variant = &variants->items[v];
        const ServeCost cost =
            serve_cost(&variant->shape, &plain, &plan->load, rates, plan->efficiency);
        const double ratio = cost.attention_s / original.attention_s;
        fprintf(out, "  %-10s attention takes %.2f times as long (%s), a step %.2f times%s\n",
                variant_label(label, variant), ratio,
                cost.is_compute_bound ? "compute-bound" : "bound by reading",
                original.tokens_per_s / cost.tokens_per_s,
                ratio > 1 ? ": this cache saves memory, not time" : "");
    }
}

static void print_notes(FILE *out, const ServePlan *plan, const Rates *rates)
{
    const KvFormat plain = kv_format_plain(KV_BFLOAT16);
    const ServeCost cost = serve_cost(&plan->shape, &plain, &plan->load, rates, plan->efficiency);
    fprintf(out,
            "prompt       one of %d tokens is read in %.3g s, in chunks, whatever its cache\n"
            "total        with %.1f MiB of buffers and %.1f MiB of program and libraries; at least "
            "what\n"
            "             loading takes, a float copy of the largest tensor\n"
            "assumed\n"
            "  tokens/s   of the whole batch, each sequence with its %d tokens in the cache; a\n"
            "             limit: norms, softmax, sampling and quantized codes' scales are not\n"
            "             counted; one rank, others serve other batches\n"
            "  quantized  b + 0.5 bits per number, the newest 64 to 127 tokens in bfloat16\n",
            plan->load.context, cost.prompt_s, (double)cost.buffers_bytes / MIB,
            (double)plan->load.process_bytes / MIB, plan->load.context);
}

void serve_plan_print(FILE *out, const ServePlan *plan, const Rates *rates)
{
    const Variants variants = list_variants(&plan->shape);
    print_head(out, plan, rates);
    print_table(out, plan, rates, &variants);
    print_attention(out, plan, rates, &variants);
    print_notes(out, plan, rates);
}
