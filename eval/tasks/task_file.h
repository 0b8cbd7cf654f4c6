// The file that has a task's rows: which one it is, and what its rows will take in memory, before
// they are read.
//
//     char path[PATH_BYTES];
//     if (task_file_find(path, "tasks", task))
//         TRY(task_file_measure(&rows, path, limit));
//     ... task_file_memory(&rows, n_ranks) ...
#ifndef MHA2MLA_EVAL_TASKS_TASK_FILE_H
#define MHA2MLA_EVAL_TASKS_TASK_FILE_H

#include "base/file.h"
#include "eval/tasks/task.h"

// The first of the task's files in the directory, plain or compressed; false if there is none.
bool task_file_find(char out[PATH_BYTES], const char *dir, const Task *task);

typedef struct TaskRows {
    int64_t n;
    int64_t total_bytes, longest_bytes; // of JSON
} TaskRows;

// The first `limit` rows of the file, or all for 0, counted and not parsed. Of a task whose samples
// lie at even distances they stand for as many others. BAD_INPUT if the file cannot be read.
Status task_file_measure(TaskRows *out, const char *path, int64_t limit);

// Bytes of a TaskSet with these rows, of which a rank has its share: about a token in four bytes of
// JSON, so that an id takes what its text does. Seen: 0.9 to 1.3 times that.
int64_t task_file_memory(const TaskRows *rows, int n_ranks);

// Tokens of the longest question, by the same rule.
int task_file_longest(const TaskRows *rows);

#endif
