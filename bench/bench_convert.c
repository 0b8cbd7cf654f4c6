// What happens before a run's first step, part by part, for one rank:
//
//     bench_convert factorize [M N R [ROUNDS]]         the SVD of a layer (default: Llama-2-7B's)
//     bench_convert calibrate [T [ROUNDS]]             forward with and without RoPE statistics, of
//                                                      SmolLM-135M's shape and random weights
//     bench_convert load DIR [ROUNDS]                  loading a model beside reading its files,
//                                                      warm and cold
//
// Medians. One thread is timed by the CPU time it got, so that what else the machine runs is left
// out; several threads, and loading, by the wall clock. bench_convert.sh sets `factorize` beside
// PyTorch.
#define _GNU_SOURCE
#include "base/random.h"
#include "bench/timing.h"
#include "eval/forward_pass.h"
#include "model/convert/factorize.h"
#include "model/hf/hf.h"
#include "model/hf/hf_weights.h"

#include <fcntl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ROUNDS = 99, BUFFER_BYTES = 1 << 20 };

static const ModelShape smollm_135m = {.n_layers = 30,
                                       .d_model = 576,
                                       .n_heads = 9,
                                       .n_kv_heads = 3,
                                       .head_dim = 64,
                                       .d_ffn = 1536,
                                       .vocab_size = 49152,
                                       .max_positions = 1 << 20,
                                       .rope_pairs = 32,
                                       .tied_head = true,
                                       .rope_theta = 1e4,
                                       .rms_eps = 1e-5};

// CPU time of the process would count all threads together, so several are timed by the wall clock.
static double now_s(void)
{
    return timing_seconds(omp_get_max_threads() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC);
}

// Normally distributed numbers: a flat spectrum, on which iterative solvers converge slowest.
static Status bench_factorize(int m, int n, int R, int rounds)
{
    double seconds[MAX_ROUNDS];
    const int64_t count = (int64_t)m * n;
    const uint64_t key = random_key(1, "bench");
    float *a = malloc((size_t)count * sizeof *a), *up = malloc((size_t)m * (size_t)R * sizeof *up),
          *down = malloc((size_t)n * (size_t)R * sizeof *down);
    Status status = OK;
    if (a == NULL || up == NULL || down == NULL) {
        status = fail(FAILED, "no memory for a %d x %d matrix", m, n);
        goto release;
    }
    for (int64_t i = 0; i < count; i++)
        a[i] = (float)(0.02 * random_normal(key, (uint64_t)i));
    for (int i = 0; i < rounds; i++) {
        double start_s = now_s();
        TRY_GOTO(release, factorize(up, down, a, m, n, R));
        seconds[i] = now_s() - start_s;
    }
    printf("%.2f s, rank %d of %d x %d\n", timing_median(seconds, rounds), R, m, n);
release:
    free(a);
    free(up);
    free(down);
    return status;
}

// How much the statistics add to a forward pass of SmolLM-135M's shape.
static Status bench_calibrate(int T, int rounds)
{
    double with_s[MAX_ROUNDS], without_s[MAX_ROUNDS], share[MAX_ROUNDS];
    Model model;
    RopeScores scores = {0};
    ForwardPass pass = {0};
    Status status;
    TRY(model_create(&model, &smollm_135m));
    model_init_random(&model, 0.02, 1);
    TRY_GOTO(release, rope_scores_create(&scores, &model.shape));
    TRY_GOTO(release, forward_pass_start(&pass, &model, T, COMPUTE_FLOAT32));
    for (int t = 0; t < T; t++)
        pass.batch.inputs[t] =
            (int32_t)(random_bits(1, (uint64_t)t) % (uint64_t)model.shape.vocab_size);
    transformer_forward(&pass.ws, &model, pass.batch.inputs, NULL); // pages, threads
    for (int i = 0; i < rounds; i++) {
        double start_s = now_s();
        transformer_forward(&pass.ws, &model, pass.batch.inputs, NULL);
        double middle_s = now_s();
        transformer_forward(&pass.ws, &model, pass.batch.inputs, &scores);
        without_s[i] = middle_s - start_s;
        with_s[i] = now_s() - middle_s;
        // The statistics alone, as the difference of two forwards is noise.
        start_s = now_s();
        for (int l = 0; l < model.shape.n_layers; l++)
            rope_scores_add(&scores, l, pass.ws.layers[l].attention.qkv, T);
        share[i] = (now_s() - start_s) / without_s[i];
    }
    double forward_s = timing_median(without_s, rounds);
    printf(
        "forward %.2f s (%.0f tokens/s), with statistics %.2f s; these alone are %.2f %% of it\n",
        forward_s, T / forward_s, timing_median(with_s, rounds),
        100 * timing_median(share, rounds));
release:
    forward_pass_release(&pass);
    rope_scores_release(&scores);
    model_release(&model);
    return status;
}

// Reads every byte of a file, or has it leave the page cache instead.
static Status read_file(const char *path, bool forget, char *buffer, int64_t *n_bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(FAILED, "%s: cannot be opened", path);
    ssize_t n = forget ? posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) : 1;
    while (!forget && n > 0) {
        n = read(fd, buffer, BUFFER_BYTES);
        *n_bytes += n > 0 ? n : 0;
    }
    close(fd);
    return n == 0 ? OK : fail(FAILED, "%s: cannot be read", path);
}

// Reads what loading has to read at least, as a lower bound of its time; `forget` drops it instead.
static Status read_files(const char *dir, bool forget, char *buffer, int64_t *n_bytes)
{
    HfWeights weights;
    Status status = OK;
    TRY(hf_weights_open(&weights, dir));
    *n_bytes = 0;
    for (int i = 0; i < weights.n_files; i++)
        TRY_GOTO(close_weights, read_file(weights.files[i].path, forget, buffer, n_bytes));
close_weights:
    hf_weights_close(&weights);
    return status;
}

// Cold rounds ask the kernel to drop the files from its page cache (POSIX_FADV_DONTNEED), which it
// does for pages that are not dirty or mapped.
static Status time_load(const char *dir, bool is_cold, int rounds, char *buffer)
{
    double read_s[MAX_ROUNDS], load_s[MAX_ROUNDS], cpu_s[MAX_ROUNDS];
    int64_t n_bytes = 0, unused;
    for (int i = 0; i < rounds; i++) {
        Model model;
        if (is_cold)
            TRY(read_files(dir, true, buffer, &unused));
        double start_s = timing_seconds(CLOCK_MONOTONIC);
        TRY(read_files(dir, false, buffer, &n_bytes));
        read_s[i] = timing_seconds(CLOCK_MONOTONIC) - start_s;
        if (is_cold)
            TRY(read_files(dir, true, buffer, &unused));
        start_s = timing_seconds(CLOCK_MONOTONIC);
        double start_cpu_s = timing_seconds(CLOCK_PROCESS_CPUTIME_ID);
        TRY(hf_load(&model, dir));
        load_s[i] = timing_seconds(CLOCK_MONOTONIC) - start_s;
        cpu_s[i] = timing_seconds(CLOCK_PROCESS_CPUTIME_ID) - start_cpu_s;
        model_release(&model);
    }
    double read = timing_median(read_s, rounds), load = timing_median(load_s, rounds);
    printf("%s: reading %.0f MB %.3f s (%.2f GB/s), loading %.3f s (%.2f GB/s), %.3f s of it CPU\n",
           is_cold ? "cold" : "warm", 1e-6 * (double)n_bytes, read, 1e-9 * (double)n_bytes / read,
           load, 1e-9 * (double)n_bytes / load, timing_median(cpu_s, rounds));
    return OK;
}

// Cold first: the warm rounds need the pages that it reads.
static Status bench_load(const char *dir, int rounds)
{
    char *buffer = malloc(BUFFER_BYTES);
    if (buffer == NULL)
        return fail(FAILED, "no memory for a buffer");
    Status status;
    TRY_GOTO(free_buffer, time_load(dir, true, rounds, buffer));
    TRY_GOTO(free_buffer, time_load(dir, false, rounds, buffer));
free_buffer:
    free(buffer);
    return status;
}

enum { MAX_SIDE = 32768, MAX_TOKENS = 65536 };

// *value = argument i, if there is one.
static Status read_number(int *value, int argc, char **argv, int i, const char *name, int max)
{
    if (i >= argc)
        return OK;
    char *end;
    const long number = strtol(argv[i], &end, 10);
    if (end == argv[i] || *end != '\0' || number < 1 || number > max)
        return fail(BAD_INPUT, "%s is '%s', allowed are 1 to %d", name, argv[i], max);
    *value = (int)number;
    return OK;
}

static Status run(int argc, char **argv)
{
    const char *part = argc > 1 ? argv[1] : "";
    int m = 7680, n = 4096, R = 512, T = 2048, rounds = 3;
    if (strcmp(part, "factorize") == 0 && argc <= 6) {
        TRY(read_number(&m, argc, argv, 2, "M", MAX_SIDE));
        TRY(read_number(&n, argc, argv, 3, "N", MAX_SIDE));
        TRY(read_number(&R, argc, argv, 4, "R", m < n ? m : n));
        TRY(read_number(&rounds, argc, argv, 5, "ROUNDS", MAX_ROUNDS));
        return bench_factorize(m, n, R, rounds);
    }
    if (strcmp(part, "calibrate") == 0 && argc <= 4) {
        TRY(read_number(&T, argc, argv, 2, "T", MAX_TOKENS));
        TRY(read_number(&rounds, argc, argv, 3, "ROUNDS", MAX_ROUNDS));
        return bench_calibrate(T, rounds);
    }
    if (strcmp(part, "load") == 0 && argc >= 3 && argc <= 4) {
        TRY(read_number(&rounds, argc, argv, 3, "ROUNDS", MAX_ROUNDS));
        return bench_load(argv[2], rounds);
    }
    return fail(BAD_INPUT,
                "usage: bench_convert factorize [M N R [ROUNDS]] | calibrate [T [ROUNDS]] "
                "| load DIR [ROUNDS]");
}

int main(int argc, char **argv)
{
    const Status status = run(argc, argv);
    if (status != OK)
        fprintf(stderr, "bench_convert: %s\n", fail_text());
    return (int)status;
}
