// A training run small enough for a unit test: a model of two layers with random weights, and a
// shard of made-up tokens in a directory that all ranks share.
//
//     TestingRun run;
//     const char *const overrides[] = {"train.steps=2", NULL};
//     testing_run_config(&run, &comm, overrides);
//     testing_run_start(&run, NULL);              // weights, data, trainer
//     assert_ok(loop_run(&run.trainer));
//     testing_run_stop(&run);                     // the files stay: start it again from a
//     checkpoint testing_run_release(&run);
//
// All functions are collective.
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_RUN_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_RUN_H

#include "base/file.h"
#include "train/checkpoint/checkpoint.h"
#include "train/trainer.h"

// Three steps read each of the samples once.
enum {
    TESTING_RUN_T = 8,
    TESTING_RUN_BATCH = 8, // sequences of a step, a micro-batch each
    TESTING_RUN_STEPS = 3,
    TESTING_RUN_SAMPLES = TESTING_RUN_BATCH * TESTING_RUN_STEPS,
    TESTING_RUN_TOKENS = TESTING_RUN_SAMPLES * TESTING_RUN_T + 1,
    TESTING_RUN_VOCAB = 301,        // of the model
    TESTING_RUN_RARE = 300,         // a token of the model that the shard does not have
    TESTING_RUN_SHARD_VOCAB = 1000, // of the shard: it may hold tokens that the model does not know
};

typedef struct TestingRun {
    const Comm *comm;
    char dir[PATH_BYTES];   // of the run, for its checkpoints
    char shard[PATH_BYTES]; // train.h5
    Config config;
    CommGroup group;
    Metrics metrics; // closed: nothing is written
    Replica replica;
    Trainer trainer;
} TestingRun;

// The tokens of the shard, [TESTING_RUN_TOKENS], without TESTING_RUN_RARE.
void testing_run_tokens(int32_t *tokens);

// Makes the directory, writes the shard, and loads a config with `overrides` ("train.steps=2",
// closed by NULL).
void testing_run_config(TestingRun *out, const Comm *comm, const char *const *overrides);

// Writes the shard anew, with other tokens.
void testing_run_write_shard(const TestingRun *run, const int32_t *tokens);

// Starts a trainer: with random weights, or where the checkpoint is.
void testing_run_start(TestingRun *run, const Checkpoint *resumed);

void testing_run_stop(TestingRun *run);
void testing_run_release(TestingRun *run);

#endif
