// mha2mla: converts Llama-family models to multi-head latent attention and heals them. A reader of
// the main job continues in train/cli/cmd_train.c.
#include "base/hdf5_error.h"
#include "train/cli/commands.h"

#include <fcntl.h>
#include <unistd.h>

// Started without one of the three standard descriptors, the program would give its number to the
// first file or socket it opens, which would then be read as text or get what is printed.
// Read-only, so that printing still fails.
static void fill_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= STDIN_FILENO && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        close(fd);
}

int main(int argc, char **argv)
{
    fill_standard_descriptors();
    hdf5_silence(); // our own error texts carry HDF5's reason
    return command_main(commands, argc, argv);
}
