// ChatML's template is always written in the same words; only the system message differs that some
// models put before a chat without one:
//
//     {% for message in messages %}
//     {% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n...' }}{%
//     endif %}
//     {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}
//     {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
#include "train/generate/chat_template.h"

#include "data/tokenizer/tokenizer_chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char loop_start[] = "{% for message in messages %}";
static const char system_start[] = "{% if loop.first and messages[0]['role'] != 'system' %}{{ '";
static const char system_end[] = "' }}{% endif %}";
static const char loop_end[] =
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// Line ends are written as they are or as Jinja's \n, in the same string or not.
static void unescape(char *out, size_t out_bytes, const char *text)
{
    size_t n = 0;
    for (; *text != '\0' && n + 1 < out_bytes; text++) {
        if (text[0] == '\\' && text[1] == 'n') {
            out[n++] = '\n';
            text++;
        } else {
            out[n++] = *text;
        }
    }
    out[n] = '\0';
}

// Steps over `part` if `text` begins with it.
static bool skip(const char **text, const char *part)
{
    const size_t size = strlen(part);
    if (strncmp(*text, part, size) != 0)
        return false;
    *text += size;
    return true;
}

Status chat_template_parse(ChatTemplate *out, const char *text, const char *where)
{
    char plain[2 * CHAT_TEXT_BYTES], shown[64];
    unescape(plain, sizeof plain, text);
    const char *at = plain, *end = NULL, *system = "";
    bool is_known = skip(&at, loop_start);
    if (is_known && skip(&at, system_start)) {
        system = at;
        end = strstr(at, system_end);
        is_known = end != NULL && memchr(at, '\'', (size_t)(end - at)) == NULL &&
                   memchr(at, '\\', (size_t)(end - at)) == NULL;
        at = is_known ? end + strlen(system_end) : at;
    }
    is_known = is_known && skip(&at, loop_end) && at[strspn(at, "\n")] == '\0';
    const int system_bytes = end != NULL ? (int)(end - system) : 0;
    if (!is_known || system_bytes > CHAT_TEXT_BYTES / 2) {
        snprintf(shown, sizeof shown, "%s", text);
        for (char *c = shown; *c != '\0'; c++)
            *c = (unsigned char)*c < ' ' || *c == 0x7F ? ' ' : *c;
        return fail(BAD_INPUT,
                    "%s: the chat template is none that is known here (ChatML), it begins with "
                    "'%s'; write its words into the prompt, without --chat",
                    where, shown);
    }
    ChatTemplate chat;
    snprintf(chat.before, sizeof chat.before, "%.*s<|im_start|>user\n", system_bytes, system);
    snprintf(chat.after, sizeof chat.after, "<|im_end|>\n<|im_start|>assistant\n");
    *out = chat;
    return OK;
}

Status chat_template_load(ChatTemplate *out, const char *dir)
{
    char path[PATH_BYTES], *text;
    TRY(tokenizer_chat_template(&text, path, dir));
    if (text == NULL && !file_exists(path))
        return fail(BAD_INPUT, "%s is missing, which has the chat template that --chat needs",
                    path);
    if (text == NULL)
        return fail(BAD_INPUT, "%s: has no 'chat_template'; the model is not made for --chat",
                    path);
    const Status status = chat_template_parse(out, text, path);
    free(text);
    return status;
}
