#include "model/hf/tensor_list.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Also releases a list whose allocation failed half-way.
void tensor_list_release(TensorList *list)
{
    free(list->specs);
    free(list->names);
    free(list->shards);
    *list = (TensorList){0};
}

Status tensor_list_create(TensorList *out, int capacity)
{
    TensorList list = {.capacity = capacity};
    list.specs = calloc((size_t)capacity, sizeof *list.specs);
    list.names = calloc((size_t)capacity, sizeof *list.names);
    list.shards = calloc((size_t)capacity, sizeof *list.shards);
    if (list.specs == NULL || list.names == NULL || list.shards == NULL) {
        tensor_list_release(&list);
        return fail(FAILED, "no memory for a list of %d tensors", capacity);
    }
    *out = list;
    return OK;
}

void tensor_list_add(TensorList *list, const char *name, TensorSpec spec)
{
    CHECK(list->n_specs < list->capacity, "tensor %s is number %d", name, list->n_specs + 1);
    char *own = list->names[list->n_specs];
    snprintf(own, PARAM_NAME_BYTES, "%s", name);
    spec.name = own;
    list->specs[list->n_specs++] = spec;
}

// ---- what is refused ---------------------------------------------------------------------------

static Status check_values(const TensorSpec *spec, const float *values)
{
    // Half a step above the largest finite number: from there on values round to infinity.
    const float limit = spec->dtype == DTYPE_F16    ? 65520.0f
                        : spec->dtype == DTYPE_BF16 ? 0x1.ffp127f
                                                    : INFINITY;
    const int64_t count = tensor_spec_count(spec);
    const int64_t columns = spec->n_dims > 1 ? spec->dims[spec->n_dims - 1] : 1;
    int64_t bad = count;
#pragma omp parallel for schedule(static) reduction(min : bad) if (count > 65536)
    for (int64_t i = 0; i < count; i++)
        if (!(fabsf(values[i]) < limit) && i < bad)
            bad = i;
    if (bad == count)
        return OK;
    return fail(FAILED, "tensor '%s' has %g at row %lld, column %lld, which %s cannot hold",
                spec->name, (double)values[bad], (long long)(bad / columns),
                (long long)(bad % columns), dtype_name(spec->dtype));
}

Status tensor_list_check(const TensorList *list)
{
    const int64_t largest = tensor_specs_scratch(list->specs, list->n_specs);
    float *scratch = largest > 0 ? malloc((size_t)largest * sizeof *scratch) : NULL;
    if (largest > 0 && scratch == NULL)
        return fail(FAILED, "no memory for a tensor of %lld numbers", (long long)largest);
    Status status = OK;
    for (int i = 0; i < list->n_specs && status == OK; i++)
        if (list->specs[i].dtype != DTYPE_I32)
            status = check_values(&list->specs[i], tensor_spec_values(&list->specs[i], scratch));
    free(scratch);
    return status;
}

// ---- writing -----------------------------------------------------------------------------------

static int64_t spec_bytes(const TensorSpec *spec)
{
    return tensor_spec_count(spec) * dtype_size_bytes(spec->dtype);
}

// Fills files in the tensors' order up to the limit. A larger tensor has a file of its own.
static void plan_shards(TensorList *list, int64_t max_shard_bytes)
{
    int64_t used = 0;
    int shard = 0;
    for (int i = 0; i < list->n_specs; i++) {
        int64_t bytes = spec_bytes(&list->specs[i]);
        if (used > 0 && bytes > max_shard_bytes - used) {
            shard++;
            used = 0;
        }
        used += bytes;
        list->shards[i] = shard;
    }
    list->n_shards = shard + 1;
}

// Numbers from 1, five digits, as transformers names them.
void shard_file_name(char out[SHARD_NAME_BYTES], int shard, int n_shards)
{
    snprintf(out, SHARD_NAME_BYTES, "model-%05d-of-%05d.safetensors", shard + 1, n_shards);
}

bool shard_file_parse(int *shard, int *n_shards, const char *name)
{
    int number, of, end = 0;
    sscanf(name, "model-%5d-of-%5d.safetensors%n", &number, &of, &end);
    if (end == 0 || name[end] != '\0' || number < 1 || number > of)
        return false;
    *shard = number - 1;
    *n_shards = of;
    return true;
}

// Files of an earlier save. A reader looks for the single file first and then for the index, so the
// other kind must go; shards of another number would only fill the disk.
static Status remove_leftovers(const char *dir, int n_shards)
{
    Status status = OK;
    TRY(file_remove(dir, n_shards == 1 ? "model.safetensors.index.json" : "model.safetensors"));
    DIR *list = opendir(dir);
    if (list == NULL)
        return fail(FAILED, "%s: cannot be listed: %s", dir, strerror(errno));
    for (struct dirent *entry; (entry = readdir(list)) != NULL;) {
        int shard, of;
        if (shard_file_parse(&shard, &of, entry->d_name) && of != n_shards)
            TRY_GOTO(close_list, file_remove(dir, entry->d_name));
    }
close_list:
    closedir(list);
    return status;
}

// The index of a model in several files, as transformers writes it: total_size in bytes, and the
// file of each tensor.
static Status write_index(const TensorList *list, const char *dir)
{
    char path[PATH_BYTES], name[SHARD_NAME_BYTES];
    TRY(file_join(path, dir, "model.safetensors.index.json"));
    json_t *map = json_object();
    int64_t total_bytes = 0;
    int errors = 0;
    for (int i = 0; i < list->n_specs; i++) {
        shard_file_name(name, list->shards[i], list->n_shards);
        errors += json_object_set_new(map, list->specs[i].name, json_string(name));
        total_bytes += spec_bytes(&list->specs[i]);
    }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total_bytes,
                              "weight_map", map);
    Status status = index == NULL || errors != 0 ? fail(FAILED, "%s: no memory for the index", path)
                                                 : json_write(index, path);
    json_decref(index);
    return status;
}

Status tensor_list_write(TensorList *list, const char *dir, int64_t max_shard_bytes)
{
    char path[PATH_BYTES], name[SHARD_NAME_BYTES];
    int first = 0;
    plan_shards(list, max_shard_bytes);
    for (int shard = 0; shard < list->n_shards; shard++) {
        int end = first;
        while (end < list->n_specs && list->shards[end] == shard)
            end++;
        shard_file_name(name, shard, list->n_shards);
        TRY(file_join(path, dir, list->n_shards > 1 ? name : "model.safetensors"));
        TRY(safetensors_write(path, list->specs + first, end - first));
        first = end;
    }
    if (list->n_shards > 1)
        TRY(write_index(list, dir));
    return remove_leftovers(dir, list->n_shards);
}
