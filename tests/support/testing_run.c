#include "tests/support/testing_run.h"

#include "tests/support/testing.h"

#include "base/log.h"
#include "data/shards/shard.h"
#include "train/prepare.h"

#include <stdio.h>
#include <string.h>

void testing_run_tokens(int32_t *tokens)
{
    for (int i = 0; i < TESTING_RUN_TOKENS; i++)
        tokens[i] = (i * i + 7 * i) % TESTING_RUN_RARE;
}

void testing_run_write_shard(const TestingRun *run, const int32_t *tokens)
{
    double written = 0;
    if (run->comm->rank == 0) {
        ShardInfo info = {.vocab_size = TESTING_RUN_SHARD_VOCAB, .eos_id = -1};
        ShardWriter *writer;
        memset(info.tokenizer_sha256, 'a', SHA256_HEX_BYTES - 1);
        assert_ok(shard_create(&writer, run->shard, &info));
        assert_ok(shard_append(writer, tokens, TESTING_RUN_TOKENS));
        assert_ok(shard_finish(writer));
    }
    comm_sum_doubles(run->comm, &written, 1); // no rank reads before it is there
}

static void write_config(const TestingRun *run, const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file,
            "run: {name: tiny, dir: '%s'}\n"
            "model:\n"
            "  init: {hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2,\n"
            "         num_attention_heads: 6, num_key_value_heads: 2, head_dim: 8,\n"
            "         vocab_size: %d, max_position_embeddings: 16, initializer_range: 0.05,\n"
            "         tie_word_embeddings: false}\n"
            "data:\n"
            "  seq_len: %d\n"
            "  sources: [{name: made-up, shards: ['%s']}]\n"
            "optim: {lr: 1.0e-2, warmup_steps: 1}\n"
            "train: {steps: %d, global_batch: %d, micro_batch: 1}\n"
            "checkpoint: {every: 0}\n",
            run->dir, TESTING_RUN_VOCAB, TESTING_RUN_T, run->shard, TESTING_RUN_STEPS,
            TESTING_RUN_BATCH);
    assert_int_equal(fclose(file), 0);
}

void testing_run_config(TestingRun *out, const Comm *comm, const char *const *overrides)
{
    char path[PATH_BYTES], given[8][128];
    char *pointers[8];
    int32_t tokens[TESTING_RUN_TOKENS];
    int n_given = 0;
    *out = (TestingRun){.comm = comm};
    if (comm->rank == 0)
        strcpy(out->dir, testing_dir());
    comm_broadcast(comm, out->dir, sizeof out->dir, 0);
    assert_ok(file_join(out->shard, out->dir, "train.h5"));
    assert_ok(file_join(path, out->dir, "config.yaml"));
    testing_run_tokens(tokens);
    if (comm->rank == 0)
        write_config(out, path);
    testing_run_write_shard(out, tokens);
    for (; overrides[n_given] != NULL; n_given++) {
        assert_true(n_given < 8);
        snprintf(given[n_given], sizeof given[n_given], "--%s", overrides[n_given]);
        pointers[n_given] = given[n_given];
    }
    assert_ok(config_load(&out->config, path, pointers, n_given));
    log_set_quiet(true); // says why ranks do not share parameters
    assert_ok(comm_group_start(&out->group, comm, out->config.train.ranks_per_copy));
}

void testing_run_start(TestingRun *run, const Checkpoint *resumed)
{
    const TrainerContext context = {.config = &run->config,
                                    .comm = run->comm,
                                    .run_dir = run->dir,
                                    .tokenizer_sha256 = "",
                                    .metrics = &run->metrics};
    if (resumed == NULL)
        assert_ok(prepare_original(&run->replica, &run->config, run->comm, &run->group));
    else
        assert_ok(replica_create(&run->replica, run->comm, &run->group, &resumed->manifest.shape));
    if (resumed != NULL)
        checkpoint_copy_pairs(&run->replica.model, resumed);
    assert_ok(trainer_start(&run->trainer, &context, &run->replica, resumed));
}

void testing_run_stop(TestingRun *run)
{
    trainer_release(&run->trainer);
    replica_release(&run->replica);
}

void testing_run_release(TestingRun *run)
{
    comm_group_end(&run->group);
    config_release(&run->config);
}
