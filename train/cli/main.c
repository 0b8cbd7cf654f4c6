// mha2mla: converts Llama-family models to multi-head latent attention and heals them. A reader of
// the main job continues in train/cli/cmd_train.c.
#include "base/hdf5_error.h"
#include "train/cli/commands.h"

int main(int argc, char **argv)
{
    hdf5_silence(); // our own error texts carry HDF5's reason
    return command_main(commands, argc, argv);
}
