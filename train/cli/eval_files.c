// Files are the same if their directories and their names are. A link in the place of a file is
// replaced and not followed, so where it leads does not matter.
#include "train/cli/eval_files.h"

#include "base/file.h"
#include "base/paths.h"
#include "data/text/json_lines.h"
#include "eval/tasks/task.h"

#include <stdio.h>
#include <string.h>

typedef struct Output {
    const char *option, *path; // path NULL: not asked for
} Output;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static bool find_parent(char out[PATH_BYTES], const char *path)
{
    const size_t length = (size_t)(base_name(path) - path);
    if (length + 2 > PATH_BYTES)
        return false;
    memcpy(out, path, length);
    strcpy(out + length, "."); // "" and "dir/" alike
    return true;
}

static bool is_in(const char *path, const char *dir)
{
    char parent[PATH_BYTES];
    return find_parent(parent, path) && file_is_same(parent, dir);
}

static bool is_same_file(const char *a, const char *b)
{
    char parent[PATH_BYTES];
    return strcmp(base_name(a), base_name(b)) == 0 && find_parent(parent, b) && is_in(a, parent);
}

// Whether a file of this name belongs to a Hugging Face model.
static bool is_of_model(const char *name)
{
    static const char *const ends[] = {".safetensors", ".safetensors.index.json", "config.json",
                                       "tokenizer.json", "special_tokens_map.json"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (name_ends_with(name, ends[i]))
            return true;
    return false;
}

// Whether `name` is that of a file with rows of the task, plain or compressed.
static bool is_of_task(const char *name, const Task *task)
{
    for (int f = 0; f < 2 && task->files[f] != NULL; f++) {
        const size_t n = strlen(task->files[f]);
        for (int e = 0; json_lines_endings[e] != NULL; e++)
            if (strncmp(name, task->files[f], n) == 0 &&
                strcmp(name + n, json_lines_endings[e]) == 0)
                return true;
    }
    return false;
}

static bool is_of_tasks(const char *name)
{
    const Task *task;
    for (int rules = 0; task_rules_names[rules] != NULL; rules++)
        for (int i = 0; (task = task_at((TaskRules)rules, i)) != NULL; i++)
            if (is_of_task(name, task))
                return true;
    return false;
}

// A directory of LongBench may have sets of any name.
static bool is_of_longbench(const char *name)
{
    for (int e = 0; json_lines_endings[e] != NULL; e++)
        if (name_ends_with(name, json_lines_endings[e]))
            return true;
    return false;
}

static Status check_input(const Output *output, const char *argument, const char *dir,
                          bool (*is_input)(const char *name))
{
    if (dir == NULL || !is_input(base_name(output->path)) || !is_in(output->path, dir) ||
        !file_exists(output->path))
        return OK;
    return fail(BAD_INPUT, "eval: --%s %s would replace a file of %s; name another", output->option,
                output->path, argument);
}

static Status check_inputs(const Output *output, const EvalOptions *given, const char *model)
{
    char data[PATH_BYTES];
    const bool has_data =
        given->longbench != NULL && file_join(data, given->longbench, "data") == OK;
    TRY(check_input(output, "MODEL", model, is_of_model));
    TRY(check_input(output, "--tasks", given->tasks, is_of_tasks));
    TRY(check_input(output, "--longbench", given->longbench, is_of_longbench));
    return check_input(output, "--longbench", has_data ? data : NULL, is_of_longbench);
}

Status eval_check_files(const EvalOptions *given, const char *model)
{
    const Output outputs[] = {
        {"out", given->out}, {"log-samples", given->samples}, {"predictions", given->predictions}};
    for (int i = 0; i < 3; i++) {
        if (outputs[i].path == NULL)
            continue;
        for (int j = i + 1; j < 3; j++)
            if (outputs[j].path != NULL && is_same_file(outputs[i].path, outputs[j].path))
                return fail(BAD_INPUT, "--%s and --%s are one file, %s; give two",
                            outputs[i].option, outputs[j].option, outputs[i].path);
        if (outputs[i].path != given->predictions)
            TRY(check_inputs(&outputs[i], given, model));
    }
    return OK;
}
