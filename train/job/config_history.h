// The settings that a run was trained with, step by step: those of today, and what was changed at
// which step, as a run may be resumed with another config.
//
//     ConfigHistory history = {0};
//     TRY(config_history_read(&history, &dir, &config));   // of a new run: no changes
//     TRY(config_history_log(&history));
//     ... run_json_write() keeps it, config_history_write_yaml() puts it into RUN/config.yaml ...
//     config_history_release(&history);
//
// In run.json it is
//     "config": {"run.seed": "42", "optim.lr": "5.0e-5", ...},
//     "config_changes": [{"step": 500, "key": "optim.lr", "old": "1.0e-4", "new": "5.0e-5"}, ...]
// with the texts of train/config/config_values.h; `old` or `new` is null where the config did not
// have the key. A change at step 500 holds for step 501 and after.
//
// run.json is what counts: it is replaced in one piece before config.yaml is. A run that is resumed
// from step 500 knows changes at step 500 and after only from processes that left no checkpoint
// behind them; they are undone before the config is compared with what trained step 500.
#ifndef MHA2MLA_TRAIN_JOB_CONFIG_HISTORY_H
#define MHA2MLA_TRAIN_JOB_CONFIG_HISTORY_H

#include "base/json.h"
#include "train/config/config.h"
#include "train/job/run_dir.h"

typedef struct ConfigHistory {
    json_t *config;  // owned: an object, key -> text
    json_t *changes; // owned: a list, steps ascend
    int n_earlier;   // of the changes, those of earlier processes
} ConfigHistory;

// The history of the run in `dir` with `config` from now on. Where neither run.json nor config.yaml
// of a resumed run can be read, this is said and the history begins here. FAILED: memory is short.
Status config_history_read(ConfigHistory *out, const RunDir *dir, const Config *config);

// Logs what the config has changed, a line for each key. FAILED: memory is short.
Status config_history_log(const ConfigHistory *history);

// Writes RUN/config.yaml: the config of today, with all changes as comments before it.
Status config_history_write_yaml(const ConfigHistory *history, const RunDir *dir,
                                 const Config *config);

void config_history_release(ConfigHistory *history);

#endif
