// What a scores file is made of: whole-number attributes and arrays of numbers with checksums. For
// rope_scores.c and statistics_file.c, which share one file.
//
//     version 1   norms of RoPE pairs (rope_scores.h)
//     version 2   the same and the group /statistics (statistics_file.h)
#ifndef MHA2MLA_MODEL_CONVERT_SCORES_HDF5_H
#define MHA2MLA_MODEL_CONVERT_SCORES_HDF5_H

#include "model/convert/rope_scores.h"

#include <hdf5.h>

enum { SCORES_NORMS = 1, SCORES_STATISTICS = 2 }; // versions

enum {
    SCORES_MAX_DIMS = 3,
    SCORES_MAX_CHUNK = 1 << 20, // numbers that HDF5 writes or reads at a time
};

typedef struct ScoresDims {
    int n;
    int64_t dims[SCORES_MAX_DIMS];
} ScoresDims;

// Nothing in the file has times. < 0 if it fails.
hid_t scores_make_group(hid_t parent, const char *name);

// Writing: FAILED with HDF5's reason. Reading: BAD_INPUT if it is missing, of another kind or size,
// or damaged; then `out` may hold a part. `group` is a file or a group in it, `path` the file's.
Status scores_write_attribute(hid_t group, const char *path, const char *name, int64_t value);
Status scores_read_attribute(int64_t *out, hid_t group, const char *path, const char *name);
Status scores_write_doubles(hid_t group, const char *path, const char *name, const double *values,
                            const ScoresDims *dims);
Status scores_read_doubles(double *out, hid_t group, const char *path, const char *name,
                           const ScoresDims *dims);
Status scores_write_tokens(hid_t group, const char *path, const char *name, const int32_t *tokens,
                           const ScoresDims *dims);
Status scores_read_tokens(int32_t *out, hid_t group, const char *path, const char *name,
                          const ScoresDims *dims);

// The attributes and norms of a file of this version.
Status rope_scores_write_content(const RopeScores *scores, int version, hid_t file,
                                 const char *path);

#endif
