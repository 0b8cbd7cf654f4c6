// infer/cache/code_pack: layouts of packed codes.
#include "tests/support/testing.h"

#include "infer/cache/code_pack.h"

#include <string.h>

static const int all_bits[] = {8, 4, 3, 2};
enum { N_BITS = sizeof all_bits / sizeof *all_bits, MOST = 256 };

static void codes_come_back(void **state)
{
    (void)state;
    for (int b = 0; b < N_BITS; b++)
        for (int n = 8; n <= MOST; n += 8) {
            int bits = all_bits[b];
            uint8_t codes[MOST], packed[MOST + 1], back[MOST];
            for (int i = 0; i < n; i++)
                codes[i] = (uint8_t)((i * 37 + i / 7) & ((1 << bits) - 1));
            packed[code_bytes(n, bits)] = 0xa5;
            code_pack(packed, codes, n, bits);
            code_unpack(back, packed, n, bits);
            assert_memory_equal(codes, back, (size_t)n);
            assert_int_equal(packed[code_bytes(n, bits)], 0xa5); // not a byte more
        }
}

// Fixed bytes, as attention reads them without code_unpack().
static void layout_is_as_documented(void **state)
{
    (void)state;
    const uint8_t codes[8] = {1, 2, 3, 0, 3, 1, 0, 2}, wide[8] = {1, 6, 3, 4, 7, 0, 5, 2};
    uint8_t packed[8];
    code_pack(packed, codes, 8, 2); // parts of two: 1 2 | 3 0 | 3 1 | 0 2
    assert_memory_equal(packed, ((uint8_t[]){1 | 3 << 2 | 3 << 4, 2 | 0 << 2 | 1 << 4 | 2 << 6}),
                        2);
    code_pack(packed, codes, 8, 4);
    assert_memory_equal(packed, ((uint8_t[]){0x31, 0x12, 0x03, 0x20}), 4);
    // Low bits 1 2 | 3 0 | 3 0 | 1 2, high bits of codes 1, 3, 4, 6.
    code_pack(packed, wide, 8, 3);
    assert_memory_equal(packed, ((uint8_t[]){1 | 3 << 2 | 3 << 4 | 1 << 6, 2 | 2 << 6, 0x5a}), 3);
    code_pack(packed, wide, 8, 8);
    assert_memory_equal(packed, wide, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_come_back),
        cmocka_unit_test(layout_is_as_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
