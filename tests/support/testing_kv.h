// A sequence of a KV cache as a test knows it: a list of tokens, which are random numbers that all
// rows of the token follow from, and what the cache must hold for them.
//
//     TestSequence s = {.shape = &shape, .format = &format};
//     assert_ok(kv_sequence_create(&s.sequence, cache));
//     testing_kv_append(&s, &draw, 100);
//     testing_kv_check(&s, s.length);
//     kv_sequence_release(s.sequence);
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_KV_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_KV_H

#include "infer/cache/kv_cache.h"

enum { TEST_KV_TOKENS = 700, TEST_KV_LAYERS = 3, TEST_KV_POINTS = 8 };

// Original attention (GQA), MLA of joint SVD with an odd latent, of split SVD with P = E / 2, of
// the shared form with more slots than a head has pairs.
enum { TEST_KV_SHAPES = 4 };
extern const ModelShape testing_kv_shapes[TEST_KV_SHAPES];

// Random choices of one test.
typedef struct Draw {
    uint64_t key, n_drawn;
} Draw;

uint64_t draw_bits(Draw *draw);
int draw_below(Draw *draw, int bound);

typedef struct TestSequence {
    KvSequence *sequence;
    const ModelShape *shape;
    const KvFormat *format;
    int length;
    uint64_t tokens[TEST_KV_TOKENS];
    int points[TEST_KV_POINTS]; // reference policy: the lengths at which all was quantized
    int n_points;
} TestSequence;

// Writes n random tokens behind the committed ones in all layers, with gaps between the rows; room
// is reserved. They are s->tokens[length] and on.
void testing_kv_write(TestSequence *s, Draw *draw, int n);

// What was written counts.
void testing_kv_commit(TestSequence *s, int n);

// The sequence's tokens so far are the prompt.
void testing_kv_end_prompt(TestSequence *s);

// Reserves, writes, and commits n random tokens.
void testing_kv_append(TestSequence *s, Draw *draw, int n);

void testing_kv_fork(TestSequence *to, const TestSequence *from);

// Fails unless the cache holds the first n_tokens (committed, or written behind those) in blocks of
// the kinds that the format asks for.
void testing_kv_check(const TestSequence *s, int n_tokens);

#endif
