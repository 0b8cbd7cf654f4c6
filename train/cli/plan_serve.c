// A directory is a model as it is; a config says what a run will export, from its base's
// config.json alone: nothing is converted and no weight is read.
#include "train/cli/plan_serve.h"

#include "model/hf/hf.h"
#include "train/agreement.h"
#include "train/config/config.h"
#include "train/plan/blas.h"
#include "train/plan/compute_check.h"
#include "train/plan/plan.h"
#include "train/plan/serve_plan.h"

#include <omp.h>
#include <unistd.h>

static const double GIB = 1024.0 * 1024.0 * 1024.0;

double plan_machine_gib(void)
{
    return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / GIB;
}

static Status read_config(ModelShape *shape, DType *dtype, const CommandLine *line)
{
    Config config = {0};
    Status status;
    ModelShape original;
    TRY_GOTO(release, config_load(&config, line->words[0], line->overrides, line->n_overrides));
    const ModelConfig *model = &config.model;
    const ConvertConfig *convert = &model->convert;
    original = model->init.shape;
    if (!model->init.given)
        TRY_GOTO(release, hf_load_shape(&original, model->base));
    *shape = original;
    *dtype = config.run.export_dtype;
    if (convert->given)
        TRY_GOTO(release, convert_target_shape(shape, &original, &convert->target));
    shape_set_healed(shape, config.data.seq_len);
release:
    config_release(&config);
    return status;
}

// Weights in a dtype that is not supported, or in several, are widened to float32 by whoever reads
// them.
static Status read_model(ModelShape *shape, DType *dtype, const CommandLine *line)
{
    const char *path = line->words[0];
    if (!file_is_dir(path))
        return read_config(shape, dtype, line);
    if (line->n_overrides > 0)
        return fail(BAD_INPUT, "%s: is a model's directory, and %s is for a config", path,
                    line->overrides[0]);
    TRY(hf_load_shape(shape, path));
    return hf_weights_dtype(dtype, path);
}

static Status make_plan(ServePlan *out, const PlanServeRequest *request, const CommandLine *line)
{
    const double memory_gib = request->memory_gib > 0 ? request->memory_gib : plan_machine_gib();
    ServePlan plan = {.model = line->words[0],
                      .efficiency = request->efficiency,
                      .is_memory_given = request->memory_gib > 0,
                      .is_rate_given = request->rates.product_flops > 0,
                      .is_attention_given = request->rates.attention_flops > 0,
                      .is_reading_given = request->rates.read_bytes > 0};
    ServeLoad *load = &plan.load;
    TRY(read_model(&plan.shape, &load->dtype, line));
    load->compute = request->compute;
    if (request->compute == COMPUTE_BFLOAT16)
        load->dtype = DTYPE_BF16; // as infer/weights.h has them
    load->context = request->context > 0 ? (int)request->context : shape_longest(&plan.shape);
    load->batch = (int)request->batch;
    load->n_threads = (int)request->n_threads;
    load->memory_bytes = (int64_t)(memory_gib * GIB);
    TRY(serve_plan_check(&plan));
    blas_warm_up_threads();
    load->process_bytes = plan_resident_bytes();
    *out = plan;
    return OK;
}

// A given rate of bfloat16 is another machine's, whatever this one can.
static Status check_compute(const PlanServeRequest *request, const Comm *comm)
{
    if (request->compute == COMPUTE_BFLOAT16 && request->rates.product_flops > 0)
        return OK;
    return compute_check(comm, request->compute, request->emulate, "--compute");
}

Status plan_serve(const PlanServeRequest *request, const CommandLine *line)
{
    const Comm *comm = line->comm;
    ServePlan plan = {0};
    Rates rates = request->rates;
    TRY(blas_check(comm));
    TRY(check_compute(request, comm));
    omp_set_num_threads((int)request->n_threads);
    const Status status = make_plan(&plan, request, line);
    TRY(agreement_shapes(comm, &plan.shape, &plan.shape, status));
    TRY(rates_measure_serving(&rates, comm, request->compute));
    if (comm->rank == 0)
        serve_plan_print(stdout, &plan, &rates);
    return OK;
}
