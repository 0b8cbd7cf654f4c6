// The text around a user's message that makes a chat of it, from the chat template of a Hugging
// Face directory. Templates are programs in Jinja, which is not interpreted: a template is honoured
// if it is ChatML, with or without a default system message, as SmolLM, SmolLM2 and Qwen2 have it.
#ifndef MHA2MLA_TRAIN_GENERATE_CHAT_TEMPLATE_H
#define MHA2MLA_TRAIN_GENERATE_CHAT_TEMPLATE_H

#include "base/status.h"

enum { CHAT_TEXT_BYTES = 2048 };

typedef struct ChatTemplate {
    char before[CHAT_TEXT_BYTES]; // before the user's message
    char after[CHAT_TEXT_BYTES];  // after it, where the model's answer begins
} ChatTemplate;

// Of DIR/chat_template.jinja or, if there is none, of tokenizer_config.json. BAD_INPUT if neither
// has a template, or it is another one.
Status chat_template_load(ChatTemplate *out, const char *dir);

// The template itself; `where` names it in the error.
Status chat_template_parse(ChatTemplate *out, const char *text, const char *where);

#endif
