// Two passes over the windows instead of keeping what their heads give: the first finds the scales
// that make sums exact (model/convert/exact_sum.h), the second sums.
#include "train/distill/output_fit.h"

#include "model/convert/refit/ridge.h"
#include "train/stop.h"

#include <math.h>
#include <string.h>

static const double RIDGE = 3e-4;

static const float *window_of_stream(const LayerTrainer *trainer, const float *stream, int own)
{
    return stream + (int64_t)own * trainer->settings.T * trainer->student.shape.d_model;
}

// Heads' outputs and targets of a window.
static void read_window(LayerTrainer *trainer, const LayerData *data, int own)
{
    const int Q = shape_dim(&trainer->student.shape, DIM_Q), D = trainer->student.shape.d_model;
    const int T = trainer->settings.T;
    const float *wanted = window_of_stream(trainer, data->targets, own);
    const Rows heads =
        student_heads(&trainer->student, window_of_stream(trainer, data->inputs, own));
    for (int64_t t = 0; t < T; t++) {
        const double root = sqrt((double)data->weights[(int64_t)own * T + t]);
        dtype_widen(trainer->row, rows_at(heads, t, 0).data, heads.dtype, Q);
        for (int i = 0; i < Q; i++)
            trainer->heads[t * Q + i] = root * (double)trainer->row[i];
        for (int i = 0; i < D; i++)
            trainer->wanted[t * D + i] = root * (double)wanted[t * D + i];
    }
}

static Status measure(LayerTrainer *trainer, const LayerData *data)
{
    const int Q = shape_dim(&trainer->student.shape, DIM_Q), D = trainer->student.shape.d_model;
    memset(trainer->largest, 0, (size_t)(Q + D) * sizeof(double));
    for (int own = 0; own < trainer->share.n_own; own++) {
        TRY(stop_check());
        progress_beat();
        read_window(trainer, data, own);
        exact_largest(trainer->largest, trainer->heads, trainer->settings.T, Q);
        exact_largest(trainer->largest + Q, trainer->wanted, trainer->settings.T, D);
    }
    return OK;
}

static Status sum_products(LayerTrainer *trainer, const LayerData *data)
{
    const int Q = shape_dim(&trainer->student.shape, DIM_Q), D = trainer->student.shape.d_model;
    const int T = trainer->settings.T;
    const double quantum = exact_quantum((double)trainer->settings.n_windows * T);
    const ExactTarget gram = {trainer->gram, 1.0}, moment = {trainer->moment, 1.0};
    memset(trainer->gram, 0, (size_t)Q * (size_t)Q * sizeof(double));
    memset(trainer->moment, 0, (size_t)Q * (size_t)D * sizeof(double));
    for (int own = 0; own < trainer->share.n_own; own++) {
        TRY(stop_check());
        progress_beat();
        read_window(trainer, data, own);
        exact_scale(trainer->heads, trainer->largest, T, Q);
        exact_scale(trainer->wanted, trainer->largest + Q, T, D);
        exact_add_product(&gram, 1, trainer->heads, trainer->heads, Q, Q, T, quantum, false,
                          trainer->tiles);
        exact_add_product(&moment, 1, trainer->heads, trainer->wanted, Q, D, T, quantum, false,
                          trainer->tiles);
    }
    return OK;
}

// The losses before and after the fit follow from the sums: |O W^T - Y|^2 over |Y|^2.
static Status solve(LayerTrainer *trainer, const LayerData *data)
{
    const int Q = shape_dim(&trainer->student.shape, DIM_Q), D = trainer->student.shape.d_model;
    const double squares =
        data->mean_square * trainer->settings.n_windows * trainer->settings.T * D;
    double excess[2];
    exact_unscale(trainer->gram, trainer->largest, trainer->largest, Q, Q);
    exact_unscale(trainer->moment, trainer->largest, trainer->largest + Q, Q, D);
    TRY(ridge_fit(trainer->student.weights.o, trainer->gram, trainer->moment, RIDGE, D, Q, excess));
    trainer->losses.trained = 1 + excess[0] / squares;
    trainer->losses.fitted = 1 + excess[1] / squares;
    return OK;
}

// One rank solves and sends the result, so that all have the same bits.
Status output_fit(LayerTrainer *trainer, int layer, const LayerData *data)
{
    const ModelShape *s = &trainer->student.shape;
    const Comm *team = trainer->team;
    const int Q = shape_dim(s, DIM_Q), D = s->d_model, owner = layer % team->size;
    float *o = trainer->student.weights.o;
    TRY(comm_agree(team, measure(trainer, data)));
    comm_max_doubles(team, trainer->largest, Q + D);
    TRY(comm_agree(team, sum_products(trainer, data)));
    comm_sum_doubles(team, trainer->gram, (int64_t)Q * Q);
    comm_sum_doubles(team, trainer->moment, (int64_t)Q * D);
    const Status status = team->rank == owner ? solve(trainer, data) : OK;
    TRY(comm_agree(team, status == OK ? OK : fail_within(status, "layer %d", layer)));
    comm_broadcast(team, o, (int64_t)D * Q * (int64_t)sizeof *o, owner);
    comm_broadcast(team, &trainer->losses, sizeof trainer->losses, owner);
    return OK;
}
