#include "model/convert/slots.h"

void slots_pairs(int32_t *pairs, const int32_t *slots, int64_t n, const ModelShape *s)
{
    for (int64_t i = 0; i < n; i++)
        pairs[i] = slot_pair(s, slots[i]);
}

int slots_of_kv_head(int32_t *kept, const int32_t *slots, int P, int kv_head, const ModelShape *s)
{
    int n = 0;
    for (int i = 0; i < P; i++)
        if (slot_kv_head(s, slots[i]) == kv_head)
            kept[n++] = slot_pair(s, slots[i]);
    return n;
}

static bool is_before(int32_t a, int32_t b, const ModelShape *s)
{
    const int pair_a = slot_pair(s, a), pair_b = slot_pair(s, b);
    return pair_a != pair_b ? pair_a < pair_b : a < b;
}

void slots_sort(int32_t *slots, int P, const ModelShape *s)
{
    for (int i = 1; i < P; i++)
        for (int j = i; j > 0 && is_before(slots[j], slots[j - 1], s); j--) {
            const int32_t other = slots[j];
            slots[j] = slots[j - 1];
            slots[j - 1] = other;
        }
}
