// Token ids as a model gives them, one by one or some at a time.
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_TOKENS_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_TOKENS_H

#include "data/tokenizer/tokenizer.h"

// Aborts unless a TokenStream gives, of ids [n] in parts of 1, of 3 and of random sizes, the text
// of tokenizer_decode() or its refusal, every part of it whole characters.
void testing_check_stream(const Tokenizer *tokenizer, const int32_t *ids, int64_t n);

#endif
