// A model's tensors read one at a time: the same numbers as loading all of them.
#include "tests/support/testing.h"

#include "model/hf/hf.h"

#include <stdlib.h>

static void assert_source_reads_what_is_loaded(const char *dir)
{
    Model model;
    HfSource *files;
    assert_ok(hf_load(&model, dir));
    assert_ok(hf_source_open(&files, dir));
    const WeightSource source = hf_source_weights(files);
    assert_int_equal(params_count(source.shape), model.params.count);
    float *values = malloc((size_t)model.params.count * sizeof *values);
    assert_non_null(values);
    for (int t = params_n_tensors(source.shape) - 1; t >= 0; t--) {
        ParamInfo info = params_info(source.shape, t);
        assert_ok(weight_source_read(&source, &info, values));
        assert_memory_equal(values, model.params.flat + info.offset,
                            (size_t)info.rows * (size_t)info.cols * sizeof *values);
    }
    free(values);
    hf_source_close(files);
    model_release(&model);
}

static void test_source_reads_what_is_loaded(void **state)
{
    (void)state;
    assert_source_reads_what_is_loaded(GOLDEN_DIR "/models/gqa_bf16");
    assert_source_reads_what_is_loaded(GOLDEN_DIR "/models/gqa_f16");
    assert_source_reads_what_is_loaded(GOLDEN_DIR "/models/mqa_sharded");
}

static void test_source_that_cannot_be_opened(void **state)
{
    (void)state;
    HfSource *files = NULL;
    assert_fails(BAD_INPUT, "/absent/model: not a directory",
                 hf_source_open(&files, testing_absent("model")));
    assert_null(files);
    hf_source_close(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_source_reads_what_is_loaded),
        cmocka_unit_test(test_source_that_cannot_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
