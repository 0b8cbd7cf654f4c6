// data/shard: a damaged shard is refused in one line or its tokens are in the vocabulary; whatever
// it says, reading ends. An input is a byte of settings, then edits of one of the small shards of
// tests/fuzz/base (tests/fuzz/fuzzing_hdf5.h).
#include "tests/fuzz/fuzzing_hdf5.h"

#include "data/shards/shard.h"

enum { N_BASES = 2, CHOOSE_BASE = 1 }; // a bit of the settings

static Hdf5Base bases[N_BASES];

static void load_base(Hdf5Base *base, const char *path)
{
    static const char *const names[] = {"format",     "version", "tokenizer_sha256",
                                        "vocab_size", "eos_id",  "source"};
    hdf5_base_load(base, path);
    hdf5_base_add_chunk(base, "tokens");
    hdf5_base_add_chunk(base, "documents");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        hdf5_base_add_attribute(base, names[i]);
    hdf5_base_add_dims(base, "tokens");
    hdf5_base_add_dims(base, "documents");
    hdf5_base_add_rest(base);
}

static int check_shard(const char *path)
{
    Shard *shard;
    int64_t n_chunks = 0;
    Status status = shard_open(&shard, path);
    if (status != OK)
        return fuzz_check_refusal(status);
    const ShardInfo *info = shard_info(shard);
    int32_t ids[64];
    int64_t n = info->n_tokens < 64 ? info->n_tokens : 64;
    CHECK(info->n_documents > 0 && info->n_tokens > 0, "%s: empty", path);
    status = shard_read(shard, info->n_tokens - n, n, ids);
    for (int64_t i = 0; i < n && status == OK; i++)
        CHECK(ids[i] >= 0 && ids[i] < info->vocab_size, "%s: token %d", path, (int)ids[i]);
    if (status != OK)
        fuzz_check_refusal(status);
    status = shard_verify(shard, &n_chunks);
    if (status != OK)
        fuzz_check_refusal(status);
    shard_close(shard);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t file[HDF5_MOST_BYTES];
    FuzzInput input = {data, size};
    const uint8_t settings = fuzz_take_byte(&input);
    if (bases[0].size == 0) {
        load_base(&bases[0], FUZZ_DIR "/base/uint16.h5");
        load_base(&bases[1], FUZZ_DIR "/base/uint32.h5");
    }
    const size_t n_bytes = hdf5_base_edit(file, &bases[settings & CHOOSE_BASE], settings, &input);
    return check_shard(fuzz_file("shard.h5", file, n_bytes));
}
