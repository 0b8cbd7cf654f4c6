// Quantized widths are those of the default scheme; hqq and quanto cost the same.
#include "infer/cache/kv_table.h"

#define QUANTIZED(bits)                                                                            \
    {                                                                                              \
        .type = KV_BFLOAT16, .scheme = KV_CHANNEL, .value_bits = (bits), .key_bits = (bits)        \
    }

const KvWidth kv_widths[N_KV_WIDTHS] = {
    {"float32", {.type = KV_FLOAT32}}, {"bfloat16", {.type = KV_BFLOAT16}},
    {"8 bits", QUANTIZED(8)},          {"4 bits", QUANTIZED(4)},
    {"3 bits", QUANTIZED(3)},          {"2 bits", QUANTIZED(2)},
};

// A width of 3 bits and half a bit of scale and zero can leave a fraction of a byte.
static void print_row(FILE *out, const char *label, const ModelShape *shape)
{
    fprintf(out, "  %-16s", label);
    for (int i = 0; i < N_KV_WIDTHS; i++) {
        const double bytes = kv_format_bytes_per_token(&kv_widths[i].format, shape);
        fprintf(out, " %10.10g", bytes);
    }
    fputc('\n', out);
}

void kv_table_print(FILE *out, const ModelShape *shape)
{
    const ModelShape original = shape_original(shape);
    const KvFormat plain = kv_format_plain(KV_BFLOAT16);
    const double full_bytes = kv_format_bytes_per_token(&plain, &original);
    fprintf(out, "KV cache per token");
    for (int i = 0; i < N_KV_WIDTHS; i++)
        fprintf(out, " %10s", kv_widths[i].name);
    fprintf(out, "  bytes\n");
    print_row(out, "this model", shape);
    if (shape_is_mla(shape))
        print_row(out, "original", &original);
    fprintf(out, "  %-16s", "share");
    for (int i = 0; i < N_KV_WIDTHS; i++) {
        const double bytes = kv_format_bytes_per_token(&kv_widths[i].format, shape);
        fprintf(out, " %8.2f %%", 100 * bytes / full_bytes);
    }
    fprintf(out, "  of %s bfloat16\n", shape_is_mla(shape) ? "the original in" : "the model in");
}
