// A model has hundreds of tensors in as many layers: those that differ only by the numbers in their
// names are one line with their count.
#include "model/hf/safetensors.h"
#include "train/inspect/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATTERN_BYTES = 160,
    MAX_GROUPS = 60, // lines of tensors
};

typedef struct NamedTensor {
    char pattern[PATTERN_BYTES]; // the name with "*" for parts that are numbers
    const TensorInfo *tensor;
} NamedTensor;

// Digits alone: "0" of "model.layers.0", not "q_proj2".
static bool is_number(const char *text, size_t length)
{
    return length > 0 && strspn(text, "0123456789") >= length;
}

// "model.layers.17.mlp.up_proj.weight" becomes "model.layers.*.mlp.up_proj.weight". A name that is
// too long is cut, which may only join lines that would have been apart.
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

// Number of tensors, name, dtype, dims, size of one. Dims are cut where a damaged file has too
// many.
static void print_group(const NamedTensor *first, int count)
{
    char dims[PATTERN_BYTES] = "[", size[INSPECT_SIZE_BYTES];
    const TensorInfo *tensor = first->tensor;
    size_t used = 1;
    for (int i = 0; i < tensor->n_dims && used < sizeof dims; i++)
        used += (size_t)snprintf(dims + used, sizeof dims - used, i > 0 ? ", %lld" : "%lld",
                                 (long long)tensor->dims[i]);
    if (used < sizeof dims)
        snprintf(dims + used, sizeof dims - used, "]");
    printf("%6d x  %-50s  %-5s %-16s %10s\n", count, first->pattern, tensor->dtype_text, dims,
           inspect_size(size, tensor->size_bytes));
}

// Sorting puts tensors that are alike beside each other, so a group is a run of equal neighbours.
static void print_tensors(NamedTensor *list, int n_tensors)
{
    int n_groups = 0, n_hidden = 0;
    qsort(list, (size_t)n_tensors, sizeof *list, compare_alike);
    for (int first = 0, end; first < n_tensors; first = end) {
        end = first + 1;
        while (end < n_tensors && compare_alike(&list[first], &list[end]) == 0)
            end++;
        if (n_groups++ < MAX_GROUPS)
            print_group(&list[first], end - first);
        else
            n_hidden += end - first;
    }
    if (n_hidden > 0)
        printf("%6d more\n", n_hidden);
}

// Only the header is read; the file's bytes are mapped and stay on the disk.
Status inspect_safetensors(const char *path)
{
    char size[INSPECT_SIZE_BYTES];
    SafeTensors file;
    TRY(safetensors_open(&file, path));
    Status status = OK;
    // One more than needed: calloc() may return NULL for 0 elements.
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
           inspect_size(size, file.map.size_bytes));
    print_tensors(list, file.n_tensors);
    free(list);
close_file:
    safetensors_close(&file);
    return status;
}
