// infer/cache/kv_cache: random operations on many sequences against a plain model of them, sharing
// and its bytes, the limit, threads.
#include "tests/support/testing.h"

#include "base/random.h"
#include "infer/cache/kv_cache.h"
#include "model/kernels/half.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 700, MAX_CHUNK = 200, MAX_SEQUENCES = 12, L = 3 };

// One original model (GQA), one MLA of joint SVD with an odd latent, one of split SVD with P = E/2.
#define SHAPE(pairs, latent, kind)                                                                 \
    {                                                                                              \
        .n_layers = L, .d_model = 96, .n_heads = 6, .n_kv_heads = 3, .head_dim = 16, .d_ffn = 64,  \
        .vocab_size = 100, .max_positions = 512, .rope_pairs = (pairs), .d_kv = (latent),          \
        .svd = (kind), .rope_theta = 1e4, .rms_eps = 1e-5                                          \
    }
static const ModelShape shapes[] = {SHAPE(8, 0, SVD_JOINT), SHAPE(2, 5, SVD_JOINT),
                                    SHAPE(4, 4, SVD_SPLIT)};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

// A sequence as the test knows it: a token is a number that all its rows follow from.
typedef struct Expected {
    KvSequence *sequence;
    int length;
    uint64_t tokens[MAX_TOKENS];
} Expected;

// Channel c of a part (0: key, 1: value) of a token in a layer.
static float number_of(uint64_t token, int layer, int part, int c)
{
    uint64_t bits = random_bits(token, (uint64_t)(layer * 2 + part) * 4096 + (uint64_t)c);
    return (float)((double)(bits >> 40) / (1 << 23) - 1);
}

static float held(float value, KvType type)
{
    return type == KV_FLOAT32 ? value : half_bf16_to_f32(half_f32_to_bf16(value));
}

// Writes tokens [n] behind the committed ones in all layers, with gaps between the rows.
static void write_tokens(KvSequence *s, const ModelShape *shape, const uint64_t *tokens, int n)
{
    const int n_key = kv_part_channels(kv_key_part(shape));
    const int n_value = kv_part_channels(kv_value_part(shape));
    const int ld_key = n_key + 3, ld_value = n_value + 5;
    float *key = malloc((size_t)n * ld_key * sizeof *key);
    float *value = malloc((size_t)n * ld_value * sizeof *value);
    assert_true(n == 0 || (key != NULL && value != NULL));
    for (int layer = 0; layer < L; layer++) {
        for (int t = 0; t < n; t++) {
            for (int c = 0; c < n_key; c++)
                key[t * ld_key + c] = number_of(tokens[t], layer, 0, c);
            for (int c = 0; c < n_value; c++)
                value[t * ld_value + c] = number_of(tokens[t], layer, 1, c);
        }
        kv_write(s, layer, key, ld_key, value, ld_value, n);
    }
    free(key);
    free(value);
}

// A block's widened numbers are those of tokens [count], and 0 behind them.
static void check_block(const KvBlock *b, int layer, const uint64_t *tokens)
{
    const int T = KV_BLOCK_TOKENS, n_key = kv_part_channels(b->key_part);
    float key[3 * 16 * KV_BLOCK_TOKENS], value[3 * 16 * KV_BLOCK_TOKENS];
    kv_block_widen(b, key, value);
    for (int t = 0; t < T; t++) {
        for (int c = 0; c < n_key; c++) {
            float want = t < b->count ? held(number_of(tokens[t], layer, 0, c), b->type) : 0;
            assert_true(key[c * T + t] == want);
        }
        for (int c = 0; c < kv_part_channels(b->value_part); c++) {
            int head = c / b->value_part.width, i = c % b->value_part.width;
            float want = t < b->count ? held(number_of(tokens[t], layer, 1, c), b->type) : 0;
            assert_true(value[(head * T + t) * b->value_part.width + i] == want);
        }
    }
}

// n_tokens: those committed and those written behind them.
static void check_sequence(const Expected *e, int n_tokens)
{
    assert_int_equal(kv_sequence_length(e->sequence), e->length);
    for (int layer = 0; layer < L; layer++) {
        int first = 0;
        for (int i = 0; i < kv_n_blocks(e->sequence, n_tokens); i++) {
            KvBlock b = kv_block(e->sequence, layer, i);
            assert_int_equal(b.first, first);
            check_block(&b, layer, e->tokens + first);
            first += b.count;
        }
        assert_int_equal(first, n_tokens);
    }
}

// Random choices of one test run.
typedef struct Draw {
    uint64_t key, n_drawn;
} Draw;

static uint64_t draw_token(Draw *draw)
{
    return random_bits(draw->key, draw->n_drawn++);
}

static int draw_below(Draw *draw, int bound)
{
    return (int)(draw_token(draw) % (uint64_t)bound);
}

// Lengths of chunks: mostly single tokens, as in decoding, else up to several blocks.
static int draw_chunk(Draw *draw)
{
    return draw_below(draw, 3) < 2 ? 1 : draw_below(draw, MAX_CHUNK + 1);
}

static void append(Expected *e, const ModelShape *shape, Draw *draw, int n)
{
    if (e->length + n > MAX_TOKENS)
        return;
    assert_ok(kv_sequence_reserve(e->sequence, n));
    for (int t = 0; t < n; t++)
        e->tokens[e->length + t] = draw_token(draw);
    write_tokens(e->sequence, shape, e->tokens + e->length, n);
    if (draw_below(draw, 4) == 0)
        check_sequence(e, e->length + n);
    assert_ok(kv_sequence_commit(e->sequence, n));
    e->length += n;
}

static void fork_of(Expected *to, const Expected *from)
{
    *to = *from;
    assert_ok(kv_sequence_fork(&to->sequence, from->sequence));
}

static void release_at(Expected *all, int *count, int i)
{
    kv_sequence_release(all[i].sequence);
    all[i] = all[--*count];
}

// One random operation on one of the sequences.
static void operate(Expected *all, int *count, KvCache *cache, const ModelShape *shape, Draw *draw)
{
    int kind = *count == 0 ? 0 : draw_below(draw, 12),
        i = *count == 0 ? 0 : draw_below(draw, *count);
    if (kind == 0 && *count < MAX_SEQUENCES) {
        all[*count].length = 0;
        assert_ok(kv_sequence_create(&all[(*count)++].sequence, cache));
    } else if (kind == 1 && *count < MAX_SEQUENCES) {
        fork_of(&all[(*count)++], &all[i]);
    } else if (kind == 2) {
        release_at(all, count, i);
    } else if (kind == 3 && all[i].length < MAX_TOKENS) {
        // Room that a fork takes no part in, and that the next append uses.
        assert_ok(kv_sequence_reserve(all[i].sequence, draw_chunk(draw)));
    } else if (kind == 4) {
        check_sequence(&all[i], all[i].length);
    } else {
        append(&all[i], shape, draw, draw_chunk(draw));
    }
}

static void test_random_operations(void **state)
{
    (void)state;
    static Expected all[MAX_SEQUENCES];
    for (int run = 0; run < 2 * N_SHAPES; run++) {
        const ModelShape *shape = &shapes[run / 2];
        KvFormat format = kv_format_plain(run % 2 == 0 ? KV_FLOAT32 : KV_BFLOAT16);
        KvCache *cache;
        assert_ok(kv_cache_create(&cache, shape, &format, 0));
        Draw draw = {.key = random_key((uint64_t)run, "operations")};
        int count = 0;
        for (int step = 0; step < 600; step++)
            operate(all, &count, cache, shape, &draw);
        for (int i = 0; i < count; i++)
            check_sequence(&all[i], all[i].length);
        while (count > 0)
            release_at(all, &count, 0);
        assert_int_equal(kv_cache_bytes(cache), 0);
        kv_cache_release(cache);
    }
}

// Pages hold 64 positions of all layers and nothing else; a fork costs nothing until it is written,
// then one page.
static void test_bytes_and_sharing(void **state)
{
    (void)state;
    static Expected prompt, answers[4];
    for (int i = 0; i < N_SHAPES; i++) {
        KvFormat format = kv_format_plain(KV_BFLOAT16);
        KvCache *cache;
        assert_ok(kv_cache_create(&cache, &shapes[i], &format, 0));
        int64_t page = KV_BLOCK_TOKENS * 2 * shape_cache_numbers(&shapes[i]);
        assert_true((double)page ==
                    KV_BLOCK_TOKENS * kv_format_bytes_per_token(&format, &shapes[i]));
        Draw draw = {.key = 1};
        prompt.length = 0;
        assert_ok(kv_sequence_create(&prompt.sequence, cache));
        append(&prompt, &shapes[i], &draw, 100);
        assert_int_equal(kv_cache_bytes(cache), 2 * page);
        for (int a = 0; a < 4; a++)
            fork_of(&answers[a], &prompt);
        assert_int_equal(kv_cache_bytes(cache), 2 * page);
        for (int a = 0; a < 4; a++)
            append(&answers[a], &shapes[i], &draw, 10);
        assert_int_equal(kv_cache_bytes(cache), 6 * page);
        kv_sequence_release(prompt.sequence);
        for (int a = 0; a < 4; a++) {
            check_sequence(&answers[a], 110);
            kv_sequence_release(answers[a].sequence);
        }
        assert_int_equal(kv_cache_bytes(cache), 0);
        assert_int_equal(kv_cache_peak_bytes(cache), 6 * page);
        kv_cache_release(cache);
    }
}

// A refused reservation leaves the sequences as they were, and what another releases is enough.
static void test_limit(void **state)
{
    (void)state;
    static Expected a, b;
    KvFormat format = kv_format_plain(KV_FLOAT32);
    int64_t page = KV_BLOCK_TOKENS * 4 * shape_cache_numbers(&shapes[1]);
    KvCache *cache;
    assert_fails(BAD_INPUT, "64 tokens of one sequence",
                 kv_cache_create(&cache, &shapes[1], &format, page - 1));
    assert_ok(kv_cache_create(&cache, &shapes[1], &format, 4 * page));
    Draw draw = {.key = 2};
    a.length = b.length = 0;
    assert_ok(kv_sequence_create(&a.sequence, cache));
    append(&a, &shapes[1], &draw, 170);
    fork_of(&b, &a);
    append(&b, &shapes[1], &draw, 1);
    assert_int_equal(kv_cache_bytes(cache), 4 * page);
    assert_fails(FAILED, "MiB more are needed", kv_sequence_reserve(a.sequence, 30));
    append(&a, &shapes[1], &draw, 22);
    assert_fails(FAILED, "in use", kv_sequence_reserve(a.sequence, 1));
    check_sequence(&a, 192);
    check_sequence(&b, 171);
    kv_sequence_release(b.sequence);
    append(&a, &shapes[1], &draw, 64);
    check_sequence(&a, 256);
    assert_int_equal(kv_cache_peak_bytes(cache), 4 * page);
    kv_sequence_release(a.sequence);
    kv_cache_release(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_bytes_and_sharing),
        cmocka_unit_test(test_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
