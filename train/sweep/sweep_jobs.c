// What is printed and what is run are the same lines: the shell reads them from a pipe.
#include "train/sweep/sweep_jobs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

// The job scripts below the working directory, or else those that belong to the program: where
// `cmake --install` puts them, or in the source tree above build/PRESET.
Status sweep_jobs_find(SweepJobs *out)
{
    out->emulate = false;
    static const char *const beside[] = {"../share/mha2mla/slurm", "../../slurm"};
    if (realpath("/proc/self/exe", out->program) == NULL)
        return fail(FAILED, "sweep: /proc/self/exe: %s", strerror(errno));
    if (file_exists("slurm/sweep.sbatch")) {
        snprintf(out->scripts, sizeof out->scripts, "slurm");
        return OK;
    }
    const int dir_bytes = (int)(strrchr(out->program, '/') - out->program);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        char script[PATH_BYTES + 64];
        snprintf(script, sizeof script, "%.*s/%s/sweep.sbatch", dir_bytes, out->program, beside[i]);
        if (realpath(script, out->scripts) != NULL) {
            *strrchr(out->scripts, '/') = '\0';
            return OK;
        }
    }
    return fail(BAD_INPUT,
                "sweep: no slurm/sweep.sbatch, seen from the working directory, and none that "
                "belongs to %s; copy the project's folder slurm here",
                out->program);
}

// Writes a word in the quotes that a shell needs to read it back, behind a part that needs none.
static void write_word(FILE *out, const char *before, const char *word)
{
    fprintf(out, " %s", before);
    if (word[0] != '\0' && word[strcspn(word, " \t\n'\"\\$`!*?[](){}<>|&;~#")] == '\0') {
        fputs(word, out);
        return;
    }
    fputc('\'', out);
    for (; *word != '\0'; word++) {
        if (*word == '\'')
            fputs("'\\''", out);
        else
            fputc(*word, out);
    }
    fputc('\'', out);
}

// The path of a job script, quoted.
static void write_script(FILE *out, const SweepJobs *jobs, const char *name)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", jobs->scripts, name);
    write_word(out, "", path);
}

// The values of d_kv are words of their own there, and were checked to be digits.
static void write_axes(FILE *out, const SweepRequest *request)
{
    if (request->d_kvs != NULL)
        fputc(' ', out);
    for (const char *c = request->d_kvs; c != NULL && *c != '\0'; c++)
        fputc(*c == ',' ? ' ' : *c, out);
    for (int i = 0; i < request->n_vary; i++)
        write_word(out, "--vary=", request->vary[i]);
}

// MHA2MLA names the program to the job scripts, unless the user has set it.
void sweep_jobs_write(FILE *out, const SweepJobs *jobs, const Sweep *sweep)
{
    const SweepRequest *request = &sweep->request;
    if (getenv("MHA2MLA") == NULL) {
        fputs("export", out);
        write_word(out, "MHA2MLA=", jobs->program);
        fputc('\n', out);
    }
    fprintf(out, "sweep=$(sbatch --parsable --array=%d-%d", sweep->runs[0].task,
            sweep->runs[sweep->n_runs - 1].task);
    write_script(out, jobs, "sweep.sbatch");
    write_word(out, "", request->config);
    write_axes(out, request);
    for (int i = 0; i < request->n_overrides; i++)
        write_word(out, "", request->overrides[i]);
    if (jobs->emulate)
        fputs(" --emulate", out);
    fputs(")\nsbatch --dependency=afterok:${sweep%%;*} --kill-on-invalid-dep=yes", out);
    write_script(out, jobs, "compare.sbatch");
    for (int i = 0; i < sweep->n_runs; i++)
        write_word(out, "", sweep->runs[i].dir);
    fputs(" --out", out);
    write_word(out, "", sweep->out);
    fputc('\n', out);
}

// -e stops the shell at the first sbatch that fails.
Status sweep_jobs_submit(const SweepJobs *jobs, const Sweep *sweep)
{
    fflush(stdout);
    FILE *shell = popen("/bin/sh -eu", "w");
    if (shell == NULL)
        return fail(FAILED, "sweep: no shell to submit with");
    sweep_jobs_write(shell, jobs, sweep);
    if (pclose(shell) != 0)
        return fail(FAILED, "sweep: the commands above failed; submit on a machine with Slurm");
    return OK;
}
