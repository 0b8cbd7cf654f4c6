// What a run is said to need on its disk.
#include "tests/support/testing.h"
#include "tests/support/testing_model.h"

#include "model/params.h"
#include "train/job/disk_room.h"

static void test_bytes_follow_from_the_parameters(void **state)
{
    (void)state;
    const int64_t n = params_count(&testing_tiny_shape);
    static char norm[] = "model.norm.weight";
    char *const patterns[] = {norm};
    const Trainable all = {0}, some = {patterns, 1};
    assert_int_equal(disk_room_checkpoint_bytes(&testing_tiny_shape, &all), 12 * n);
    assert_int_equal(disk_room_checkpoint_bytes(&testing_tiny_shape, &some),
                     4 * n + 8 * testing_tiny_shape.d_model);
    assert_int_equal(disk_room_export_bytes(&testing_tiny_shape, DTYPE_F32), 4 * n);
    assert_int_equal(disk_room_export_bytes(&testing_tiny_shape, DTYPE_BF16), 2 * n);
}

static void test_checkpoints_are_those_kept_and_the_one_being_written(void **state)
{
    (void)state;
    Config config = {.train.steps = 40, .checkpoint = {.every = 4, .keep = 2}};
    assert_int_equal(disk_room_n_checkpoints(&config), 3);
    config.checkpoint.keep_every = 20; // steps 20 and 40 stay
    assert_int_equal(disk_room_n_checkpoints(&config), 5);
    config.checkpoint = (CheckpointConfig){.every = 0, .keep = 2}; // that of the end alone
    assert_int_equal(disk_room_n_checkpoints(&config), 1);
    config.checkpoint = (CheckpointConfig){.every = 20, .keep = 10}; // steps 20 and 40
    assert_int_equal(disk_room_n_checkpoints(&config), 2);
    config.model.convert.given = true; // and step 0
    assert_int_equal(disk_room_n_checkpoints(&config), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_follow_from_the_parameters),
        cmocka_unit_test(test_checkpoints_are_those_kept_and_the_one_being_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
