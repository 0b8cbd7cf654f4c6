// RUN/run.json: what `compare` needs to know of a run beside metrics.jsonl.
//
//     {"format": "mha2mla-run", "name": "demo-dkv8", "attention": "mla" or "original",
//      "d_kv": 8, "rope_pairs": 4, "head_dim": 32, "rope": "2-norm", "svd": "joint",
//      "seq_len": 256, "parameters": 3000000, "cache_numbers_per_token": 256,
//      "original_cache_numbers_per_token": 2048, "tokens_per_step": 4096, "steps": 200,
//      "ranks": 2, "threads": 1, "products": "in bfloat16 by AMX",    // of the newest process
//      "original_valid_loss": 1.31,      // of the model before conversion, where it was measured
//      "original_validation_set": "5d1f08a3",    // and on what
//      "pretraining_tokens": 600000000,  // where the config knows them
//      "distill": {"steps": 200, "windows": 256, "window_len": 512,    // with local distillation:
//                  "tokens": 131072,            // that it reads,
//                  "trained_tokens": 819200},   // and that the steps of each layer train on
//      "exported_step": 200,             // that RUN/model is of, once it is exported
//      "validated_step": 200,            // the newest validation of the run that was exported
//      "resumed_steps": [100, 150],
//      "config": {...}, "config_changes": [...]}    // train/job/config_history.h
//
// Rank 0 alone reads and writes it.
#ifndef MHA2MLA_TRAIN_JOB_RUN_JSON_H
#define MHA2MLA_TRAIN_JOB_RUN_JSON_H

#include "train/config/config.h"
#include "train/job/config_history.h"
#include "train/job/run_dir.h"
#include "train/plan/plan.h"

typedef struct RunDescription {
    const Config *config;
    const Plan *plan;
    const ConfigHistory *history;
    double original_loss;       // NaN: not measured by this process
    const char *validation_set; // that it was measured on
} RunDescription;

// Writes it anew. A resumed run keeps the original model's loss and the list of resumed steps,
// which gets the step it resumes from.
Status run_json_write(const RunDir *dir, const RunDescription *description);

// Notes which step RUN/model is of, as it may be left from an earlier, shorter end of the run, and
// the step of the newest validation (-1: none): one after the last checkpoint is in no checkpoint.
Status run_json_set_exported(const RunDir *dir, int step, int valid_step);

// Whether RUN/model is there, of that step, and its numbers are of that type.
bool run_json_is_exported(const RunDir *dir, int step, DType dtype);

// Whether the run that was exported had been validated after that step.
bool run_json_is_validated(const RunDir *dir, int step);

// Whether the run has had that name, now or before it was renamed.
bool run_json_has_name(const RunDir *dir, const char *name);

#endif
