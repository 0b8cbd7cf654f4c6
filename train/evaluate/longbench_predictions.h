// The predictions of a LongBench evaluation as a file that grows with every answer, so that an
// evaluation which was stopped or killed goes on from it:
//
//     {"mha2mla": {"format": "mha2mla-predictions", "version": 1, "weights": ..., "tokenizer": ...,
//                  "cache": "channel 4 bits", "cache_type": ..., "max_length": 2048, ...}}
//     {"set": "qasper", "row": 3, "_id": "...", "prompt_tokens": 1920, "cut": 812,
//      "prompt_sha256": ..., "pred": "...", "answers": [...], "all_classes": null, "score": 0.5}
//     ...
//
// The first line says what the answers follow from, `identity`, of which predictions that were made
// elsewhere need only format and version, as they need only set, row and pred of a line; the others
// are named as in LongBench's own prediction files, whose eval.py reads those of a set. While the
// evaluation runs, lines are in the order in which answers end; when all are there the file is
// written again in the order of sets and rows, and then has the same bytes for any number of ranks
// and of stops.
//
//     Predictions predictions;
//     TRY(predictions_open(&predictions, "out.jsonl", identity, comm->host));
//     if (predictions_find(&predictions, "qasper", 3) == NULL)
//         TRY_GOTO(close, predictions_add(&predictions, line));
//     TRY_GOTO(close, predictions_sort(&predictions));
// close:
//     predictions_close(&predictions);
//
// Lines of sets that are not evaluated now stay. Belongs to one process, which locks the file.
#ifndef MHA2MLA_TRAIN_EVALUATE_LONGBENCH_PREDICTIONS_H
#define MHA2MLA_TRAIN_EVALUATE_LONGBENCH_PREDICTIONS_H

#include "base/file_lock.h"

#include <jansson.h>

typedef struct Prediction {
    json_t *line;    // owned
    const char *set; // of the line
    int64_t row;
    int number; // of the line in the file it was read from; 0: it was added
} Prediction;

typedef struct Predictions {
    char path[PATH_BYTES]; // "": only in memory
    json_t *identity;      // owned
    FileLock lock;
    FILE *stream;      // owned: appends; NULL: only in memory
    Prediction *items; // owned [n]
    int64_t n, capacity;
} Predictions;

// Reads what is in the file, if there is one; a last line without an end, as a killed process
// leaves it, is dropped. path NULL: predictions are kept in memory only. Takes over the reference
// to `identity`. BAD_INPUT if the file is of another identity, with both values, has a line that is
// no prediction, or is in use.
Status predictions_open(Predictions *out, const char *path, json_t *identity, const char *host);

// NULL: there is none.
const Prediction *predictions_find(const Predictions *predictions, const char *set, int64_t row);

// Writes a line; takes over the reference to it.
Status predictions_add(Predictions *predictions, json_t *line);

// Puts the lines in the order of sets and rows, in memory and in the file.
Status predictions_sort(Predictions *predictions);

void predictions_close(Predictions *predictions); // a zeroed one is allowed

#endif
