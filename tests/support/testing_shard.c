#include "tests/support/testing_shard.h"

#include "data/shards/shard_row.h"
#include "tests/support/testing.h"

void testing_documents(int64_t *out, const char *shard_path, int64_t first, int64_t count)
{
    ShardRow row;
    const hid_t file = H5Fopen(shard_path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    assert_ok(shard_row_open(&row, file, shard_path, "documents", 8));
    assert_true(first + count <= row.length);
    assert_ok(shard_row_read64(&row, first, count, out));
    shard_row_close(&row);
    H5Fclose(file);
}
