// `mha2mla inspect PATH`: what a model directory, a safetensors file or a file of tokens holds, on
// one screen. Nothing but headers is read, unless --verify asks for more.
#include "base/file.h"
#include "model/hf.h"
#include "train/command.h"
#include "train/inspect_tokens.h"
#include "train/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LABEL_WIDTH = 14,
    LINE_WIDTH = 96,
    PATTERN_BYTES = 160,
    MOST_GROUPS = 60, // lines of tensors
    SIZE_TEXT_BYTES = 32,
};

// "269.0 MB"
static const char *print_size(char out[SIZE_TEXT_BYTES], int64_t size_bytes)
{
    static const char *const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
    double size = (double)size_bytes / 1000.0;
    int unit = 0;
    if (size_bytes < 1000) {
        snprintf(out, SIZE_TEXT_BYTES, "%d B", (int)size_bytes);
        return out;
    }
    while (size >= 999.95 && unit < 5) {
        size /= 1000.0;
        unit++;
    }
    snprintf(out, SIZE_TEXT_BYTES, "%.1f %s", size, units[unit]);
    return out;
}

static void print_label(const char *label)
{
    printf("  %-*s", LABEL_WIDTH, label);
}

// ---- model directories -------------------------------------------------------------------------

static void print_attention(const ModelShape *s)
{
    const char *kind = shape_is_mla(s)               ? "MLA"
                       : s->n_kv_heads == s->n_heads ? "MHA"
                       : s->n_kv_heads == 1          ? "MQA"
                                                     : "GQA";
    print_label("attention");
    printf("%s, %d query and %d KV heads of width %d", kind, s->n_heads, s->n_kv_heads,
           s->head_dim);
    if (shape_is_mla(s))
        printf("; %d of %d RoPE pairs, d_kv %d, %s SVD", s->rope_pairs, s->head_dim / 2, s->d_kv,
               shape_svd_name(s->svd));
    putchar('\n');
}

static void print_shape(const ModelShape *s)
{
    print_label("layers");
    printf("%d, width %d, feed-forward %d\n", s->n_layers, s->d_model, s->d_ffn);
    print_attention(s);
    print_label("vocabulary");
    printf("%d, head %s\n", s->vocab_size, s->tied_head ? "tied to the embedding" : "of its own");
    print_label("positions");
    printf("%d, RoPE theta %g, RMSNorm epsilon %g\n", s->max_positions, s->rope_theta, s->rms_eps);
}

static void print_cache_row(const char *label, int64_t numbers)
{
    printf("  %-*s%12lld numbers%12lld bytes\n", LABEL_WIDTH, label, (long long)numbers,
           (long long)(2 * numbers));
}

static void print_cache(const ModelShape *shape)
{
    int64_t numbers = shape_cache_numbers(shape);
    printf("KV cache per token, at 16 bit\n");
    print_cache_row("this model", numbers);
    if (!shape_is_mla(shape))
        return;
    ModelShape original = *shape;
    original.d_kv = 0;
    original.rope_pairs = original.head_dim / 2;
    int64_t before = shape_cache_numbers(&original);
    print_cache_row("original", before);
    printf("  %-*s%12.2f %%\n", LABEL_WIDTH, "saving",
           100.0 * (1.0 - (double)numbers / (double)before));
}

// How many of a layer's KV heads keep a pair: ".", "1" to "9" tenths of them, "#" all.
static char share_mark(const ModelShape *shape, const int32_t *of_layer, int pair)
{
    int n_keeping = 0, K = shape->n_kv_heads;
    for (int i = 0; i < K * shape->rope_pairs; i++)
        n_keeping += of_layer[i] == pair;
    if (n_keeping == 0)
        return '.';
    int tenths = 10 * n_keeping / K;
    return n_keeping == K ? '#' : (char)('0' + (tenths > 0 ? tenths : 1));
}

static void print_pairs(const ModelShape *shape, const int32_t *pairs)
{
    int n_pairs = shape->head_dim / 2, n_columns = LINE_WIDTH / (n_pairs + 7);
    printf("RoPE pairs kept, fastest first (. by no KV head, 1-9 tenths of them, # by all)\n");
    for (int l = 0; l < shape->n_layers; l++) {
        const int32_t *of_layer = pairs + (int64_t)l * shape->n_kv_heads * shape->rope_pairs;
        printf("  %3d ", l);
        for (int p = 0; p < n_pairs; p++)
            putchar(share_mark(shape, of_layer, p));
        if (n_columns < 2 || (l + 1) % n_columns == 0 || l + 1 == shape->n_layers)
            putchar('\n');
    }
}

static Status read_pairs(int32_t **out, const ModelShape *shape, const char *dir)
{
    size_t count = (size_t)shape->n_layers * (size_t)(shape->n_kv_heads * shape->rope_pairs);
    int32_t *pairs = malloc(count * sizeof *pairs);
    if (pairs == NULL)
        return fail(FAILED, "%s: no memory for %zu RoPE pairs", dir, count);
    Status status = hf_load_rope_pairs(pairs, shape, dir);
    if (status == OK)
        *out = pairs;
    else
        free(pairs);
    return status;
}

static Status inspect_model(const char *dir)
{
    char size[SIZE_TEXT_BYTES];
    ModelShape shape;
    DType dtype;
    int32_t *pairs = NULL;
    TRY(hf_load_shape(&shape, dir));
    TRY(hf_weights_dtype(&dtype, dir));
    if (shape_is_mla(&shape))
        TRY(read_pairs(&pairs, &shape, dir));
    int64_t n_params = params_count(&shape);
    printf("%s: Hugging Face model, %s\n", dir, shape_is_mla(&shape) ? "converted" : "original");
    print_shape(&shape);
    print_label("parameters");
    printf("%lld (%.2f M)\n", (long long)n_params, (double)n_params / 1e6);
    print_label("weights");
    printf("%s", dtype_name(dtype));
    if (dtype != DTYPE_OTHER)
        printf(", %s", print_size(size, n_params * dtype_size_bytes(dtype)));
    putchar('\n');
    print_cache(&shape);
    if (pairs != NULL)
        print_pairs(&shape, pairs);
    free(pairs);
    return OK;
}

// ---- safetensors files -------------------------------------------------------------------------

typedef struct NamedTensor {
    char pattern[PATTERN_BYTES]; // the name with "*" for parts that are numbers
    const TensorInfo *tensor;
} NamedTensor;

static bool is_number(const char *text, size_t length)
{
    return length > 0 && strspn(text, "0123456789") >= length;
}

static void make_pattern(char out[PATTERN_BYTES], const char *name)
{
    size_t used = 0;
    for (;;) {
        size_t length = strcspn(name, ".");
        bool is_index = is_number(name, length);
        int n = snprintf(out + used, PATTERN_BYTES - used, "%.*s%s",
                         is_index ? 1 : (int)(length < PATTERN_BYTES ? length : PATTERN_BYTES),
                         is_index ? "*" : name, name[length] == '.' ? "." : "");
        used += (size_t)n;
        if (name[length] == '\0' || used >= PATTERN_BYTES)
            break;
        name += length + 1;
    }
    for (char *c = out; *c != '\0'; c++) // names in a damaged file may be anything
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
}

// Alike: the same name but for numbers, the same dtype and dims.
static int compare_alike(const void *a, const void *b)
{
    const NamedTensor *x = a, *y = b;
    int order = strcmp(x->pattern, y->pattern);
    if (order == 0)
        order = strcmp(x->tensor->dtype_text, y->tensor->dtype_text);
    if (order == 0)
        order = x->tensor->n_dims - y->tensor->n_dims;
    for (int i = 0; order == 0 && i < x->tensor->n_dims; i++)
        order =
            (x->tensor->dims[i] > y->tensor->dims[i]) - (x->tensor->dims[i] < y->tensor->dims[i]);
    return order;
}

static void print_group(const NamedTensor *first, int count)
{
    char dims[PATTERN_BYTES] = "[", size[SIZE_TEXT_BYTES];
    const TensorInfo *tensor = first->tensor;
    size_t used = 1;
    for (int i = 0; i < tensor->n_dims && used < sizeof dims; i++)
        used += (size_t)snprintf(dims + used, sizeof dims - used, i > 0 ? ", %lld" : "%lld",
                                 (long long)tensor->dims[i]);
    if (used < sizeof dims)
        snprintf(dims + used, sizeof dims - used, "]");
    printf("%6d x  %-50s  %-5s %-16s %10s\n", count, first->pattern, tensor->dtype_text, dims,
           print_size(size, tensor->size_bytes));
}

static void print_tensors(NamedTensor *list, int n_tensors)
{
    int n_groups = 0, n_hidden = 0;
    qsort(list, (size_t)n_tensors, sizeof *list, compare_alike);
    for (int first = 0, end; first < n_tensors; first = end) {
        end = first + 1;
        while (end < n_tensors && compare_alike(&list[first], &list[end]) == 0)
            end++;
        if (n_groups++ < MOST_GROUPS)
            print_group(&list[first], end - first);
        else
            n_hidden += end - first;
    }
    if (n_hidden > 0)
        printf("%6d more\n", n_hidden);
}

static Status inspect_safetensors(const char *path)
{
    char size[SIZE_TEXT_BYTES];
    SafeTensors file;
    TRY(safetensors_open(&file, path));
    Status status = OK;
    NamedTensor *list = calloc((size_t)file.n_tensors + 1, sizeof *list);
    if (list == NULL) {
        status = fail(FAILED, "%s: no memory for a list of %d tensors", path, file.n_tensors);
        goto close_file;
    }
    for (int t = 0; t < file.n_tensors; t++) {
        list[t].tensor = &file.tensors[t];
        make_pattern(list[t].pattern, file.tensors[t].name);
    }
    printf("%s: safetensors, %d tensors, %s\n", path, file.n_tensors,
           print_size(size, file.map.size_bytes));
    print_tensors(list, file.n_tensors);
    free(list);
close_file:
    safetensors_close(&file);
    return status;
}

// ---- the command -------------------------------------------------------------------------------

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static Status run(int argc, char **argv)
{
    InspectTokens tokens = {0};
    const Option options[] = {
        {"tokenizer", OPTION_STRING, &tokens.tokenizer_dir, "DIR",
         "of tokens: show the first ones as text of this tokenizer"},
        {"verify", OPTION_FLAG, &tokens.verify, NULL, "of tokens: read and check all of them"},
    };
    Arguments rest;
    TRY(options_parse(&rest, &cmd_inspect, options, sizeof options / sizeof options[0], argc,
                      argv));
    if (rest.help_shown)
        return OK;
    if (rest.n_words != 1)
        return fail(BAD_INPUT, "inspect needs one PATH, got %d; see mha2mla inspect --help",
                    rest.n_words);
    const char *path = rest.words[0];
    const bool is_dir = file_is_dir(path);
    if (!is_dir && !file_exists(path))
        return fail(BAD_INPUT, "%s: neither a file nor a directory", path);
    if (!is_dir && ends_with(path, ".h5"))
        return inspect_shard(path, &tokens);
    if (!is_dir && ends_with(path, ".ds"))
        return inspect_nanoset(path, &tokens);
    if (tokens.verify || tokens.tokenizer_dir != NULL)
        return fail(BAD_INPUT, "%s: --verify and --tokenizer are for files of tokens (.h5, .ds)",
                    path);
    if (is_dir)
        return inspect_model(path);
    if (ends_with(path, ".safetensors"))
        return inspect_safetensors(path);
    return fail(BAD_INPUT,
                "%s: not a model directory, a .safetensors file, a token shard (.h5) or a Nanoset "
                "(.ds)",
                path);
}

const Command cmd_inspect = {
    .name = "inspect",
    .summary = "show what a model directory, a file of weights or a file of tokens holds",
    .usage = "PATH [--tokenizer DIR] [--verify]",
    .example = "mha2mla inspect runs/demo/shards/valid.h5 --tokenizer configs/demo/model --verify",
    .run = run,
};
