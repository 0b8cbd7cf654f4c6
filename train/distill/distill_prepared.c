#include "train/distill/distill_prepared.h"

#include "base/log.h"
#include "data/mixture.h"
#include "train/distill/distill.h"
#include "train/prepare.h"
#include "train/sample_windows.h"

#include <stdlib.h>

Status distill_dir(char out[PATH_BYTES], const char *run_dir)
{
    return file_join(out, run_dir, "distill");
}

static Status read_windows(int32_t **out, const Config *config, const char *tokenizer_sha256,
                           int vocab_size)
{
    const DataConfig *data = &config->data;
    Mixture *mixture = NULL;
    TRY(mixture_open(&mixture, data->sources, data->n_sources, data->seq_len,
                     (uint64_t)config->run.seed,
                     tokenizer_sha256[0] != '\0' ? tokenizer_sha256 : NULL, vocab_size));
    const Status status = sample_windows_read(out, mixture, config->distill.windows,
                                              config_distill_len(config), data->seq_len);
    mixture_close(mixture);
    return status;
}

static Status distill(Replica *mla, const Model *original, const Config *config, const Comm *comm,
                      const char *tokenizer_sha256, const char *run_dir)
{
    char dir[PATH_BYTES];
    int32_t *tokens = NULL;
    const double start_s = log_seconds();
    Status status = distill_dir(dir, run_dir);
    if (status == OK && comm->rank == 0)
        status = file_make_dirs(dir);
    if (status == OK)
        status = read_windows(&tokens, config, tokenizer_sha256, original->shape.vocab_size);
    TRY_GOTO(release, comm_agree(comm, status));
    const DistillRequest request = {.config = &config->distill,
                                    .tokens = tokens,
                                    .T = config_distill_len(config),
                                    .seed = (uint64_t)config->run.seed,
                                    .compute = config->train.compute,
                                    .state_dir = dir};
    TRY_GOTO(release, distill_run(mla, original, &request));
    log_info("distilled %d layers on %.2f M tokens: %.1f s", original->shape.n_layers,
             (double)distill_tokens(request.config, request.T) / 1e6, log_seconds() - start_s);
release:
    free(tokens);
    return status;
}

Status distill_prepared(Replica *mla, const Config *config, const Comm *comm, CommGroup *group,
                        const char *tokenizer_sha256, const char *run_dir)
{
    Replica original;
    TRY(prepare_original(&original, config, comm, group));
    const Status status = distill(mla, &original.model, config, comm, tokenizer_sha256, run_dir);
    replica_release(&original);
    return status;
}
