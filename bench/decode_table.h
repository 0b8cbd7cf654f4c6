// Rows of bench_decode in llama-bench's columns and formats, with bytes per token of the cache and
// the limit behind them.
#ifndef MHA2MLA_BENCH_DECODE_TABLE_H
#define MHA2MLA_BENCH_DECODE_TABLE_H

#include "bench/decode_run.h"

#include <stdio.h>

typedef enum DecodeOutput { DECODE_MD, DECODE_CSV, DECODE_JSON, DECODE_JSONL } DecodeOutput;

extern const char *const decode_output_names[]; // closed by NULL

// What stands before the first row, between rows, and behind the last.
void decode_table_begin(FILE *out, DecodeOutput format);
void decode_table_row(FILE *out, DecodeOutput format, const DecodeTest *test,
                      const DecodeResult *result, bool is_first);
void decode_table_end(FILE *out, DecodeOutput format);

#endif
