// Runs a command on a rank and writes the most memory that it had, in KiB as the kernel counts it,
// to high.RANK. For tests/program/memory.sh, which compiles it in its own folder.
//
//     watched COMMAND [ARGUMENT...]
#define _GNU_SOURCE // wait4
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int n_words, char **words)
{
    int status;
    struct rusage usage;
    char name[32];
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    const pid_t child = n_words > 1 && rank != NULL ? fork() : -1;
    if (child == 0) {
        execv(words[1], words + 1);
        _exit(127);
    }
    if (child < 0 || wait4(child, &status, 0, &usage) != child)
        return 126;
    snprintf(name, sizeof name, "high.%.8s", rank);
    FILE *file = fopen(name, "w");
    if (file == NULL || fprintf(file, "%ld\n", usage.ru_maxrss) < 0 || fclose(file) != 0)
        return 126;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
