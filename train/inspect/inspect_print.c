// Layout that all kinds of files share: labels in one column, sizes in units of 1000, a map of
// pairs.
#include "train/inspect/inspect.h"

#include <stdio.h>

enum { LABEL_WIDTH = 14, LINE_WIDTH = 96 };

// Units of 1000, as disks are sold and ls --si shows them. A value that %.1f would round up to
// 1000.0 gets the next unit.
const char *inspect_size(char out[INSPECT_SIZE_BYTES], int64_t size_bytes)
{
    static const char *const units[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
    double size = (double)size_bytes / 1000.0;
    int unit = 0;
    if (size_bytes < 1000) {
        snprintf(out, INSPECT_SIZE_BYTES, "%d B", (int)size_bytes);
        return out;
    }
    while (size >= 999.95 && unit < 5) {
        size /= 1000.0;
        unit++;
    }
    snprintf(out, INSPECT_SIZE_BYTES, "%.1f %s", size, units[unit]);
    return out;
}

void inspect_label(const char *label)
{
    printf("  %-*s", LABEL_WIDTH, label);
}

// Counts, in one layer, the KV heads that keep a pair: "." none, "1" to "9" tenths of them, "#"
// all. In the shared form it counts the layer's slots, which stem from the KV heads.
static char share_mark(const ModelShape *shape, const int32_t *of_layer, int pair)
{
    const int K = shape->n_kv_heads;
    int n_keeping = 0;
    for (int i = 0; i < shape_rope_heads(shape) * shape->rope_pairs; i++)
        n_keeping += of_layer[i] == pair;
    if (n_keeping == 0)
        return '.';
    // Rounded down, so that "9" is never all of them; at least 1, so that a pair that is kept at
    // all shows.
    int tenths = 10 * n_keeping / K;
    return n_keeping >= K ? '#' : (char)('0' + (tenths > 0 ? tenths : 1));
}

// One row per layer and, where the terminal has the width, several layers beside each other.
void inspect_pairs(const char *what, const ModelShape *shape, const int32_t *pairs)
{
    int n_pairs = shape->head_dim / 2, n_columns = LINE_WIDTH / (n_pairs + 7);
    printf("%s, fastest first (. by no KV head, 1-9 tenths of them, # by all)\n", what);
    for (int l = 0; l < shape->n_layers; l++) {
        const int32_t *of_layer = pairs + (int64_t)l * shape_rope_heads(shape) * shape->rope_pairs;
        printf("  %3d ", l);
        for (int p = 0; p < n_pairs; p++)
            putchar(share_mark(shape, of_layer, p));
        if (n_columns < 2 || (l + 1) % n_columns == 0 || l + 1 == shape->n_layers)
            putchar('\n');
    }
}
