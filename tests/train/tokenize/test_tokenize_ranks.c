// Tokenization at every number of ranks CTest starts this with: the shard is the one that a rank
// alone writes, and a failure of any rank ends all of them with one text and no file.
#include "tests/support/testing.h"
#include "tests/support/testing_ranks.h"
#include "tests/support/testing_shard.h"

#include "base/file.h"
#include "base/random.h"
#include "data/shards/shard.h"
#include "train/tokenize/tokenize_ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <zlib.h>

static const char tokenizer_dir[] = CONFIGS_DIR "/demo/model";

static Comm comm;
static char dir[PATH_BYTES]; // the same for all ranks

static char *in_dir(const char *name)
{
    return (char *)(uintptr_t)testing_path(dir, name);
}

static TokenizeOptions options_for(char out_path[PATH_BYTES])
{
    snprintf(out_path, PATH_BYTES, "%s", in_dir("out.h5"));
    return (TokenizeOptions){.tokenizer_dir = tokenizer_dir, .out = out_path, .batch_bytes = 2000};
}

// Documents of 0 to 40 words, but every hundredth is long: some batches take longer than others.
static void write_documents(const char *path, int n_documents, uint64_t seed)
{
    static const char *const words[] = {"Once", "upon", "a", "time", "there", "was", "truck", "."};
    gzFile file = gzopen(path, strstr(path, ".gz") != NULL ? "wb1" : "wbT"); // T: not compressed
    assert_non_null(file);
    for (int d = 0; d < n_documents; d++) {
        const int n_words = d % 100 == 7 ? 2000 : (int)(random_bits(seed, (uint64_t)d) % 40);
        gzputs(file, "{\"text\": \"");
        for (int w = 0; w < n_words; w++)
            gzprintf(file, "%s ", words[random_bits(seed + 1, (uint64_t)(d * 41 + w)) % 8]);
        gzputs(file, "\"}\n");
    }
    assert_int_equal(gzclose(file), Z_OK);
}

static void assert_same_shards(const char *a_path, const char *b_path)
{
    Shard *a, *b;
    assert_ok(shard_open(&a, a_path));
    assert_ok(shard_open(&b, b_path));
    const int64_t n = shard_info(a)->n_tokens, n_offsets = shard_info(a)->n_documents + 1;
    assert_int_equal(n, shard_info(b)->n_tokens);
    assert_int_equal(n_offsets, shard_info(b)->n_documents + 1);
    assert_string_equal(shard_info(a)->tokenizer_sha256, shard_info(b)->tokenizer_sha256);
    int32_t *ids = malloc(2 * (size_t)n * sizeof *ids);
    int64_t *offsets = malloc(2 * (size_t)n_offsets * sizeof *offsets);
    assert_true(ids != NULL && offsets != NULL);
    assert_ok(shard_read(a, 0, n, ids));
    assert_ok(shard_read(b, 0, n, ids + n));
    assert_memory_equal(ids, ids + n, (size_t)n * sizeof *ids);
    testing_documents(offsets, a_path, 0, n_offsets);
    testing_documents(offsets + n_offsets, b_path, 0, n_offsets);
    assert_memory_equal(offsets, offsets + n_offsets, (size_t)n_offsets * sizeof *offsets);
    free(ids);
    free(offsets);
    shard_close(a);
    shard_close(b);
}

static void test_shard_is_that_of_one_rank(void **state)
{
    (void)state;
    char out_path[PATH_BYTES], alone_path[PATH_BYTES];
    TokenizeOptions options = options_for(out_path);
    char *files[] = {in_dir("a.jsonl"), in_dir("b.jsonl.gz"), in_dir("empty.txt"), in_dir("c.txt")};
    TokenizeCounts counts, expected;
    if (comm.rank == 0) {
        write_documents(files[0], 500, 1);
        write_documents(files[1], 300, 3);
        assert_ok(file_write(files[2], "", 0));
        assert_ok(file_write(files[3], "The end.", 8));
    }
    assert_ok(tokenize_over_ranks(&counts, &comm, &options, files, 4));
    if (comm.rank > 0)
        return;
    snprintf(alone_path, sizeof alone_path, "%s", in_dir("alone.h5"));
    options.out = alone_path;
    options.batch_bytes = 0;
    const Comm alone = {.size = 1};
    assert_ok(tokenize_over_ranks(&expected, &alone, &options, files, 4));
    assert_int_equal(counts.n_documents, 780); // of 801: 21 have no words
    assert_int_equal(counts.n_documents, expected.n_documents);
    assert_int_equal(counts.n_tokens, expected.n_tokens);
    assert_int_equal(counts.text_bytes, expected.text_bytes);
    assert_true(counts.fraction == 1);
    assert_same_shards(out_path, alone_path);
    assert_int_equal(remove(out_path), 0);
}

// The call fails on all ranks with exactly this text, and leaves nothing.
static void check_failure(const TokenizeOptions *options, char *file, Status kind, const char *text)
{
    TokenizeCounts counts;
    assert_fails(kind, text, tokenize_over_ranks(&counts, &comm, options, &file, 1));
    assert_ok(comm_agree(&comm, OK)); // all are here
    if (comm.rank == 0)               // which writes what comes next
        testing_no_temporaries(options->out);
    assert_false(file_exists(options->out));
}

static void test_broken_line_ends_all_ranks(void **state)
{
    (void)state;
    char out_path[PATH_BYTES], expected[PATH_BYTES + 100];
    const TokenizeOptions options = options_for(out_path);
    char *file = in_dir("broken.jsonl");
    if (comm.rank == 0) {
        write_documents(file, 250, 5);
        FILE *stream = fopen(file, "ab");
        assert_non_null(stream);
        fputs("{\"text\": 1}\n", stream);
        assert_int_equal(fclose(stream), 0);
    }
    snprintf(expected, sizeof expected, "%s:251: field 'text' is not a string", file);
    check_failure(&options, file, BAD_INPUT, expected);
    assert_string_equal(fail_text(), expected); // and no rank before it
}

static void test_missing_file_and_directory_name_no_rank(void **state)
{
    (void)state;
    char out_path[PATH_BYTES];
    TokenizeOptions options = options_for(out_path);
    check_failure(&options, in_dir("none.txt"), BAD_INPUT, "none.txt: no such file");
    assert_null(strstr(fail_text(), "rank"));
    if (comm.rank == 0)
        assert_ok(file_write(in_dir("d.txt"), "x", 1));
    options.out = in_dir("absent/a.h5");
    check_failure(&options, in_dir("d.txt"), FAILED, "/absent/a.h5: cannot be written");
    assert_null(strstr(fail_text(), "rank"));
}

static void test_stop_ends_all_ranks(void **state)
{
    (void)state;
    char out_path[PATH_BYTES];
    TokenizeOptions options = options_for(out_path);
    volatile sig_atomic_t stop = 1;
    options.stop = &stop;
    if (comm.rank == 0)
        write_documents(in_dir("long.jsonl"), 100, 7);
    check_failure(&options, in_dir("long.jsonl"), FAILED, "interrupted; ");
    assert_null(strstr(fail_text(), "rank"));
}

static void test_rank_without_the_tokenizer_is_named(void **state)
{
    (void)state;
    char out_path[PATH_BYTES], text[64];
    TokenizeOptions options = options_for(out_path);
    if (comm.size == 1)
        skip();
    const int last = comm.size - 1;
    snprintf(text, sizeof text, "rank %d on ", last);
    if (comm.rank == 0)
        assert_ok(file_write(in_dir("d.txt"), "x", 1));
    if (comm.rank == last)
        options.tokenizer_dir = in_dir("absent");
    check_failure(&options, in_dir("d.txt"), BAD_INPUT, text);
    assert_non_null(strstr(fail_text(), "/absent"));
    if (comm.rank == last)
        options.tokenizer_dir = GOLDEN_DIR "/tokenizer/tiny_bytelevel";
    options.eos = "none";
    check_failure(&options, in_dir("d.txt"), BAD_INPUT, "the tokenizer's sha256 is ");
    assert_memory_equal(fail_text(), text, strlen(text));
}

// Only rank 0 needs the texts, but what others see must be the same.
static void test_rank_with_other_texts_is_named(void **state)
{
    (void)state;
    char out_path[PATH_BYTES], text[64];
    TokenizeOptions options = options_for(out_path);
    TokenizeCounts counts;
    if (comm.size == 1)
        skip();
    const int last = comm.size - 1;
    if (comm.rank == 0) {
        write_documents(in_dir("d.jsonl"), 3, 7);
        write_documents(in_dir("e.jsonl"), 4, 7);
    }
    assert_ok(comm_agree(&comm, OK)); // they are there
    snprintf(text, sizeof text, "rank %d on ", last);
    char *const other = in_dir(comm.rank == last ? "e.jsonl" : "d.jsonl");
    assert_int_equal(tokenize_over_ranks(&counts, &comm, &options, &other, 1), BAD_INPUT);
    assert_non_null(strstr(fail_text(), "FILE is 1 file of "));
    assert_memory_equal(fail_text(), text, strlen(text));
    char *const none = in_dir(comm.rank == last ? "f.jsonl" : "d.jsonl");
    assert_ok(tokenize_over_ranks(&counts, &comm, &options, &none, 1));
    if (comm.rank == 0)
        assert_int_equal(remove(out_path), 0);
    assert_ok(comm_agree(&comm, OK));
}

// Memory this process has, as the limit counts it.
static rlim_t data_bytes(void)
{
    char line[200];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "VmData: %llu kB", &kib) == 1)
            break;
    fclose(file);
    assert_true(kib > 0);
    return (rlim_t)kib << 10;
}

// The first batch goes to rank 1, which has no memory for it.
static void test_rank_without_memory_is_named(void **state)
{
    (void)state;
    if (TESTING_IS_SANITIZED)
        skip();                // its allocator ends the program
    enum { LARGE = 64 << 20 }; // the tokenizer itself takes less
    char out_path[PATH_BYTES];
    const TokenizeOptions options = options_for(out_path);
    if (comm.size == 1)
        skip();
    if (comm.rank == 0) {
        char *text = malloc(LARGE);
        assert_non_null(text);
        memset(text, '\n', LARGE);
        assert_ok(file_write(in_dir("large.txt"), text, LARGE));
        free(text);
    }
    assert_ok(comm_agree(&comm, OK));
    struct rlimit before, small;
    getrlimit(RLIMIT_DATA, &before);
    small = (struct rlimit){.rlim_cur = data_bytes() + LARGE / 2, .rlim_max = before.rlim_max};
    if (comm.rank == 1)
        assert_int_equal(setrlimit(RLIMIT_DATA, &small), 0);
    check_failure(&options, in_dir("large.txt"), FAILED,
                  "rank 1: out of memory for documents of 67108864 bytes");
    setrlimit(RLIMIT_DATA, &before);
    if (comm.rank == 0)
        remove(in_dir("large.txt"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shard_is_that_of_one_rank),
        cmocka_unit_test(test_broken_line_ends_all_ranks),
        cmocka_unit_test(test_missing_file_and_directory_name_no_rank),
        cmocka_unit_test(test_stop_ends_all_ranks),
        cmocka_unit_test(test_rank_without_the_tokenizer_is_named),
        cmocka_unit_test(test_rank_with_other_texts_is_named),
        cmocka_unit_test(test_rank_without_memory_is_named),
    };
    if (!testing_start_ranks(&comm))
        return 1;
    if (comm.rank == 0)
        snprintf(dir, sizeof dir, "%s", testing_dir());
    comm_broadcast(&comm, dir, sizeof dir, 0);
    return testing_stop_ranks(&comm, cmocka_run_group_tests(tests, NULL, NULL));
}
