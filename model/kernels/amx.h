// AMX's tiles: instructions and their configuration. A tile holds 16 rows of 64 bytes.
//
//     amx_configure(16, 16);
//     AMX_ZERO(0);
//     AMX_LOAD(4, a, a_row_bytes);   // 16 rows of 32 bfloat16
//     AMX_LOAD(6, b, 64);            // 16 pairs of rows of b x 16 columns
//     AMX_PRODUCT(0, 4, 6);          // adds a b, float32
//     AMX_STORE(0, c, c_row_bytes);
//     amx_release();
//
// The calling thread owns its tiles from amx_configure() to amx_release(). Private to model/kernels
// and model/kernels/weights.
#ifndef MHA2MLA_MODEL_KERNELS_AMX_H
#define MHA2MLA_MODEL_KERNELS_AMX_H

#include <stdbool.h>
#include <stdint.h>

// Whether the CPU has tiles of bfloat16 and the kernel lets this process use them.
bool amx_is_there(void);

#if defined(__x86_64__) && defined(__linux__)

enum {
    AMX_ROWS = 16,                    // of a tile
    AMX_STEP = 32,                    // bfloat16 numbers of a row
    AMX_HALVES = AMX_ROWS * AMX_STEP, // of a tile
};

#define AMX_LOAD(tile, from, stride)                                                               \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((int64_t)(stride))        \
                     : "memory")
#define AMX_STORE(tile, to, stride)                                                                \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((int64_t)(stride))      \
                     : "memory")
#define AMX_ZERO(tile)       __asm__ volatile("tilezero %%tmm" #tile ::)
#define AMX_PRODUCT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

typedef struct AmxConfig {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} AmxConfig;

static inline void amx_load_configuration(const AmxConfig *config)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*config) : "memory");
}

static inline void amx_release(void)
{
    __asm__ volatile("tilerelease" ::);
}

// Tiles 0 to 3: sums, two by two; 4, 5: left operands; 6, 7: right operands. Those of the left
// operands and their sums have 1 to 16 rows. Waits for all loads.
static inline void amx_configure(int upper_rows, int lower_rows)
{
    _Alignas(64) AmxConfig config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        config.row_bytes[tile] = 64;
        config.rows[tile] = AMX_ROWS;
    }
    config.rows[0] = config.rows[1] = config.rows[4] = (uint8_t)upper_rows;
    config.rows[2] = config.rows[3] = config.rows[5] = (uint8_t)lower_rows;
    amx_load_configuration(&config);
}

#endif

#endif
