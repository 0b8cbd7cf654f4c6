// train/checkpoint/manifest: an input is the text of a manifest. As it is, hardly one gets past its
// own checksum; so what is JSON is tried once more with a checksum that is right. It is refused in
// one line, or all that it says is in bounds and writing it gives the same text again.
#include "tests/fuzz/fuzzing.h"

#include "train/checkpoint/manifest.h"

#include <stdlib.h>
#include <string.h>

// What the readers of a manifest divide by, allocate and index with.
static void check_content(const Manifest *manifest)
{
    const ModelShape *s = &manifest->shape;
    const int half = s->head_dim / 2;
    const int64_t count = (int64_t)s->n_layers * s->n_kv_heads * s->rope_pairs;
    int64_t bytes = 0;
    CHECK(shape_check(s, "what was read") == OK, "%s", fail_text());
    for (int64_t i = 0; i < count; i++) {
        const int32_t *pair = &manifest->rope_pairs[i];
        CHECK(*pair >= 0 && *pair < half, "pair %d of %d", (int)*pair, half);
        CHECK(i % s->rope_pairs == 0 || pair[-1] < *pair, "pair %d twice", (int)*pair);
    }
    for (int i = 0; i < manifest->n_files; i++)
        bytes += manifest->files[i].size_bytes;
    CHECK(bytes / 12 >= params_count(s), "%lld bytes", (long long)bytes);
    CHECK(manifest->state.step >= 0 && manifest->global_batch > 0 && manifest->tokens >= 0,
          "counts");
    CHECK(manifest->name[0] != '\0' && manifest->data != NULL, "texts");
}

static int check_parse(const char *text, int64_t size_bytes)
{
    Manifest manifest;
    const Status status = manifest_parse(&manifest, text, size_bytes, "manifest.json");
    if (status != OK)
        return fuzz_check_refusal(status);
    check_content(&manifest);
    manifest_release(&manifest);
    return 0;
}

static void check_sealed(json_t *root)
{
    char *text, *again;
    int64_t size_bytes, again_bytes;
    json_t *back;
    CHECK(manifest_format(&text, &size_bytes, root) == OK, "%s", fail_text());
    check_parse(text, size_bytes);
    CHECK(json_parse(&back, text, size_bytes, "sealed") == OK, "%s", fail_text());
    CHECK(manifest_format(&again, &again_bytes, back) == OK, "%s", fail_text());
    CHECK(size_bytes == again_bytes && memcmp(text, again, (size_t)size_bytes) == 0,
          "another text came back from:\n%s", text);
    json_decref(back);
    free(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *root;
    fuzz_dir(); // quiet from here on
    check_parse((const char *)data, (int64_t)size);
    if (json_parse(&root, (const char *)data, (int64_t)size, "input") != OK)
        return 0;
    if (json_is_object(root))
        check_sealed(root);
    json_decref(root);
    return 0;
}
