// The oracle of infer/attention: see ref_attend.c.
#ifndef MHA2MLA_TESTS_REFERENCE_REF_ATTEND_H
#define MHA2MLA_TESTS_REFERENCE_REF_ATTEND_H

#include "infer/attention/attend.h"

// As attend(), with the up-projections as floats and plain loops.
void ref_attend(const AttendJob *jobs, int n_jobs, int layer, const ModelShape *shape,
                const float *up_k, // [K (E - 2P), R or R/2]; MLA only
                const float *up_v, // [K E, R or R/2]; MLA only
                int ld_q);

#endif
