// The chat template beside a tokenizer: a program in Jinja, which other programs run.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_CHAT_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_CHAT_H

#include "base/file.h"

// The text of DIR/chat_template.jinja or, if there is none, of 'chat_template' in
// DIR/tokenizer_config.json: of several, the one called default. *out is the caller's (free);
// NULL: there is none. `path` is the file that has it, or the last one that could.
Status tokenizer_chat_template(char **out, char path[PATH_BYTES], const char *dir);

#endif
