// The files of a long-context evaluation: DIR/NAME.jsonl[.gz|.zst], or in DIR/data, where
// LongBench's archive unpacks to.
//
//     LongbenchFiles files;
//     TRY(longbench_find_files(&files, "LongBench", "qasper,trec"));
//     for (int f = 0; f < files.n; f++)
//         ... files.items[f].set.name, files.items[f].path ...
//     longbench_files_release(&files);
//
// Files that are neither one of the 16 English sets nor hide a needle are passed over: the archive
// has Chinese sets and those of LongBench-E besides.
#ifndef MHA2MLA_EVAL_LONGBENCH_LONGBENCH_FILES_H
#define MHA2MLA_EVAL_LONGBENCH_LONGBENCH_FILES_H

#include "base/file.h"
#include "eval/longbench/longbench_sets.h"

typedef struct LongbenchFile {
    LongbenchSet set;
    char path[PATH_BYTES];
} LongbenchFile;

typedef struct LongbenchFiles {
    LongbenchFile *items; // owned [n]: LongBench's in the order of its table, then needle sets by
                          // name
    int n;
} LongbenchFiles;

// `only`: names of sets between commas; NULL: all. BAD_INPUT if there is none, one that is asked
// for is missing, or a set has two files.
Status longbench_find_files(LongbenchFiles *out, const char *dir, const char *only);

void longbench_files_release(LongbenchFiles *files); // a zeroed one is allowed

#endif
