// Local distillation against what PyTorch computes in double
// (golden/distill/make_distill_golden.py), on any number of ranks, in both orders of layers, and
// after interruptions.
#include "tests/support/testing.h"
#include "tests/support/testing_golden.h"
#include "tests/support/testing_ranks.h"

#include "base/file.h"
#include "base/log.h"
#include "train/distill/distill.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { N_WINDOWS = 11, T = 17, N_STEPS = 3, HEADER_BYTES = 1024 };

static const int steps_of[N_STEPS] = {1, 2, 12};
static Comm comm;
static CommGroup group;

typedef struct Case {
    const char *name, *base;
    double tolerance; // of final weights, relative to a tensor's largest
} Case;

// Adam divides by the gradient's size, so that rounding shows in weights whose gradient is small.
static const Case cases[] = {
    {"gqa", "gqa_tied", 1e-3},         {"gqa_split", "gqa_tied", 1e-3},
    {"mha_wide", "mha_untied", 1e-3},  {"shared", "gqa_tied", 1e-3},
    {"shared_norm", "gqa_tied", 1e-3}, {"qwen3", "qwen3_gqa", 1e-3},
    {"smollm3", "smollm3", 1e-3},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

// A golden case with its original in memory.
typedef struct Setup {
    SafeTensors file;
    Model original;
    ModelShape shape;
    int32_t tokens[N_WINDOWS * T];
} Setup;

static void start(Setup *s, const Case *of)
{
    char path[128];
    int32_t how[5];
    snprintf(path, sizeof path, "distill/%s.safetensors", of->name);
    assert_ok(safetensors_open(&s->file, testing_path(GOLDEN_DIR, path)));
    assert_ok(safetensors_read_i32(&s->file, "case", (int[]){5}, 1, how));
    s->original = golden_load_model(of->base);
    if (how[2] > 0)
        assert_ok(shape_convert_shared(&s->shape, &s->original.shape, how[0], how[2], how[3]));
    else
        assert_ok(shape_convert(&s->shape, &s->original.shape, how[0], how[1],
                                how[4] ? SVD_SPLIT : SVD_JOINT));
    assert_ok(safetensors_read_i32(&s->file, "tokens", (int[]){N_WINDOWS, T}, 2, s->tokens));
}

static void end(Setup *s)
{
    model_release(&s->original);
    safetensors_close(&s->file);
}

static void read_golden(float *out, const Setup *s, const char *prefix, const ParamInfo *info)
{
    char name[PARAM_NAME_BYTES + 16];
    snprintf(name, sizeof name, "%s.%s", prefix, info->name);
    assert_ok(safetensors_read_f32(&s->file, name, (int[]){info->rows, info->cols},
                                   info->is_vector ? 1 : 2, out));
}

static bool is_attention(const ParamInfo *info)
{
    return strstr(info->name, ".self_attn.") != NULL;
}

// The converted model as it is before distillation: attention of the file, all else of the
// original.
static Replica create(const Setup *s, const Comm *of, CommGroup *of_group)
{
    Replica mla;
    ParamInfo from;
    assert_ok(replica_create(&mla, of, of_group, &s->shape));
    for (int t = 0; t < params_n_tensors(&s->shape) && replica_is_writer(&mla); t++) {
        const ParamInfo info = params_info(&s->shape, t);
        float *values = mla.model.params.flat + info.offset;
        if (is_attention(&info)) {
            read_golden(values, s, "start", &info);
            continue;
        }
        assert_true(params_find(&from, &s->original.shape, info.name));
        memcpy(values, s->original.params.flat + from.offset,
               (size_t)info.rows * (size_t)info.cols * sizeof *values);
    }
    assert_ok(safetensors_read_i32(
        &s->file, "pairs",
        (int[]){s->shape.n_layers, shape_rope_heads(&s->shape), s->shape.rope_pairs}, 3,
        mla.model.rope_pairs));
    replica_sync(&mla);
    return mla;
}

static DistillConfig config_of(int steps, DistillLayers layers)
{
    return (DistillConfig){.given = true,
                           .steps = steps,
                           .windows = N_WINDOWS,
                           .window_len = T,
                           .rho = .7,
                           .lr = .1,
                           .layers = layers};
}

// A directory that all ranks know, or NULL.
static void distill(Replica *mla, const Setup *s, const DistillConfig *config, const char *dir,
                    ComputeType compute)
{
    const DistillRequest request = {config, s->tokens, T, 7, compute, dir};
    assert_ok(distill_run(mla, &s->original, &request));
}

static void shared_dir(char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s", testing_dir());
    comm_broadcast(&comm, out, PATH_BYTES, 0);
}

static const char *layer_file(const char *dir, int layer)
{
    char name[32];
    snprintf(name, sizeof name, "layer-%04d.bin", layer);
    return testing_path(dir, name);
}

static void read_losses(float out[3], const char *dir, int layer)
{
    char text[HEADER_BYTES];
    double first, trained, fitted;
    FILE *file = fopen(layer_file(dir, layer), "rb");
    assert_non_null(file);
    assert_int_equal(fread(text, 1, sizeof text, file), sizeof text);
    fclose(file);
    json_t *header = json_loadb(text, sizeof text, 0, NULL);
    assert_int_equal(json_unpack(header, "{s:F, s:F, s:F}", "first_loss", &first, "trained_loss",
                                 &trained, "loss", &fitted),
                     0);
    json_decref(header);
    out[0] = (float)first, out[1] = (float)trained, out[2] = (float)fitted;
}

static void check_weights(const Model *model, const Setup *s, double tolerance)
{
    float *expected = malloc((size_t)params_largest(&s->shape) * sizeof *expected);
    assert_non_null(expected);
    for (int t = 0; t < params_n_tensors(&s->shape); t++) {
        const ParamInfo info = params_info(&s->shape, t);
        if (!is_attention(&info))
            continue;
        read_golden(expected, s, "final", &info);
        testing_assert_close(info.name, model->params.flat + info.offset, expected,
                             (int64_t)info.rows * info.cols, tolerance);
    }
    free(expected);
}

static void test_steps_are_pytorchs(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        Setup s;
        start(&s, &cases[i]);
        const int L = s.shape.n_layers;
        float losses[N_STEPS * 8 * 3], got[3];
        assert_ok(safetensors_read_f32(&s.file, "losses", (int[]){N_STEPS, L, 3}, 3, losses));
        // Several ranks spend their time waiting for each other: the longest alone.
        for (int n = comm.size == 1 ? 0 : N_STEPS - 1; n < N_STEPS; n++) {
            char dir[PATH_BYTES];
            const DistillConfig config = config_of(steps_of[n], DISTILL_SEQUENTIAL);
            Replica mla = create(&s, &comm, &group);
            shared_dir(dir);
            distill(&mla, &s, &config, dir, COMPUTE_FLOAT32);
            for (int layer = 0; layer < L; layer++) {
                read_losses(got, dir, layer);
                testing_assert_close(cases[i].name, got, losses + (n * L + layer) * 3, 3, 1e-5);
            }
            if (n == N_STEPS - 1)
                check_weights(&mla.model, &s, cases[i].tolerance);
            replica_release(&mla);
        }
        end(&s);
    }
}

// ---- bits --------------------------------------------------------------------------------------

// The parameters after a distillation on these ranks.
static float *distilled(const Setup *s, const Comm *of, CommGroup *of_group,
                        const DistillConfig *config, const char *dir, ComputeType compute)
{
    Replica mla = create(s, of, of_group);
    const size_t bytes = (size_t)mla.model.params.count * sizeof(float);
    float *values = malloc(bytes);
    assert_non_null(values);
    distill(&mla, s, config, dir, compute);
    memcpy(values, mla.model.params.flat, bytes);
    replica_release(&mla);
    return values;
}

static void assert_same(const Setup *s, const float *a, const float *b)
{
    assert_memory_equal(a, b, (size_t)params_count(&s->shape) * sizeof(float));
}

static void test_bits_do_not_depend_on_ranks(void **state)
{
    (void)state;
    const struct {
        int which;
        DistillLayers layers;
        ComputeType compute;
    } ways[] = {{0, DISTILL_SEQUENTIAL, COMPUTE_FLOAT32},
                {0, DISTILL_APART, COMPUTE_FLOAT32},
                {4, DISTILL_APART, COMPUTE_BFLOAT16},
                {4, DISTILL_SEQUENTIAL, COMPUTE_BFLOAT16}};
    Comm one = comm;
    CommGroup alone = {0};
    one.rank = 0;
    one.size = 1;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        Setup s;
        start(&s, &cases[ways[i].which]);
        const DistillConfig config = config_of(3, ways[i].layers);
        float *together = distilled(&s, &comm, &group, &config, NULL, ways[i].compute);
        float *expected = distilled(&s, &one, &alone, &config, NULL, ways[i].compute);
        assert_same(&s, together, expected);
        free(together);
        free(expected);
        end(&s);
    }
}

// ---- finished layers ---------------------------------------------------------------------------

static void damage(const char *path)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -3, SEEK_END), 0);
    assert_int_equal(fputc(0x55, file), 0x55);
    fclose(file);
}

static ino_t inode_of(const char *path)
{
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    return found.st_ino;
}

// What is kept of layer 0 is used if it is whole and of the same inputs, and the bits are those of
// a distillation in one go.
static void check_resumed(DistillLayers layers)
{
    Setup s;
    char dir[PATH_BYTES];
    DistillConfig config = config_of(3, layers);
    shared_dir(dir);
    start(&s, &cases[0]);
    float *expected = distilled(&s, &comm, &group, &config, dir, COMPUTE_FLOAT32);
    const ino_t kept = inode_of(layer_file(dir, 0));
    assert_true(comm_all(&comm, true)); // all have looked
    if (comm.rank == 0)
        assert_int_equal(unlink(layer_file(dir, 1)), 0);
    float *resumed = distilled(&s, &comm, &group, &config, dir, COMPUTE_FLOAT32);
    assert_same(&s, resumed, expected);
    assert_int_equal(inode_of(layer_file(dir, 0)), kept);
    free(resumed);

    assert_true(comm_all(&comm, true));
    if (comm.rank == 0)
        damage(layer_file(dir, 0));
    resumed = distilled(&s, &comm, &group, &config, dir, COMPUTE_FLOAT32);
    assert_same(&s, resumed, expected);
    assert_int_not_equal(inode_of(layer_file(dir, 0)), kept);
    free(resumed);

    config.lr = .02;
    resumed = distilled(&s, &comm, &group, &config, dir, COMPUTE_FLOAT32);
    float *fresh = distilled(&s, &comm, &group, &config, NULL, COMPUTE_FLOAT32);
    assert_same(&s, resumed, fresh);
    free(fresh);
    free(resumed);
    free(expected);
    end(&s);
}

static void test_resumes_after_a_layer(void **state)
{
    (void)state;
    check_resumed(DISTILL_SEQUENTIAL);
    check_resumed(DISTILL_APART);
}

static void test_a_rate_that_diverges_is_told(void **state)
{
    (void)state;
    Setup s;
    start(&s, &cases[0]);
    Replica mla = create(&s, &comm, &group);
    DistillConfig config = config_of(40, DISTILL_SEQUENTIAL);
    config.lr = 1e30;
    const DistillRequest request = {&config, s.tokens, T, 7, COMPUTE_FLOAT32, NULL};
    assert_fails(FAILED, "is not finite", distill_run(&mla, &s.original, &request));
    replica_release(&mla);
    s.tokens[5] = s.shape.vocab_size;
    mla = create(&s, &comm, &group);
    assert_fails(BAD_INPUT, "is not in the model's vocabulary",
                 distill_run(&mla, &s.original, &request));
    replica_release(&mla);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps_are_pytorchs),
        cmocka_unit_test(test_bits_do_not_depend_on_ranks),
        cmocka_unit_test(test_resumes_after_a_layer),
        cmocka_unit_test(test_a_rate_that_diverges_is_told),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    log_set_quiet(true);
    int n_failed = comm_group_start(&group, &comm, 0) != OK;
    n_failed += cmocka_run_group_tests(tests, NULL, NULL);
    comm_group_end(&group);
    return testing_stop_ranks(&comm, n_failed);
}
