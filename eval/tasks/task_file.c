#include "eval/tasks/task_file.h"

#include "base/intmath.h"
#include "data/text/json_lines.h"
#include "eval/tasks/task_set.h"

#include <limits.h>

enum { NAME_BYTES = 64, TOKEN_BYTES = 4 }; // of text in a token

bool task_file_find(char out[PATH_BYTES], const char *dir, const Task *task)
{
    for (int f = 0; f < 2 && task->files[f] != NULL; f++)
        for (int e = 0; json_lines_endings[e] != NULL; e++) {
            char name[NAME_BYTES];
            snprintf(name, sizeof name, "%s%s", task->files[f], json_lines_endings[e]);
            if (file_join(out, dir, name) == OK && file_exists(out))
                return true;
        }
    return false;
}

Status task_file_measure(TaskRows *out, const char *path, int64_t limit)
{
    Status status = OK;
    TaskRows rows = {0};
    JsonLines lines;
    TRY(json_lines_open(&lines, path));
    while (limit == 0 || rows.n < limit) {
        int64_t size;
        TRY_GOTO(close, json_lines_skip(&size, &lines));
        if (size == 0)
            break;
        rows.n++;
        rows.total_bytes += size;
        rows.longest_bytes = size > rows.longest_bytes ? size : rows.longest_bytes;
    }
    *out = rows;
close:
    json_lines_close(&lines);
    return status;
}

int64_t task_file_memory(const TaskRows *rows, int n_ranks)
{
    const int64_t ids = rows->total_bytes / TOKEN_BYTES * (int64_t)sizeof(int32_t);
    const int64_t questions = rows->n * (int64_t)sizeof(TaskQuestion);
    return rows->n * (int64_t)sizeof(TaskSample) + (questions + ids) / n_ranks;
}

int task_file_longest(const TaskRows *rows)
{
    const int64_t n = rows->longest_bytes / TOKEN_BYTES;
    return n < INT_MAX ? (int)n : INT_MAX;
}
