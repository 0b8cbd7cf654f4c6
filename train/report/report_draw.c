// Runs gnuplot on a script, without a shell, as directories may have any name. The pictures appear
// under temporary names, so that a failed or killed gnuplot leaves the older ones as they were.
#define _GNU_SOURCE
#include "base/file.h"
#include "base/temporary.h"
#include "train/report/report.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { OUTPUT_BYTES = 1024 };

enum { SVG, PNG, N_PICTURES };

// Names of a script's files are short: "curves", "scores".
enum { FILE_BYTES = 32 };

static const char *const endings[N_PICTURES] = {".svg", ".png"};

// DIR/NAME.ENDING.
static Status join(char out[PATH_BYTES], const char *dir, const char *name, const char *ending)
{
    char file[FILE_BYTES];
    snprintf(file, sizeof file, "%s%s", name, ending);
    return file_join(out, dir, file);
}

// The temporary files that gnuplot draws to.
typedef struct Pictures {
    char paths[N_PICTURES][PATH_BYTES];
    int n_made;
} Pictures;

static Status pictures_make(Pictures *out, const char *dir, const char *name)
{
    for (int i = 0; i < N_PICTURES; i++) {
        char path[PATH_BYTES];
        TRY(join(path, dir, name, endings[i]));
        TRY(temporary_make(out->paths[i], path));
        out->n_made++;
    }
    return OK;
}

static void pictures_remove(const Pictures *pictures)
{
    for (int i = 0; i < pictures->n_made; i++)
        unlink(pictures->paths[i]);
}

// Starts `gnuplot NAME.gp` in the directory; its output and errors go to `output_fd`. The names
// of temporary files need no quoting.
static int start_gnuplot(pid_t *pid, const char *dir, const char *name, const Pictures *pictures,
                         int output_fd)
{
    char names[2 * NAME_MAX + 64], script[FILE_BYTES];
    snprintf(script, sizeof script, "%s.gp", name);
    snprintf(names, sizeof names, "SVG = '%s'; PNG = '%s'", strrchr(pictures->paths[SVG], '/') + 1,
             strrchr(pictures->paths[PNG], '/') + 1);
    char *const words[] = {(char[]){"gnuplot"},
                           (char[]){"--default-settings"}, // the user's ~/.gnuplot is not read
                           (char[]){"-e"},
                           names,
                           script,
                           NULL};
    posix_spawn_file_actions_t actions;
    int error = posix_spawn_file_actions_init(&actions);
    if (error != 0)
        return error;
    error = posix_spawn_file_actions_addchdir_np(&actions, dir);
    if (error == 0)
        error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (error == 0)
        error = posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
    if (error == 0)
        error = posix_spawn_file_actions_adddup2(&actions, output_fd, STDERR_FILENO);
    if (error == 0)
        error = posix_spawnp(pid, words[0], &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

// Keeps the first OUTPUT_BYTES - 1 bytes of gnuplot's output as one line for the error message. The
// rest is read, too: a full pipe would stop gnuplot.
static void read_output(char output[OUTPUT_BYTES], int fd)
{
    char buffer[512];
    int n = 0;
    for (;;) {
        ssize_t got = read(fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got; i++) {
            bool is_space = (unsigned char)buffer[i] <= ' ';
            if (n < OUTPUT_BYTES - 1 && !(is_space && (n == 0 || output[n - 1] == ' ')))
                output[n++] = is_space ? ' ' : buffer[i];
        }
    }
    output[n] = '\0';
}

// posix_spawnp() returns ENOENT itself where gnuplot is not in PATH (glibc since 2.24), so the two
// errors can be told apart.
static Status run_gnuplot(const char *dir, const char *name, const Pictures *pictures)
{
    int ends[2], wait_status = 0;
    char output[OUTPUT_BYTES];
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail(FAILED, "gnuplot: no pipe: %s", strerror(errno));
    int error = start_gnuplot(&pid, dir, name, pictures, ends[1]);
    close(ends[1]); // so that reading ends when gnuplot does
    if (error == 0)
        read_output(output, ends[0]);
    close(ends[0]);
    if (error == ENOENT)
        return fail(FAILED,
                    "gnuplot: not found, so %s has no %s.svg and %s.png; the other files "
                    "are written; install gnuplot-nox and run gnuplot %s.gp there",
                    dir, name, name, name);
    if (error != 0)
        return fail(FAILED, "gnuplot: cannot be started: %s", strerror(error));
    while (waitpid(pid, &wait_status, 0) < 0)
        if (errno != EINTR)
            return fail(FAILED, "gnuplot: %s", strerror(errno));
    if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0)
        return fail(FAILED, "%s/%s.gp: gnuplot failed: %.900s", dir, name, output);
    return OK;
}

// Pictures are published only where gnuplot has ended well; otherwise the older ones stay.
Status report_draw(const char *dir, const char *name)
{
    Pictures pictures = {.n_made = 0};
    Status status;
    TRY_GOTO(remove_pictures, pictures_make(&pictures, dir, name));
    TRY_GOTO(remove_pictures, run_gnuplot(dir, name, &pictures));
    for (int i = 0; i < N_PICTURES; i++) {
        char path[PATH_BYTES];
        TRY_GOTO(remove_pictures, join(path, dir, name, endings[i]));
        TRY_GOTO(remove_pictures, file_publish(pictures.paths[i], path));
    }
    return OK;
remove_pictures:
    pictures_remove(&pictures);
    return status;
}
