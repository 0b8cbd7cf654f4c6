// Manifests: what is written is read; no byte can change without notice; and where the checksum has
// been made right again, no member can be left out, be of another type, out of its bounds or say
// something else than the others. Its files need not exist: checkpoint_open() looks for them.
#include "tests/support/testing.h"

#include "base/file.h"
#include "train/checkpoint/manifest.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const ModelShape shape = {.n_layers = 2,
                                 .d_model = 16,
                                 .n_heads = 4,
                                 .n_kv_heads = 2,
                                 .head_dim = 8,
                                 .d_ffn = 40,
                                 .vocab_size = 30,
                                 .max_positions = 32,
                                 .rope_pairs = 2,
                                 .d_kv = 6,
                                 .svd = SVD_SPLIT,
                                 .rope_theta = 12345.678,
                                 .rms_eps = 1e-6};

static const RunState state_of_7 = {.step = 7,
                                    .loss = 1.0 / 3,
                                    .grad_norm = 0.1,
                                    .valid_loss = 2.0 / 7,
                                    .valid_step = 6,
                                    .valid_set = "5d1f08a3",
                                    .spikes = {0.1, 5, 2, 1}};

static const int32_t pairs[8] = {0, 1, 1, 3, 2, 3, 0, 2};

static const CheckpointFile files[2] = {{60000, 0xfedcba98}, {50000, 7}};

// The text of a manifest as a run writes it.
static char *write_text(void)
{
    char name[] = "run", base[] = "models/x", tokenizer[] = "models/t";
    const Config config = {
        .run.name = name,
        .model = {.base = base, .init.tokenizer = tokenizer, .convert = {true, .rope = ROPE_2NORM}},
        .data.seq_len = 32,
        .train = {.global_batch = 8, .micro_batch = 2, .sum_groups = 4}};
    json_t *data = json_pack("{s:i, s:i}", "seed", 42, "seq_len", 32);
    const CheckpointContext context = {
        .config = &config,
        .tokenizer_sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        .data_fingerprint = data};
    Model model;
    FileMap map;
    assert_ok(model_create(&model, &shape));
    memcpy(model.rope_pairs, pairs, sizeof pairs);
    const char *path = testing_path(testing_dir(), "manifest.json");
    assert_ok(manifest_write(path, &state_of_7, &model, &context, files, 2));
    model_release(&model);
    json_decref(data);
    assert_ok(file_map(&map, path));
    char *text = strndup((const char *)map.bytes, (size_t)map.size_bytes);
    assert_non_null(text);
    file_unmap(&map);
    return text;
}

// A copy of it; the caller frees it.
static char *written_text(void)
{
    static char *text = NULL;
    if (text == NULL)
        text = write_text();
    char *copy = strdup(text);
    assert_non_null(copy);
    return copy;
}

static json_t *written_json(void)
{
    char *text = written_text();
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

static Status parse(const char *text)
{
    Manifest manifest;
    TRY(manifest_parse(&manifest, text, (int64_t)strlen(text), "m.json"));
    manifest_release(&manifest);
    return OK;
}

// Parses `root` with a checksum that is right.
static Status parse_sealed(json_t *root)
{
    char *text;
    int64_t size_bytes;
    assert_ok(manifest_format(&text, &size_bytes, root));
    assert_int_equal(size_bytes, strlen(text));
    const Status status = parse(text);
    free(text);
    return status;
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    char *text = written_text();
    Manifest m;
    assert_ok(manifest_parse(&m, text, (int64_t)strlen(text), "m.json"));
    assert_true(m.has_checksum);
    for (int i = 0; i < N_SHAPE_FIELDS; i++)
        assert_true(shape_field_is_same(&shape_fields[i], &m.shape, &shape));
    assert_int_equal(m.state.step, 7);
    assert_int_equal(m.state.valid_step, 6);
    assert_true(m.state.loss == state_of_7.loss && m.state.grad_norm == state_of_7.grad_norm);
    assert_true(m.state.valid_loss == state_of_7.valid_loss);
    assert_string_equal(m.state.valid_set, "5d1f08a3");
    assert_memory_equal(&m.state.spikes, &state_of_7.spikes, sizeof m.state.spikes);
    assert_int_equal(m.tokens, 7 * 8 * 32);
    assert_int_equal(m.global_batch, 8);
    assert_int_equal(m.seq_len, 32);
    assert_int_equal(m.shape.healed_seq_len, 32);
    assert_string_equal(m.name, "run");
    assert_string_equal(m.base, "models/x");
    assert_string_equal(m.tokenizer, "models/t");
    assert_string_equal(m.rope, "2-norm");
    assert_int_equal(json_integer_value(json_object_get(m.data, "seed")), 42);
    assert_memory_equal(m.rope_pairs, pairs, sizeof pairs);
    assert_int_equal(m.n_files, 2);
    for (int i = 0; i < 2; i++)
        assert_true(m.files[i].size_bytes == files[i].size_bytes &&
                    m.files[i].crc32 == files[i].crc32);
    manifest_release(&m);
    free(text);
}

// As the header says: the checksum is that of all lines but the last two.
static void test_checksum_can_be_computed_without_us(void **state)
{
    (void)state;
    char *text = written_text(), command[PATH_BYTES + 64], line[80] = "";
    const char *path = testing_path(testing_dir(), "m.json");
    assert_ok(file_write(path, text, (int64_t)strlen(text)));
    snprintf(command, sizeof command, "head -n -2 '%s' | sha256sum", path);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    pclose(pipe);
    line[64] = '\0';
    assert_non_null(strstr(text, line));
    free(text);
}

// Every bit of the text, and every place to cut it off.
static void test_no_byte_changes_without_notice(void **state)
{
    (void)state;
    char *text = written_text();
    const size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        Manifest manifest;
        for (int bit = 0; bit < 8; bit++) {
            text[i] = (char)(text[i] ^ (1 << bit));
            if (manifest_parse(&manifest, text, (int64_t)length, "m.json") != BAD_INPUT)
                fail_msg("bit %d of byte %zu is not noticed", bit, i);
            text[i] = (char)(text[i] ^ (1 << bit));
        }
        if (manifest_parse(&manifest, text, (int64_t)i, "m.json") != BAD_INPUT)
            fail_msg("cut after %zu bytes is not noticed", i);
    }
    assert_ok(parse(text));
    free(text);
}

static void test_damage_says_which_checksums(void **state)
{
    (void)state;
    char *text = written_text(), *at = strstr(text, "\"rope_theta\": 12345");
    assert_non_null(at);
    at[14] = '2';
    assert_fails(BAD_INPUT, "m.json: is damaged: its text has SHA-256 ", parse(text));
    at[14] = '1';
    assert_ok(parse(text));
    json_t *root = json_loads(text, 0, NULL);
    char *other = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)); // without "\n" behind
    assert_fails(BAD_INPUT, "m.json: is damaged: 'checksum' is not on its last line but one",
                 parse(other));
    free(other);
    json_decref(root);
    free(text);
}

static void test_versions(void **state)
{
    (void)state;
    json_t *root = written_json();
    Manifest manifest;
    json_object_set_new(root, "version", json_integer(3));
    assert_fails(BAD_INPUT, "m.json: 'version' is 3, this program knows those up to 2",
                 parse_sealed(root));
    json_object_set_new(root, "version", json_integer(0));
    assert_fails(BAD_INPUT, "'version' is 0", parse_sealed(root));
    json_object_set_new(root, "version", json_integer(2));
    json_object_del(root, "checksum");
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    assert_fails(BAD_INPUT, "m.json: 'checksum' is missing", parse(text));
    free(text);
    // As they were written before there was a checksum.
    json_object_set_new(root, "version", json_integer(1));
    json_object_del(root, "reduce_dtype");
    text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    assert_ok(manifest_parse(&manifest, text, (int64_t)strlen(text), "m.json"));
    assert_false(manifest.has_checksum);
    manifest_release(&manifest);
    free(text);
    // One that calls itself old and has a checksum is held to it.
    json_object_set_new(root, "checksum", json_string("0123"));
    text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    assert_fails(BAD_INPUT, "m.json: is damaged", parse(text));
    free(text);
    json_decref(root);
}

// Replaces a member given by its path, "files.1.bytes"; `value` NULL takes it out.
static void edit(json_t *root, const char *path, json_t *value)
{
    char key[64];
    size_t length = strcspn(path, ".");
    snprintf(key, sizeof key, "%.*s", (int)length, path);
    const size_t index = (size_t)atoi(key);
    const bool is_last = path[length] == '\0';
    if (!is_last) {
        json_t *inner =
            json_is_array(root) ? json_array_get(root, index) : json_object_get(root, key);
        assert_non_null(inner);
        edit(inner, path + length + 1, value);
    } else if (json_is_array(root)) {
        assert_int_equal(value != NULL ? json_array_set_new(root, index, value)
                                       : json_array_remove(root, index),
                         0);
    } else {
        assert_int_equal(
            value != NULL ? json_object_set_new(root, key, value) : json_object_del(root, key), 0);
    }
}

typedef struct Case {
    const char *path, *value; // JSON
    const char *error;        // after "m.json: "
} Case;

static const Case cases[] = {
    {"format", "\"other\"", "'format' is \"other\", not \"mha2mla-checkpoint\""},
    {"step", "-7", "'step' is -7, allowed are 0 to"},
    {"step", "8", "'next_sample' is 56, the other members make it 64"},
    {"step", "3000000000", "'step' is 3000000000, allowed are 0 to 2147483647"},
    {"step", "7.0", "'step' is not a whole number: 7.0"},
    {"next_sample", "57", "'next_sample' is 57, the other members make it 56"},
    {"tokens", "-1", "'tokens' is -1"},
    {"tokens", "1", "'tokens' is 1, the other members make it 1792"},
    {"loss", "\"low\"", "'loss' is not a number: \"low\""},
    {"grad_norm", "-0.5", "'grad_norm' is -0.5, allowed are 0 to inf"},
    {"valid_step", "8", "'valid_step' is 8, allowed are -1 to 7"},
    {"valid_step", "-1", "'valid_loss' is 0.285714, but 'valid_step' is -1: not measured"},
    {"validation_set", "\"5d1f08a\"", "'validation_set' is \"5d1f08a\", not 8 hexadecimal digits"},
    {"global_batch", "0", "'global_batch' is 0, allowed are 1 to 1048576"},
    {"micro_batch", "9", "'micro_batch' is 9, allowed are 1 to 8"},
    {"micro_batch", "3", "'micro_batch' is 3, which does not divide 'global_batch' 8"},
    {"sum_groups", "5", "'sum_groups' is 5, allowed are 1 to 4"},
    {"reduce_dtype", "\"float8\"",
     "'reduce_dtype' is \"float8\", allowed are float32 and bfloat16"},
    {"compute", "\"float16\"", "'compute' is \"float16\", allowed are float32 and bfloat16"},
    {"spikes.mean", "-1", "spikes: 'mean' is -1"},
    {"spikes.n_accepted", "8", "spikes: 'n_accepted' is 8, allowed are 0 to 7"},
    {"spikes.n_skipped", "3", "spikes: 'n_skipped' is 3, allowed are 0 to 2"},
    {"spikes.n_skipped_in_row", "3", "spikes: 'n_skipped_in_row' is 3, allowed are 0 to 2"},
    {"spikes", "[]", "spikes: 'mean' is missing"},
    {"name", "\"\"", "'name' is \"\", not that of a directory"},
    {"name", "\"../x\"", "'name' is \"../x\", not that of a directory"},
    {"name", "\"a\\u001b[2J\"", "'name' has control characters"},
    {"base", "\"a\\nb\"", "'base' has control characters"},
    {"tokenizer", "7", "'tokenizer' is not a string: 7"},
    {"tokenizer_sha256", "\"12\"", "'tokenizer_sha256' is \"12\", not 64 hexadecimal digits"},
    {"rope", "\"banana\"", "'rope': RoPE strategy is 'banana', allowed are high, low"},
    {"data", "3", "data: 'seq_len' is missing"},
    {"data.seq_len", "0", "data: 'seq_len' is 0, allowed are 1 to 16777216"},
    {"data.seq_len", "16", "'tokens' is 1792, the other members make it 896"},
    {"shape.n_layers", "0", "shape: 'n_layers' is 0, allowed are 1 to 1000"},
    {"shape.n_layers", "1", "'rope_pairs' has 8 numbers, the shape makes it 4"},
    {"shape.d_model", "17", "tensors[0]: 'cols' is 16, the other members make it 17"},
    {"shape.n_heads", "\"x\"", "shape: 'n_heads' is not a whole number: \"x\""},
    {"shape.n_heads", "5", "shape: 5 query heads do not divide among 2 KV heads"},
    {"shape.n_kv_heads", "0", "shape: 'n_kv_heads' is 0, allowed are 1 to 4096"},
    {"shape.head_dim", "7", "shape: head width is 7, RoPE needs an even one"},
    {"shape.d_ffn", "4194305", "shape: 'd_ffn' is 4194305, allowed are 1 to 4194304"},
    {"shape.vocab_size", "16777216", "'files' have 110000 bytes, the shape's parameters need"},
    {"shape.max_positions", "-1", "shape: 'max_positions' is -1"},
    {"shape.rope_pairs", "5", "shape: rope_pairs is 5, allowed are 1 to 4 (head width 8)"},
    {"shape.d_kv", "100", "shape: d_kv is 100, allowed are 1 to"},
    {"shape.d_kv", "0", "shape: rope_pairs is 2, original attention (d_kv 0) keeps all 4"},
    {"shape.svd", "\"banana\"", "shape: 'svd' is \"banana\", allowed are \"joint\" and \"split\""},
    {"shape.svd", "\"joint\"", "tensors[5]: 'cols' is 6, the other members make it 12"},
    {"shape.tied_head", "1", "shape: 'tied_head' is not true or false: 1"},
    {"shape.tied_head", "true", "'tensors' has 25 entries, the shape makes it 24"},
    {"shape.rope_theta", "0.5", "shape: 'rope_theta' is 0.5, allowed are 1 to 1e+15"},
    {"shape.rms_eps", "2", "shape: 'rms_eps' is 2, allowed are 1e-12 to 1"},
    {"rope_pairs.0", "4", "'rope_pairs'[0] is 4, allowed are 0 to 2"},
    {"rope_pairs.3", "1", "'rope_pairs'[3] is 1, allowed are 2 to 3"},
    {"rope_pairs.7", "4", "'rope_pairs'[7] is 4, allowed are 1 to 3"},
    {"rope_pairs.1", "1.0", "'rope_pairs'[1] is 1.0, allowed are 1 to 3"},
    {"rope_pairs", "{}", "'rope_pairs' has 0 numbers, the shape makes it 8"},
    {"tensors.1.name", "\"x\"", "tensors[1]: 'name' is \"x\", the shape makes it \"model.layers.0"},
    {"tensors.1.offset", "0", "tensors[1]: 'offset' is 0, the other members make it 480"},
    {"tensors.24.rows", "31", "tensors[24]: 'rows' is 31, the other members make it 30"},
    {"tensors.0.cols", "1", "tensors[0]: 'cols' is 1, the other members make it 16"},
    {"tensors.3", "[]", "tensors[3]: 'name' is missing"},
    {"files.0.name", "\"../../x\"",
     "files[0]: 'name' is \"../../x\", that of rank 0 is \"shard-0000.h5\""},
    {"files.1.name", "\"shard-0000.h5\"",
     "files[1]: 'name' is \"shard-0000.h5\", that of rank 1 is"},
    {"files.1.bytes", "-1", "files[1]: 'bytes' is -1, allowed are 0 to"},
    {"files.0.bytes", "1000", "'files' have 51000 bytes, the shape's parameters need"},
    {"files.0.crc32", "4294967296", "files[0]: 'crc32' is 4294967296, allowed are 0 to 4294967295"},
    {"files", "[]", "'files' has 0 entries, allowed are 1 to 1048576"},
    {"files", "{}", "'files' has 0 entries, allowed are 1 to 1048576"},
};

static void test_members_are_held_to_what_is_allowed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[256];
        json_t *root = written_json();
        json_t *value = json_loads(cases[i].value, JSON_DECODE_ANY, NULL);
        assert_non_null(value);
        edit(root, cases[i].path, value);
        snprintf(expected, sizeof expected, "m.json: %s", cases[i].error);
        testing_assert_fails(BAD_INPUT, expected, parse_sealed(root), cases[i].path);
        json_decref(root);
    }
}

static bool is_of_the_data(const char *path)
{
    return strncmp(path, "data.", 5) == 0 && strcmp(path, "data.seq_len") != 0;
}

static bool may_be_left_out(const char *path)
{
    static const char *const paths[] = {"base",    "tokenizer",  "rope",          "reduce_dtype",
                                        "compute", "valid_loss", "validation_set"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (strcmp(path, paths[i]) == 0)
            return true;
    for (int i = 0; i < N_SHAPE_FIELDS; i++) // what older files do not know
        if (strncmp(path, "shape.", 6) == 0 && strcmp(path + 6, shape_fields[i].name) == 0)
            return shape_fields[i].may_miss;
    return is_of_the_data(path); // mixture_check_fingerprint() looks at these
}

// Calls for every member, those of members too.
static void for_each_member(const json_t *json, const char *path, void (*visit)(const char *))
{
    char inner[160];
    const char *key;
    json_t *value;
    size_t i;
    if (path[0] != '\0')
        visit(path);
    json_object_foreach((json_t *)(uintptr_t)json, key, value)
    {
        snprintf(inner, sizeof inner, "%.60s%s%.60s", path, path[0] != '\0' ? "." : "", key);
        for_each_member(value, inner, visit);
    }
    json_array_foreach(json, i, value)
    {
        snprintf(inner, sizeof inner, "%.60s.%zu", path, i);
        for_each_member(value, inner, visit);
    }
}

static void take_out(const char *path)
{
    json_t *root = written_json();
    edit(root, path, NULL);
    if (strcmp(path, "checksum") != 0 && (parse_sealed(root) == OK) != may_be_left_out(path))
        fail_msg("'%s' is taken out: %s", path, fail_text());
    json_decref(root);
}

static void replace(const char *path)
{
    static const char *const values[] = {"[[]]", "{\"a\": 1}", "true",
                                         "null", "1e300",      "\"\\u0001\""};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        json_t *root = written_json();
        edit(root, path, json_loads(values[i], JSON_DECODE_ANY, NULL));
        const bool is_allowed =
            strcmp(path, "checksum") == 0 || is_of_the_data(path) ||
            (strcmp(values[i], "null") == 0 && may_be_left_out(path)) ||
            (strcmp(values[i], "1e300") == 0 &&
             strstr("loss grad_norm valid_loss spikes.mean", path)) ||
            (strcmp(values[i], "true") == 0 && strcmp(path, "shape.tied_head") == 0);
        if (!is_allowed && parse_sealed(root) != BAD_INPUT)
            fail_msg("'%s' is %s", path, values[i]);
        json_decref(root);
    }
}

static void test_no_member_can_be_left_out_or_be_of_another_type(void **state)
{
    (void)state;
    json_t *root = written_json();
    assert_int_equal(parse_sealed(root), OK);
    for_each_member(root, "", take_out);
    for_each_member(root, "", replace);
    json_decref(root);
}

static void test_what_is_no_manifest_is_refused(void **state)
{
    (void)state;
    assert_fails(BAD_INPUT, "m.json: empty, not JSON", parse(""));
    assert_fails(BAD_INPUT, "m.json:1:1: not valid JSON", parse("x"));
    assert_fails(BAD_INPUT, "m.json: not a JSON object", parse("[1]"));
    assert_fails(BAD_INPUT, "m.json: 'format' is missing", parse("{}"));
    Manifest manifest;
    assert_fails(BAD_INPUT, "none.json: cannot be opened",
                 manifest_read(&manifest, testing_path(testing_dir(), "none.json")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_checksum_can_be_computed_without_us),
        cmocka_unit_test(test_no_byte_changes_without_notice),
        cmocka_unit_test(test_damage_says_which_checksums),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_members_are_held_to_what_is_allowed),
        cmocka_unit_test(test_no_member_can_be_left_out_or_be_of_another_type),
        cmocka_unit_test(test_what_is_no_manifest_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
