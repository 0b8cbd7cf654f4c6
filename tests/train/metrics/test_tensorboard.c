// TensorBoard's event files against those of its own writer (tests/golden/tensorboard/).
#include "tests/support/testing.h"

#include "base/file.h"
#include "base/log.h"
#include "train/metrics/tensorboard.h"

#include <math.h>

static const double wall_s = 1700000000.25;

static void test_bytes_are_those_of_tensorboards_writer(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    const TensorBoardScalar step[] = {{"train/loss", 2.5f},
                                      {"train/grad_norm", 0.125f},
                                      {"train/lr", 1e-4f},
                                      {"train/tokens_per_s", 65536}};
    const TensorBoardScalar valid = {"valid/loss", 2.75f}, endless = {"train/loss", INFINITY};
    TensorBoard board = {0};
    assert_ok(tensorboard_open(&board, dir, "node7", wall_s, 301));
    tensorboard_write(&board, wall_s + 1, 301, step, 4);
    tensorboard_write(&board, wall_s + 2, 301, &valid, 1);
    tensorboard_write(&board, wall_s + 3, (INT64_C(1) << 31) + 5, &endless, 1);
    FileMap own, golden; // before the file is closed: nothing waits in a buffer
    assert_ok(file_map(&own, testing_path(dir, "events.out.tfevents.1700000000.node7")));
    assert_ok(file_map(&golden, testing_path(GOLDEN_DIR, "tensorboard/tensorboard.events")));
    assert_int_equal(own.size_bytes, golden.size_bytes);
    assert_memory_equal(own.bytes, golden.bytes, (size_t)golden.size_bytes);
    file_unmap(&own);
    file_unmap(&golden);
    tensorboard_close(&board);
    assert_null(board.file);
}

static void test_each_life_of_a_run_has_its_file(void **state)
{
    (void)state;
    const char *dir = testing_dir();
    TensorBoard boards[3] = {0};
    for (int i = 0; i < 3; i++) // all in one second
        assert_ok(tensorboard_open(&boards[i], dir, "h", wall_s, 0));
    assert_true(file_exists(testing_path(dir, "events.out.tfevents.1700000000.h")));
    assert_true(file_exists(testing_path(dir, "events.out.tfevents.1700000001.h")));
    assert_true(file_exists(testing_path(dir, "events.out.tfevents.1700000002.h")));
    for (int i = 0; i < 3; i++)
        tensorboard_close(&boards[i]);
}

static void test_closed_one_takes_everything(void **state)
{
    (void)state;
    TensorBoard board = {0};
    const TensorBoardScalar scalar = {"train/loss", 1};
    tensorboard_write(&board, wall_s, 1, &scalar, 1);
    tensorboard_close(&board);
    assert_null(board.file);
}

static void test_full_disk_closes_the_file_only(void **state)
{
    (void)state;
    TensorBoard board = {.file = fopen("/dev/full", "wb")};
    const TensorBoardScalar scalar = {"train/loss", 1};
    if (board.file == NULL)
        skip();
    tensorboard_write(&board, wall_s, 1, &scalar, 1);
    assert_null(board.file);
}

static void test_directory_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    TensorBoard board = {0};
    assert_fails(FAILED,
                 "/absent/run/events.out.tfevents.1700000000.h: cannot be written: No "
                 "such file",
                 tensorboard_open(&board, testing_absent("run"), "h", wall_s, 0));
    assert_null(board.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_those_of_tensorboards_writer),
        cmocka_unit_test(test_each_life_of_a_run_has_its_file),
        cmocka_unit_test(test_closed_one_takes_everything),
        cmocka_unit_test(test_full_disk_closes_the_file_only),
        cmocka_unit_test(test_directory_that_cannot_be_written_is_named),
    };
    log_set_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
