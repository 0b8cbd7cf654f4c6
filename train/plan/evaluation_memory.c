#include "train/plan/evaluation_memory.h"

#include "base/intmath.h"
#include "base/log.h"
#include "eval/tasks/choice_scorer.h"
#include "eval/tasks/task_file.h"

#include <string.h>
#include <sys/stat.h>

// A tokenizer's tables by the size of its tokenizer.json. Seen: 2.5 (Llama-2), 3.4 (SmolLM) and 4.7
// (the demo's, of 55 KB).
enum { TOKENIZER_FACTOR = 4 };

TaskRules evaluation_rules(const EvalConfig *config)
{
    return config->rules == EVAL_RULES_LM_EVAL ? TASK_RULES_LM_EVAL : TASK_RULES_REFERENCE;
}

static int64_t tokenizer_bytes(const ModelConfig *model)
{
    char path[PATH_BYTES];
    struct stat file;
    const char *dir = model->base != NULL ? model->base : model->init.tokenizer;
    if (dir == NULL || file_join(path, dir, "tokenizer.json") != OK || stat(path, &file) != 0)
        return 0;
    return TOKENIZER_FACTOR * (int64_t)file.st_size;
}

static bool is_evaluated(const EvalConfig *config, const Task *task)
{
    for (int i = 0; i < config->n_only; i++)
        if (strcmp(config->only[i], task->name) == 0)
            return true;
    return config->n_only == 0 && !task->is_only_named;
}

// Adds up the tasks' memory; *longest is that of all questions.
static int64_t questions_bytes(const EvalConfig *config, int n_ranks, int *longest)
{
    const Task *task;
    char path[PATH_BYTES];
    int64_t bytes = 0;
    for (int i = 0; (task = task_at(evaluation_rules(config), i)) != NULL; i++) {
        TaskRows rows;
        if (!is_evaluated(config, task) || !task_file_find(path, config->tasks, task))
            continue;
        if (task_file_measure(&rows, path, config->limit) != OK) {
            log_warn("its memory is not planned: %s", fail_text());
            continue;
        }
        bytes += task_file_memory(&rows, n_ranks);
        *longest = *longest > task_file_longest(&rows) ? *longest : task_file_longest(&rows);
    }
    return bytes;
}

// While the weights are read, the tensor at hand is there besides, as float32.
static int64_t largest_tensor_bytes(const ModelShape *shape)
{
    int64_t largest = 0;
    for (int t = 0; t < params_n_tensors(shape); t++) {
        const ParamInfo info = params_info(shape, t);
        largest = max_int64(largest, (int64_t)info.rows * info.cols * (int64_t)sizeof(float));
    }
    return largest;
}

int64_t evaluation_bytes(const Config *config, const ModelShape *shape, int n_ranks, int n_threads)
{
    if (config->eval.tasks == NULL)
        return 0;
    int longest = 0;
    const KvFormat format = kv_format_plain(KV_FLOAT32);
    const int64_t kept =
        tokenizer_bytes(&config->model) + questions_bytes(&config->eval, n_ranks, &longest);
    longest = min_int(longest, shape_longest(shape));
    const int64_t scoring = choice_scorer_work_bytes(shape, n_threads) +
                            choice_scorer_cache_bytes(shape, &format, longest);
    return kept + infer_weights_bytes(shape, DTYPE_F32, config->train.compute) +
           max_int64(largest_tensor_bytes(shape), scoring);
}
