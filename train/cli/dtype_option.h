// The option --dtype of commands that make a model of one in a directory: without it the weights
// keep their number format, so that a model in bfloat16 does not double in size.
//
//     typedef struct MakeOptions { int dtype; ... } MakeOptions;    // a DType, or DTYPE_OF_MODEL
//     TRY(dtype_option(&dtype, options->dtype, dir));
#ifndef MHA2MLA_TRAIN_CLI_DTYPE_OPTION_H
#define MHA2MLA_TRAIN_CLI_DTYPE_OPTION_H

#include "model/hf/hf.h"

enum { DTYPE_OF_MODEL = -1 };

// Errors of hf_saved_dtype().
static inline Status dtype_option(DType *out, int given, const char *dir)
{
    if (given == DTYPE_OF_MODEL)
        return hf_saved_dtype(out, dir);
    *out = (DType)given;
    return OK;
}

#endif
