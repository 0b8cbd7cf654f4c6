#include "eval/tasks/task_text.h"

#include <string.h>
#include <utf8proc.h>

TextSpan task_text_span(const char *text)
{
    return (TextSpan){text, (int64_t)strlen(text)};
}

// Python also counts the four separators of ASCII, which Unicode's White_Space does not have.
static bool is_space(uint32_t code)
{
    return utf8_is_space(code) || (code >= 0x1C && code <= 0x1F);
}

TextSpan task_text_strip_end(TextSpan span)
{
    while (span.size > 0) {
        int64_t start = span.size - 1;
        while (start > 0 && ((unsigned char)span.text[start] & 0xC0) == 0x80)
            start--;
        if (!is_space(utf8_code(span.text + start)))
            break;
        span.size = start;
    }
    return span;
}

TextSpan task_text_strip(TextSpan span)
{
    span = task_text_strip_end(span);
    while (span.size > 0 && is_space(utf8_code(span.text))) {
        const int length = utf8_length((unsigned char)span.text[0]);
        span.text += length;
        span.size -= length;
    }
    return span;
}

int64_t task_text_characters(TextSpan span)
{
    int64_t n = 0;
    for (int64_t i = 0; i < span.size; i++)
        n += ((unsigned char)span.text[i] & 0xC0) != 0x80;
    return n;
}

Status task_text_append(Bytes *out, TextSpan span)
{
    return bytes_append(out, span.text, span.size);
}

Status task_text_append_capitalized(Bytes *out, TextSpan span)
{
    for (int64_t i = 0; i < span.size;) {
        const int length = utf8_length((unsigned char)span.text[i]);
        const utf8proc_int32_t code = (utf8proc_int32_t)utf8_code(span.text + i);
        const utf8proc_int32_t mapped = i == 0 ? utf8proc_totitle(code) : utf8proc_tolower(code);
        utf8proc_uint8_t bytes[4];
        const utf8proc_ssize_t n = utf8proc_encode_char(mapped, bytes);
        TRY(bytes_append(out, (const char *)bytes, n));
        i += length;
    }
    return OK;
}

// As re.sub("\\[.*?\\]", "", text): the shortest match from each bracket on, in which '.' is no
// line end. What ends a match is looked for once, however many brackets open before it.
static Status append_without_brackets(Bytes *out, const Bytes *text)
{
    int64_t end = 0; // the first ']' or '\n' behind the last '[' that was met
    for (int64_t i = 0; i < text->size;) {
        if (text->data[i] == '[') {
            if (end <= i)
                end = i + 1;
            while (end < text->size && text->data[end] != ']' && text->data[end] != '\n')
                end++;
            if (end < text->size && text->data[end] == ']') {
                i = end + 1;
                continue;
            }
        }
        TRY(bytes_append(out, text->data + i, 1));
        i++;
    }
    return OK;
}

Status task_text_append_clean(Bytes *out, TextSpan span)
{
    static char title[] = " [title]", stop[] = ". ", blanks[] = "  ", blank[] = " ";
    const Bytes title_mark = {.data = title, .size = 8}, full_stop = {.data = stop, .size = 2};
    const Bytes two_blanks = {.data = blanks, .size = 2}, one_blank = {.data = blank, .size = 1};
    Status status;
    Bytes titled = {0}, plain = {0};
    TRY_GOTO(release,
             bytes_append_replaced(&titled, span.text, span.size, &title_mark, &full_stop));
    TRY_GOTO(release, append_without_brackets(&plain, &titled));
    status = bytes_append_replaced(out, plain.data, plain.size, &two_blanks, &one_blank);
release:
    bytes_release(&titled);
    bytes_release(&plain);
    return status;
}
