// Channels of a quantized block (KV_CODES) as floats, for AVX-512: 64 codes of a channel are a few
// bytes, widened, scaled and shifted in registers. Private to infer/attention.
#ifndef MHA2MLA_INFER_ATTENTION_ATTEND_CODES_H
#define MHA2MLA_INFER_ATTENTION_ATTEND_CODES_H

#include "infer/cache/kv_codes.h"

#if defined(__x86_64__)

// columns [n, 64] = of channels [first, first + n) of the part, grouped per channel.
void attend_decode_columns(float *columns, const KvCodes *codes, int first, int n);

// rows [64, n], ld floats apart = of columns [n, 64].
void attend_transpose_columns(float *rows, int ld, const float *columns, int n);

#endif
#endif
