// The tokenizer of a model as GGUF's metadata: byte-level BPE (`gpt2`: tokens, their types, merges
// and the name by which llama.cpp knows the split into words) and SentencePiece's BPE (`llama`:
// tokens, types and scores).
#ifndef MHA2MLA_MODEL_GGUF_GGUF_VOCABULARY_H
#define MHA2MLA_MODEL_GGUF_GGUF_VOCABULARY_H

#include "model/gguf/gguf_file.h"

// `dir` has the tokenizer; NULL, or a directory without one: the file says that it has none.
// vocab_size: rows of the embedding, so many tokens are written. BAD_INPUT for a tokenizer that
// llama.cpp does not have, by what it is that differs.
Status gguf_put_vocabulary(GgufMeta *meta, const char *dir, int vocab_size);

#endif
