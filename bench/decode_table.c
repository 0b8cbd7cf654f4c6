// CSV and JSON have llama-bench's names where it has one: model_type, n_prompt, n_gen, n_depth,
// avg_ts ...
#include "bench/decode_table.h"

#include "base/json.h"

#include <stdlib.h>

const char *const decode_output_names[] = {[DECODE_MD] = "md",
                                           [DECODE_CSV] = "csv",
                                           [DECODE_JSON] = "json",
                                           [DECODE_JSONL] = "jsonl",
                                           NULL};

enum { TEST_BYTES = 64 };

// "pp512", "tg128 @ d2048", "tg128 x16": llama-bench's, and the sequences decoded together.
static const char *test_name(char out[TEST_BYTES], const DecodeTest *test)
{
    char depth[24] = "", batch[24] = "";
    if (test->batch > 1)
        snprintf(batch, sizeof batch, " x%d", test->batch);
    if (test->depth > 0)
        snprintf(depth, sizeof depth, " @ d%d", test->depth);
    snprintf(out, TEST_BYTES, "%s%d%s%s", test->n_prompt > 0 ? "pp" : "tg",
             test->n_prompt > 0 ? test->n_prompt : test->n_gen, batch, depth);
    return out;
}

static json_t *ratio_json(double ratio)
{
    return ratio > 0 ? json_real(ratio) : json_null();
}

enum { RATIO_BYTES = 24 };

static const char *ratio_text(char out[RATIO_BYTES], double ratio)
{
    snprintf(out, RATIO_BYTES, ratio > 0 ? "%.2f" : "", ratio);
    return out;
}

// NULL without memory; owned by the caller.
static json_t *row_json(const DecodeTest *test, const DecodeResult *result)
{
    char name[TEST_BYTES], type[KV_FORMAT_TEXT_BYTES];
    const InferWeights *weights = &test->model->weights;
    json_t *samples = json_array();
    for (int i = 0; i < test->n_repetitions; i++)
        json_array_append_new(samples, json_real(result->tokens_per_s[i]));
    json_t *row = json_pack(
        "{s:s, s:s, s:I, s:I, s:i, s:s, s:s, s:i, s:i, s:i, s:i, s:s, s:f, s:f}", "model_type",
        test->model->name, "weights_type", dtype_torch_name(weights->dtype), "model_size",
        (json_int_t)weights->size_bytes, "model_n_params", (json_int_t)test->model->n_params,
        "n_threads", test->n_threads, "type_kv", kv_format_describe(type, &test->format), "clock",
        test->is_cpu_time ? "cpu" : "wall", "n_prompt", test->n_prompt, "n_gen", test->n_gen,
        "n_depth", test->depth, "n_sequences", test->batch, "test", test_name(name, test), "avg_ts",
        result->mean, "stddev_ts", result->deviation);
    json_t *measured = json_pack(
        "{s:f, s:f, s:f, s:f, s:s, s:o, s:o}", "cache_bytes_per_token",
        result->cache_bytes_per_token, "limit_ts", result->limit_per_s, "read_bytes_per_s",
        result->read_bytes_per_s, "product_flops_per_s", result->product_flops_per_s,
        "attention_limited_by", result->is_compute_bound ? "products" : "reading", "of_original",
        ratio_json(result->of_original), "of_per_head", ratio_json(result->of_per_head));
    json_object_update(row, measured);
    json_decref(measured);
    json_object_set_new(row, "samples_ts", samples);
    return row;
}

static void print_md(FILE *out, const DecodeTest *test, const DecodeResult *result)
{
    char name[TEST_BYTES], type[KV_FORMAT_TEXT_BYTES], rate[64], of_original[RATIO_BYTES],
        of_per_head[RATIO_BYTES];
    const InferWeights *weights = &test->model->weights;
    snprintf(rate, sizeof rate, "%.2f ± %.2f", result->mean, result->deviation);
    fprintf(out,
            "| %-24s | %7.2f MiB | %8.2f M | %8s | %7d | %14s | %14s | %17s | %12.10g | %9.2f | "
            "%4.0f %% | %8s | %8s |\n",
            test->model->name, (double)weights->size_bytes / (1 << 20),
            (double)test->model->n_params / 1e6, dtype_name(weights->dtype), test->n_threads,
            kv_format_describe(type, &test->format), test_name(name, test), rate,
            result->cache_bytes_per_token, result->limit_per_s,
            100 * result->mean / result->limit_per_s, ratio_text(of_original, result->of_original),
            ratio_text(of_per_head, result->of_per_head));
}

static void print_csv(FILE *out, const json_t *row, bool is_first)
{
    const char *key;
    json_t *value;
    const char *comma = "";
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        if (is_first && !json_is_array(value)) {
            fprintf(out, "%s%s", comma, key);
            comma = ",";
        }
    }
    fputs(is_first ? "\n" : "", out);
    comma = "";
    json_object_foreach((json_t *)(uintptr_t)row, key, value)
    {
        if (json_is_array(value))
            continue;
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        fprintf(out, "%s%s", comma, text != NULL ? text : "");
        free(text);
        comma = ",";
    }
    fputc('\n', out);
}

void decode_table_begin(FILE *out, DecodeOutput format)
{
    if (format == DECODE_JSON)
        fprintf(out, "[\n");
    if (format != DECODE_MD)
        return;
    fprintf(out,
            "| %-24s | %11s | %10s | %8s | %7s | %14s | %14s | %17s | %12s | %9s | %6s | %8s | %8s "
            "|\n"
            "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            "model", "size", "params", "weights", "threads", "type_k/v", "test", "t/s",
            "cache B/token", "limit t/s", "of it", "original", "per head");
}

void decode_table_row(FILE *out, DecodeOutput format, const DecodeTest *test,
                      const DecodeResult *result, bool is_first)
{
    if (format == DECODE_MD) {
        print_md(out, test, result);
        fflush(out);
        return;
    }
    json_t *row = row_json(test, result);
    if (format == DECODE_CSV) {
        print_csv(out, row, is_first);
    } else {
        char *text = json_dumps(row, JSON_REAL_PRECISION(9));
        fprintf(out, "%s%s", format == DECODE_JSON && !is_first ? ",\n" : "",
                text != NULL ? text : "");
        fputs(format == DECODE_JSONL ? "\n" : "", out);
        free(text);
    }
    json_decref(row);
    fflush(out);
}

void decode_table_end(FILE *out, DecodeOutput format)
{
    if (format == DECODE_JSON)
        fprintf(out, "\n]\n");
}
