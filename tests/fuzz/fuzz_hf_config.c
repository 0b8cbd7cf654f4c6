// model/hf_config: a config.json is refused in one line, or its shape survives saving and loading.
#include "tests/fuzz/fuzzing.h"

#include "base/json.h"
#include "model/hf/hf.h"
#include "model/hf/hf_config.h"
#include "model/shape_fields.h"

#include <stdlib.h>
#include <string.h>

static bool is_same(const ModelShape *a, const ModelShape *b)
{
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        if (!shape_field_is_same(&shape_fields[i], a, b))
            return false;
    return a->healed_seq_len == b->healed_seq_len;
}

// Whether config.json can say all of the shape without its base: an original of another
// architecture than Llama's has a base.
static bool is_plain(const ModelShape *shape)
{
    bool has_parts = false;
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        has_parts |= shape_fields[i].owner == SHAPE_OF_ARCHITECTURE &&
                     shape_field_value(&shape_fields[i], shape) != 0;
    return shape_is_mla(shape) || !has_parts;
}

// With the input as base, or from the shape alone.
static void check_round_trip(const ModelShape *shape, const char *base_dir)
{
    json_t *config;
    ModelShape back;
    CHECK(hf_config_make(&config, shape, base_dir, DTYPE_BF16) == OK, "%s", fail_text());
    char *text = json_dumps(config, 0);
    CHECK(text != NULL, "no memory");
    fuzz_file("config.json", text, strlen(text));
    CHECK(hf_load_shape(&back, fuzz_dir()) == OK, "%s: %s", fail_text(), text);
    CHECK(is_same(shape, &back), "another shape came back from %s", text);
    free(text);
    json_decref(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ModelShape shape;
    fuzz_file("config.json", data, size);
    Status status = hf_load_shape(&shape, fuzz_dir());
    if (status != OK)
        return fuzz_check_refusal(status);
    CHECK(shape_check(&shape, "what was loaded") == OK, "%s", fail_text());
    check_round_trip(&shape, fuzz_dir());
    if (is_plain(&shape))
        check_round_trip(&shape, NULL);
    return 0;
}
