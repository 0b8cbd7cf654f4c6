// The oracle of infer/attention: see ref_attend.c.
#ifndef MHA2MLA_TESTS_REFERENCE_REF_ATTEND_H
#define MHA2MLA_TESTS_REFERENCE_REF_ATTEND_H

#include "infer/attention/attend.h"

// As attend(), with the up-projections as floats and plain loops.
void ref_attend(const AttendJob *jobs, int n_jobs, int layer, const ModelShape *shape,
                const float *up_k, // as attend() has them; MLA only
                const float *up_v, //
                int ld_q);

#endif
