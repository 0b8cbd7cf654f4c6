#include "tests/support/testing_statistics.h"

#include "tests/support/testing.h"

#include "model/convert/statistics_file.h"

#include <stdio.h>
#include <stdlib.h>

int32_t *testing_read_tokens(const SafeTensors *file, const char *name, int *n, int *T)
{
    const TensorInfo *info = safetensors_find(file, name);
    assert_non_null(info);
    *n = (int)info->dims[0];
    *T = (int)info->dims[1];
    int32_t *tokens = malloc((size_t)(*n * *T) * sizeof *tokens);
    assert_non_null(tokens);
    assert_ok(safetensors_read_i32(file, name, (int[]){*n, *T}, 2, tokens));
    return tokens;
}

// The writer of rank 0; the others have none.
static Status add_layer(void *writer, int layer, const LayerStatistics *statistics)
{
    return writer != NULL ? statistics_writer_add(writer, layer, statistics) : OK;
}

void testing_write_statistics(char path[PATH_BYTES], const Comm *comm, const Model *model,
                              const StatisticsRequest *request)
{
    const ModelShape *shape = &model->shape;
    const StatisticsInfo info = {statistics_n_pools(shape, request->pool), request->n_windows,
                                 request->n_attention, request->T};
    const bool is_writer = comm->rank == 0;
    RopeScores norms;
    StatisticsWriter writer;
    snprintf(path, PATH_BYTES, "%s", testing_path(testing_dir(), "scores.h5"));
    comm_broadcast(comm, path, PATH_BYTES, 0);
    assert_ok(rope_scores_create(&norms, shape));
    *norms.n_tokens = 1;
    if (is_writer)
        assert_ok(statistics_writer_open(&writer, &norms, &info, request->tokens, path));
    assert_ok(calibrate_statistics(request, comm, model, add_layer, is_writer ? &writer : NULL));
    if (is_writer)
        assert_ok(statistics_writer_publish(&writer));
    assert_ok(comm_agree(comm, OK));
    rope_scores_release(&norms);
}
