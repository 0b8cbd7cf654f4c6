// Reading: text to JSON, the checksum, then every member. A damaged disk is found by the checksum;
// the members are checked all the same, as a manifest may be edited or made by a faulty program,
// and nothing that follows is to divide by one of its zeros or to allocate what it dreams of.
#include "train/checkpoint/manifest.h"

#include "base/checksum.h"
#include "base/file.h"
#include "train/checkpoint/checkpoint_shard.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_RANKS = 1 << 20,
    MAX_BATCH = 1 << 20,   // sequences, as in the config
    MAX_SEQ_LEN = 1 << 24, // likewise
    N_MOMENTS = 2,         // in the files, of each parameter that is trained
    MAX_PATTERNS = 1000,   // of train.trainable
    WHERE_BYTES = PATH_BYTES + 32,
};

// ---- members -----------------------------------------------------------------------------------

// Members that the program keeps in an int; the bounds make the conversion safe.
static Status get_small(int *out, const json_t *object, const char *where, const char *key, int min,
                        int max)
{
    int64_t value;
    TRY(json_get_int(&value, object, where, key, min, max));
    *out = (int)value;
    return OK;
}

// A member that must follow from the others.
static Status expect_int(const json_t *object, const char *where, const char *key, int64_t expected)
{
    int64_t value;
    TRY(json_get_int(&value, object, where, key, 0, INT64_MAX));
    if (value != expected)
        return fail(BAD_INPUT, "%s: '%s' is %lld, the other members make it %lld", where, key,
                    (long long)value, (long long)expected);
    return OK;
}

// A text or null; NULL for that.
static Status get_text(const char **out, const json_t *root, const char *where, const char *key)
{
    *out = NULL;
    return json_has(root, key) ? json_get_line(out, root, where, key) : OK;
}

// A checksum as hexadecimal digits, `n_digits` of them.
static Status check_digits(const char *digits, size_t n_digits, const char *where, const char *key)
{
    if (strlen(digits) != n_digits || strspn(digits, "0123456789abcdef") != n_digits)
        return fail(BAD_INPUT, "%s: '%s' is \"%.80s\", not %zu hexadecimal digits", where, key,
                    digits, n_digits);
    return OK;
}

// ---- how far the run was -----------------------------------------------------------------------

// What was measured; NaN where it was not, which is allowed unless `is_due`.
static Status get_measured(double *out, const json_t *root, const char *where, const char *key,
                           double min, bool is_due)
{
    *out = NAN;
    if (!json_has(root, key) && !is_due)
        return OK;
    return json_get_real(out, root, where, key, min, INFINITY);
}

// A step is accepted or skipped, so both counts together are no more than the steps done.
static Status get_spikes(SpikeHistory *out, const json_t *root, const char *path, int step)
{
    const json_t *object = json_object_get(root, "spikes");
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "%s: spikes", path);
    TRY(json_get_real(&out->mean, object, where, "mean", 0, INFINITY));
    TRY(json_get_int(&out->n_accepted, object, where, "n_accepted", 0, step));
    TRY(json_get_int(&out->n_skipped, object, where, "n_skipped", 0, step - out->n_accepted));
    return json_get_int(&out->n_skipped_in_row, object, where, "n_skipped_in_row", 0,
                        out->n_skipped);
}

// Missing where no validation was made, or by a version that had no names for sets.
static Status get_validation_set(char out[VALIDATION_SET_BYTES], const json_t *root,
                                 const char *path)
{
    const char *set;
    TRY(get_text(&set, root, path, "validation_set"));
    if (set == NULL)
        return OK;
    TRY(check_digits(set, VALIDATION_SET_BYTES - 1, path, "validation_set"));
    memcpy(out, set, VALIDATION_SET_BYTES);
    return OK;
}

// Step 0, the state right after a conversion, has neither a loss nor a norm.
static Status get_state(RunState *out, const json_t *root, const char *path)
{
    TRY(get_small(&out->step, root, path, "step", 0, INT_MAX));
    TRY(get_measured(&out->loss, root, path, "loss", -INFINITY, out->step > 0));
    TRY(get_measured(&out->grad_norm, root, path, "grad_norm", 0, out->step > 0));
    TRY(get_small(&out->valid_step, root, path, "valid_step", -1, out->step));
    TRY(get_measured(&out->valid_loss, root, path, "valid_loss", -INFINITY, false));
    if (out->valid_step < 0 && !isnan(out->valid_loss))
        return fail(BAD_INPUT, "%s: 'valid_loss' is %g, but 'valid_step' is -1: not measured", path,
                    out->valid_loss);
    TRY(get_validation_set(out->valid_set, root, path));
    return get_spikes(&out->spikes, root, path, out->step);
}

// A number format, by the index of its name. Left out by versions that knew float32 alone, the
// first.
static Status get_format(int *out, const json_t *root, const char *path, const char *key,
                         const char *const names[2])
{
    const char *name;
    TRY(get_text(&name, root, path, key));
    for (int i = 0; i < 2; i++) {
        if (name != NULL && strcmp(name, names[i]) != 0)
            continue;
        *out = i;
        return OK;
    }
    return fail(BAD_INPUT, "%s: '%s' is \"%.40s\", allowed are %s and %s", path, key, name,
                names[0], names[1]);
}

static Status get_formats(Manifest *manifest, const json_t *root, const char *path)
{
    const char *const reduce_names[] = {config_reduce_dtype_name(REDUCE_FLOAT32),
                                        config_reduce_dtype_name(REDUCE_BFLOAT16)};
    int reduce_dtype, compute;
    TRY(get_format(&reduce_dtype, root, path, "reduce_dtype", reduce_names));
    TRY(get_format(&compute, root, path, "compute", compute_names));
    manifest->compute = (ComputeType)compute;
    return OK;
}

// micro_batch and sum_groups decide the order of additions, and so the bits of a run: they must be
// possible ones, though a resume may choose others.
static Status get_batches(Manifest *manifest, const json_t *root, const char *path)
{
    int micro_batch, sum_groups;
    TRY(get_small(&manifest->global_batch, root, path, "global_batch", 1, MAX_BATCH));
    TRY(get_small(&micro_batch, root, path, "micro_batch", 1, manifest->global_batch));
    if (manifest->global_batch % micro_batch != 0)
        return fail(BAD_INPUT, "%s: 'micro_batch' is %d, which does not divide 'global_batch' %d",
                    path, micro_batch, manifest->global_batch);
    TRY(get_small(&sum_groups, root, path, "sum_groups", 1, manifest->global_batch / micro_batch));
    return get_formats(manifest, root, path);
}

// Where in the data the run is follows from the step alone; that the manifest says it too lets a
// reader check that step, batch and length of sequences are those of one run.
static Status get_data(Manifest *manifest, const json_t *root, const char *path)
{
    const int64_t samples = (int64_t)manifest->state.step * manifest->global_batch;
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "%s: data", path);
    manifest->data = json_object_get(root, "data");
    TRY(get_small(&manifest->seq_len, manifest->data, where, "seq_len", 1, MAX_SEQ_LEN));
    if (samples > INT64_MAX / manifest->seq_len)
        return fail(BAD_INPUT, "%s: 'step' is %d, more tokens than can be counted", path,
                    manifest->state.step);
    manifest->tokens = samples * manifest->seq_len;
    TRY(expect_int(root, path, "next_sample", samples));
    return expect_int(root, path, "tokens", manifest->tokens);
}

// ---- the run's config --------------------------------------------------------------------------

// Texts are held to one line, since they are printed; the name becomes part of a path.
static Status get_names(Manifest *manifest, const json_t *root, const char *path)
{
    TRY(json_get_line(&manifest->name, root, path, "name"));
    if (manifest->name[0] == '\0' || strchr(manifest->name, '/') != NULL)
        return fail(BAD_INPUT, "%s: 'name' is \"%.80s\", not that of a directory", path,
                    manifest->name);
    TRY(get_text(&manifest->base, root, path, "base"));
    TRY(get_text(&manifest->tokenizer, root, path, "tokenizer"));
    TRY(json_get_line(&manifest->tokenizer_sha256, root, path, "tokenizer_sha256"));
    if (manifest->tokenizer_sha256[0] == '\0') // shards of ids without a tokenizer
        return OK;
    return check_digits(manifest->tokenizer_sha256, SHA256_HEX_BYTES - 1, path, "tokenizer_sha256");
}

// ---- the model ---------------------------------------------------------------------------------

// Field by field from the same table that config.json and the config are read by, then as a whole.
// What an earlier run has healed is in the config.json of its base, where an export finds it.
static Status get_shape(Manifest *manifest, const json_t *root, const char *path)
{
    const json_t *object = json_object_get(root, "shape");
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "%s: shape", path);
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        TRY(shape_field_read(&manifest->shape, &shape_fields[i], object, shape_fields[i].name,
                             where));
    TRY(shape_check(&manifest->shape, where));
    if (manifest->state.step > 0)
        shape_set_healed(&manifest->shape, manifest->seq_len);
    return OK;
}

// How the pairs were chosen; missing for a run that did not convert its model.
static Status get_strategy(Manifest *manifest, const json_t *root, const char *path)
{
    RopeStrategy strategy;
    TRY(get_text(&manifest->rope, root, path, "rope"));
    if (manifest->rope == NULL)
        return OK;
    if (rope_strategy_parse(&strategy, manifest->rope) != OK)
        return fail_within(BAD_INPUT, "%s: 'rope'", path);
    if (!shape_is_mla(&manifest->shape))
        return fail(BAD_INPUT, "%s: 'rope' is \"%s\", but the shape has the original attention",
                    path, manifest->rope);
    return OK;
}

// Each pattern names some tensor, as it did when the run was begun.
static Status get_trainable(Manifest *manifest, const json_t *root, const char *path)
{
    const json_t *array = json_object_get(root, "trainable");
    const size_t n = json_array_size(array);
    if (array == NULL)
        return OK;
    if (n < 1 || n > MAX_PATTERNS)
        return fail(BAD_INPUT, "%s: 'trainable' has %zu entries, allowed are 1 to %d", path, n,
                    MAX_PATTERNS);
    manifest->trainable = calloc(n, sizeof *manifest->trainable);
    if (manifest->trainable == NULL)
        return fail(FAILED, "%s: no memory for %zu patterns", path, n);
    for (size_t i = 0; i < n; i++) {
        const char *pattern = json_string_value(json_array_get(array, i));
        if (pattern == NULL)
            return fail(BAD_INPUT, "%s: 'trainable' has an entry that is no text", path);
        manifest->trainable[i] = strdup(pattern);
        if (manifest->trainable[i] == NULL)
            return fail(FAILED, "%s: no memory for %zu patterns", path, n);
        manifest->n_trainable++;
    }
    const Trainable trained = {manifest->trainable, manifest->n_trainable};
    const Status status = trainable_check(&trained, &manifest->shape);
    return status == OK ? OK : fail_within(status, "%s", path);
}

// Ascending for each KV head, so that none occurs twice and the original attention has all of them.
static Status get_pairs(Manifest *manifest, const json_t *root, const char *path)
{
    const ModelShape *s = &manifest->shape;
    const json_t *array = json_object_get(root, "rope_pairs");
    const int64_t count = model_n_pairs(s);
    if ((int64_t)json_array_size(array) != count)
        return fail(BAD_INPUT, "%s: 'rope_pairs' has %zu numbers, the shape makes it %lld", path,
                    json_array_size(array), (long long)count);
    int32_t *pairs = malloc((size_t)count * sizeof *pairs);
    if (pairs == NULL)
        return fail(FAILED, "%s: no memory for %lld RoPE pairs", path, (long long)count);
    manifest->rope_pairs = pairs;
    for (int64_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(array, (size_t)i);
        const json_int_t lowest = model_least_pair(s, pairs, i);
        // The rest of a row that ascends strictly needs room.
        const json_int_t after = shape_is_shared(s) ? 1 : s->rope_pairs - i % s->rope_pairs;
        const json_int_t highest = s->head_dim / 2 - after;
        char text[JSON_TEXT_BYTES];
        if (!json_is_integer(pair) || json_integer_value(pair) < lowest ||
            json_integer_value(pair) > highest)
            return fail(BAD_INPUT,
                        "%s: 'rope_pairs'[%lld] is %s, allowed are %lld to %lld (those of a KV "
                        "head ascend)",
                        path, (long long)i, json_describe(text, pair), (long long)lowest,
                        (long long)highest);
        pairs[i] = (int32_t)json_integer_value(pair);
    }
    return OK;
}

// The list is for people and scripts: this program uses the shape. Another list is another order of
// the parameters in the files.
static Status check_tensors(const Manifest *manifest, const json_t *root, const char *path)
{
    const json_t *array = json_object_get(root, "tensors");
    const int n_tensors = params_n_tensors(&manifest->shape);
    if (json_array_size(array) != (size_t)n_tensors)
        return fail(BAD_INPUT, "%s: 'tensors' has %zu entries, the shape makes it %d", path,
                    json_array_size(array), n_tensors);
    for (int i = 0; i < n_tensors; i++) {
        const json_t *entry = json_array_get(array, (size_t)i);
        const ParamInfo info = params_info(&manifest->shape, i);
        const char *name;
        char where[WHERE_BYTES];
        snprintf(where, sizeof where, "%s: tensors[%d]", path, i);
        TRY(json_get_line(&name, entry, where, "name"));
        if (strcmp(name, info.name) != 0)
            return fail(BAD_INPUT, "%s: 'name' is \"%.100s\", the shape makes it \"%s\"", where,
                        name, info.name);
        TRY(expect_int(entry, where, "offset", info.offset));
        TRY(expect_int(entry, where, "rows", info.rows));
        TRY(expect_int(entry, where, "cols", info.cols));
    }
    return OK;
}

// ---- the files ---------------------------------------------------------------------------------

// The name is fixed by the index, so that a manifest cannot point outside its directory. Sizes are
// bounded so that their sum over all ranks does not overflow.
static Status get_file(CheckpointFile *out, const json_t *entry, int index, const char *path)
{
    char expected[CHECKPOINT_SHARD_NAME_BYTES], where[WHERE_BYTES];
    const char *name;
    int64_t crc32;
    snprintf(where, sizeof where, "%s: files[%d]", path, index);
    checkpoint_shard_name(expected, index);
    TRY(json_get_line(&name, entry, where, "name"));
    if (strcmp(name, expected) != 0)
        return fail(BAD_INPUT, "%s: 'name' is \"%.100s\", that of rank %d is \"%s\"", where, name,
                    index, expected);
    TRY(json_get_int(&out->size_bytes, entry, where, "bytes", 0, INT64_MAX / MAX_RANKS));
    TRY(json_get_int(&crc32, entry, where, "crc32", 0, UINT32_MAX));
    out->crc32 = (uint32_t)crc32;
    return OK;
}

// The sizes are those that the disk has (checkpoint_open() looks), so a shape whose parameters fit
// into them is one that can be given memory.
static Status get_files(Manifest *manifest, const json_t *root, const char *path)
{
    const json_t *array = json_object_get(root, "files");
    const size_t n_files = json_array_size(array);
    const Trainable trained = {manifest->trainable, manifest->n_trainable};
    const int64_t floats =
        params_count(&manifest->shape) + N_MOMENTS * trainable_count(&trained, &manifest->shape);
    int64_t bytes = 0;
    if (n_files < 1 || n_files > MAX_RANKS)
        return fail(BAD_INPUT, "%s: 'files' has %zu entries, allowed are 1 to %d", path, n_files,
                    MAX_RANKS);
    manifest->files = calloc(n_files, sizeof *manifest->files);
    if (manifest->files == NULL)
        return fail(FAILED, "%s: no memory for %zu files", path, n_files);
    manifest->n_files = (int)n_files;
    for (int i = 0; i < manifest->n_files; i++) {
        TRY(get_file(&manifest->files[i], json_array_get(array, (size_t)i), i, path));
        bytes += manifest->files[i].size_bytes;
    }
    if (bytes < floats * (int64_t)sizeof(float))
        return fail(BAD_INPUT, "%s: 'files' have %lld bytes, the shape's parameters need %lld",
                    path, (long long)bytes, (long long)floats * (long long)sizeof(float));
    return OK;
}

// ---- all of it ---------------------------------------------------------------------------------

// Before anything else: a file of another format gets this message and none about a missing member.
static Status check_format(int *version, const json_t *root, const char *path)
{
    const char *format;
    if (!json_is_object(root))
        return fail(BAD_INPUT, "%s: not a JSON object", path);
    TRY(json_get_line(&format, root, path, "format"));
    if (strcmp(format, MANIFEST_FORMAT) != 0)
        return fail(BAD_INPUT, "%s: 'format' is \"%.40s\", not \"%s\"", path, format,
                    MANIFEST_FORMAT);
    TRY(get_small(version, root, path, "version", 1, INT_MAX));
    if (*version > MANIFEST_VERSION)
        return fail(BAD_INPUT,
                    "%s: 'version' is %d, this program knows those up to %d; use a newer one", path,
                    *version, MANIFEST_VERSION);
    return OK;
}

// Only the exact text of manifest_format() is taken, so that no byte is outside of the checksum.
static Status check_checksum(const json_t *root, const char *text, int64_t size_bytes,
                             const char *path)
{
    static const char before[] = MANIFEST_BEFORE_CHECKSUM, after[] = MANIFEST_AFTER_CHECKSUM;
    // The line of the checksum has a fixed length and is the last but one, so everything before it
    // is found by counting from the end.
    const int64_t digits = SHA256_HEX_BYTES - 1, n_before = sizeof before - 1,
                  n_after = sizeof after - 1, covered = size_bytes - n_before - digits - n_after;
    const char *stored;
    char computed[SHA256_HEX_BYTES];
    TRY(json_get_line(&stored, root, path, "checksum"));
    if (covered < 0 || memcmp(text + covered, before, (size_t)n_before) != 0 ||
        memcmp(text + covered + n_before + digits, after, (size_t)n_after) != 0)
        return fail(BAD_INPUT, "%s: is damaged: 'checksum' is not on its last line but one", path);
    TRY(checksum_sha256_bytes(computed, text, covered));
    if (strcmp(stored, computed) != 0)
        return fail(BAD_INPUT,
                    "%s: is damaged: its text has SHA-256 %.12s..., 'checksum' is %.12s...", path,
                    computed, stored);
    return OK;
}

// Files first: the numbers of the shape are held to what is on the disk before memory is asked for.
static Status get_members(Manifest *manifest, const char *path)
{
    const json_t *root = manifest->root;
    TRY(get_state(&manifest->state, root, path));
    TRY(get_batches(manifest, root, path));
    TRY(get_data(manifest, root, path));
    TRY(get_names(manifest, root, path));
    TRY(get_shape(manifest, root, path));
    TRY(get_strategy(manifest, root, path));
    TRY(get_trainable(manifest, root, path));
    TRY(get_files(manifest, root, path));
    TRY(get_pairs(manifest, root, path));
    return check_tensors(manifest, root, path);
}

// Version 1 had no checksum; a manifest that has one is held to it whatever its version.
Status manifest_parse(Manifest *out, const char *text, int64_t size_bytes, const char *where)
{
    Manifest manifest = {0};
    Status status;
    int version;
    TRY(json_parse(&manifest.root, text, size_bytes, where));
    TRY_GOTO(release, check_format(&version, manifest.root, where));
    manifest.has_checksum = version > 1 || json_object_get(manifest.root, "checksum") != NULL;
    if (manifest.has_checksum)
        TRY_GOTO(release, check_checksum(manifest.root, text, size_bytes, where));
    TRY_GOTO(release, get_members(&manifest, where));
    *out = manifest;
    return OK;
release:
    manifest_release(&manifest);
    return status;
}

Status manifest_read(Manifest *out, const char *path)
{
    FileMap map;
    TRY(file_map(&map, path));
    const Status status = manifest_parse(out, (const char *)map.bytes, map.size_bytes, path);
    file_unmap(&map);
    return status;
}

// Texts were borrowed from root, so they go with it.
void manifest_release(Manifest *manifest)
{
    json_decref(manifest->root);
    for (int i = 0; i < manifest->n_trainable; i++)
        free(manifest->trainable[i]);
    free(manifest->trainable);
    free(manifest->rope_pairs);
    free(manifest->files);
    *manifest = (Manifest){0};
}
