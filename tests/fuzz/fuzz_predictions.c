// train/evaluate: a file of predictions is refused in one line and left as it is, or goes on being
// one: what is read, sorted and written is read again as the same.
#include "tests/fuzz/fuzzing.h"

#include "base/file.h"
#include "train/evaluate/longbench_predictions.h"

#include <stdlib.h>
#include <string.h>

static json_t *identity(void)
{
    json_t *out = json_pack("{s:s, s:i, s:s}", "format", "mha2mla-predictions", "version", 1,
                            "cache", "float32");
    CHECK(out != NULL, "no memory");
    return out;
}

static void check_file_is(const char *path, const void *bytes, size_t size)
{
    FileMap map;
    CHECK(file_map(&map, path) == OK, "%s", fail_text());
    CHECK((size_t)map.size_bytes == size && (size == 0 || memcmp(map.bytes, bytes, size) == 0),
          "a refused file has changed");
    file_unmap(&map);
}

// A second reading finds the lines that the first one left, in their order.
static void check_again(const Predictions *first, const char *path)
{
    Predictions again;
    CHECK(predictions_open(&again, path, identity(), "host") == OK, "%s", fail_text());
    CHECK(again.n == first->n, "%lld lines, then %lld", (long long)first->n, (long long)again.n);
    for (int64_t i = 0; i < again.n; i++) {
        const Prediction *line = &again.items[i];
        CHECK(json_equal(line->line, first->items[i].line), "line %lld is another",
              (long long)i + 2);
        CHECK(predictions_find(&again, line->set, line->row) == line, "line %lld is not found",
              (long long)i + 2);
    }
    predictions_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[PATH_BYTES];
    Predictions predictions;
    snprintf(path, sizeof path, "%s", fuzz_file("predictions.jsonl", data, size));
    const Status status = predictions_open(&predictions, path, identity(), "host");
    if (status != OK) {
        check_file_is(path, data, size);
        return fuzz_check_refusal(status);
    }
    if (predictions_find(&predictions, "own", 7) == NULL) {
        json_t *line = json_pack("{s:s, s:i, s:s}", "set", "own", "row", 7, "pred", "an answer");
        CHECK(predictions_add(&predictions, line) == OK, "%s", fail_text());
    }
    CHECK(predictions_sort(&predictions) == OK, "%s", fail_text());
    fclose(predictions.stream); // the lock would keep the second reading out
    predictions.stream = NULL;
    file_lock_remove(&predictions.lock);
    check_again(&predictions, path);
    predictions_close(&predictions);
    return 0;
}
