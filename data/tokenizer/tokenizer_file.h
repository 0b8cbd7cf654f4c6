// The identity of a tokenizer: a checksum of its files, without reading what they say.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_FILE_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_FILE_H

#include "base/checksum.h"

// SHA-256 of DIR/tokenizer.json or, if there is none, of DIR/vocab.json followed by DIR/merges.txt
// (GPT-2's files); "" if the directory has no tokenizer.
Status tokenizer_file_sha256(char out[SHA256_HEX_BYTES], const char *dir);

#endif
