#include "model/gguf/gguf_block.h"

#include "model/kernels/half.h"

#include <math.h>
#include <string.h>

void q8_0_encode(void *out, const float *values, int64_t count)
{
    unsigned char *block = out;
    for (int64_t first = 0; first < count; first += Q8_0_NUMBERS, block += Q8_0_BYTES) {
        float largest = 0;
        for (int i = 0; i < Q8_0_NUMBERS; i++)
            largest = fmaxf(largest, fabsf(values[first + i]));
        const float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
        const uint16_t half = half_f32_to_f16(scale);
        memcpy(block, &half, sizeof half);
        for (int i = 0; i < Q8_0_NUMBERS; i++) {
            // A scale without an inverse is one that 16 bits round to 0, whatever the codes are.
            const float code = isfinite(inverse) ? roundf(values[first + i] * inverse) : 0;
            block[2 + i] = (unsigned char)(int8_t)code;
        }
    }
}
