// What loading and converting take at most: the numbers of the model that is made, and one layer
// beside them, of files of any dtype. Each case is a process of its own, as the kernel keeps one
// high-water mark for each.
#include "tests/support/testing.h"
#include "tests/support/testing_model.h"

#include "model/convert/convert.h"
#include "model/convert/factorize.h"
#include "model/convert/rope_select.h"
#include "model/hf/hf.h"
#include "train/plan/blas.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// 4.3 MB a layer, 62 MB in all.
static const ModelShape shape = {.n_layers = 14,
                                 .d_model = 256,
                                 .n_heads = 4,
                                 .n_kv_heads = 4,
                                 .head_dim = 64,
                                 .d_ffn = 1056,
                                 .vocab_size = 1000,
                                 .max_positions = 64,
                                 .rope_pairs = 32,
                                 .rope_theta = 1e4,
                                 .rms_eps = 1e-5};

static char dirs[2][64]; // of the model in float32 and in bfloat16

static int write_models(void **state)
{
    (void)state;
    Model model;
    snprintf(dirs[0], sizeof dirs[0], "%s/f32", testing_dir());
    snprintf(dirs[1], sizeof dirs[1], "%s/bf16", testing_dir());
    assert_ok(model_create(&model, &shape));
    model_init_random(&model, 0.02, 1);
    assert_ok(hf_save(&model, NULL, DTYPE_F32, dirs[0]));
    assert_ok(hf_save(&model, NULL, DTYPE_BF16, dirs[1]));
    model_release(&model);
    return 0;
}

static Status do_nothing(const char *dir)
{
    ModelShape read;
    return hf_load_shape(&read, dir);
}

static Status load(const char *dir)
{
    Model model;
    TRY(hf_load(&model, dir));
    model_release(&model);
    return OK;
}

static Status convert(const char *dir)
{
    HfSource *files;
    ModelShape converted;
    Model mla;
    TRY(hf_source_open(&files, dir));
    const WeightSource source = hf_source_weights(files);
    TRY(shape_convert(&converted, source.shape, 4, 16, SVD_JOINT));
    TRY(model_create(&mla, &converted));
    TRY(rope_select(mla.rope_pairs, &converted, 4, ROPE_UNIFORM, NULL));
    TRY(convert_outside_layers(&mla, &source));
    for (int l = 0; l < converted.n_layers; l++)
        TRY(convert_layer(&mla, &source, l, &testing_paper, NULL, NULL));
    model_release(&mla);
    hf_source_close(files);
    return OK;
}

// Pages of code and buffers that any work of this kind needs.
static void warm_up_libraries(void)
{
    enum { N = 300 };
    static float a[N * N], up[N * 8], down[8 * N];
    testing_fill(a, N * N, 1.0, 3);
    blas_warm_up_threads();
    assert_ok(factorize(up, down, a, N, N, 8));
}

// The most memory a process had that did `work` on the model in `dir`, and else nothing.
static int64_t peak_bytes(Status (*work)(const char *), const char *dir)
{
    int status;
    struct rusage usage;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        warm_up_libraries();
        _exit(work(dir) == OK ? 0 : 1);
    }
    assert_int_equal(wait4(child, &status, 0, &usage), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return usage.ru_maxrss * 1024;
}

// `numbers` is what the work must hold.
static void assert_bounded(Status (*work)(const char *), int64_t numbers)
{
    if (TESTING_IS_SANITIZED)
        skip(); // has memory of its own
    int64_t first, layer;
    params_layer_range(&shape, 0, &first, &layer);
    for (int i = 0; i < 2; i++) {
        int64_t peak = peak_bytes(work, dirs[i]) - peak_bytes(do_nothing, dirs[i]);
        int64_t least = numbers * (int64_t)sizeof(float);
        int64_t most = least + layer * (int64_t)sizeof(float);
        // Seen: 0.4 MB below to 1.7 above the numbers; what is below was freed before.
        if (peak < least - least / 20 || peak > most)
            fail_msg("%s: %.2f MB, the numbers alone %.2f, with a layer %.2f", dirs[i],
                     (double)peak / 1e6, (double)least / 1e6, (double)most / 1e6);
    }
}

static void test_loading_takes_the_weights(void **state)
{
    (void)state;
    assert_bounded(load, params_count(&shape));
}

static void test_converting_takes_the_converted_weights_and_a_layer(void **state)
{
    (void)state;
    ModelShape converted;
    assert_ok(shape_convert(&converted, &shape, 4, 16, SVD_JOINT));
    assert_bounded(convert, params_count(&converted));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading_takes_the_weights),
        cmocka_unit_test(test_converting_takes_the_converted_weights_and_a_layer),
    };
    return cmocka_run_group_tests(tests, write_models, NULL);
}
