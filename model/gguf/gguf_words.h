// How byte-level tokenizers split a text into words: a GGUF holds a name for it, and llama.cpp the
// split of that name in its own code.
#ifndef MHA2MLA_MODEL_GGUF_GGUF_WORDS_H
#define MHA2MLA_MODEL_GGUF_GGUF_WORDS_H

#include "data/tokenizer/tokenizer_table.h"

// tokenizer.ggml.pre; NULL: no name is known for the split of this tokenizer.
const char *gguf_words_name(const Tokenizer *tokenizer);

#endif
