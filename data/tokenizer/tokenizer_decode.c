// Each step reads one list of strings and writes another. Steps that look at one token at a time
// (Metaspace's first one, Strip) depend on how the list is divided, so it is kept until a Fuse or
// ByteLevel; what follows these sees pieces of one string, whose borders mean nothing.
//
// Tokens come in parts, so a step holds what later tokens may still change: the bytes of a run that
// is not over, the beginning of a character, what may be stripped from the end. A step for which
// that could be anything, as for a regular expression on a fused string, waits for the end.
#include "data/tokenizer/tokenizer_decode.h"

#include <stdlib.h>
#include <string.h>

void strings_release(Strings *strings)
{
    bytes_release(&strings->bytes);
    free(strings->ends);
    *strings = (Strings){0};
}

Status strings_close(Strings *strings)
{
    if (strings->n == strings->capacity) {
        int64_t capacity = strings->capacity > 0 ? 2 * strings->capacity : 64;
        int64_t *ends = realloc(strings->ends, (size_t)capacity * sizeof *ends);
        if (ends == NULL)
            return fail(FAILED, "no memory to decode %lld tokens", (long long)capacity);
        strings->ends = ends;
        strings->capacity = capacity;
    }
    strings->ends[strings->n++] = strings->bytes.size;
    return OK;
}

// String i; an empty list of bytes has no memory, but its strings are "".
static const char *string_at(const Strings *strings, int64_t i, int64_t *size)
{
    int64_t start = i > 0 ? strings->ends[i - 1] : 0;
    *size = strings->ends[i] - start;
    return strings->bytes.data != NULL ? strings->bytes.data + start : "";
}

// "Replace": within each string; a match across two is none.
static Status replace_step(Strings *out, const Strings *in, const TextStep *step)
{
    Status status = OK;
    PatternMatch *match = NULL;
    if (step->regex != NULL)
        TRY(pattern_match_create(&match));
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        TRY_GOTO(release, step_append_replaced(&out->bytes, match, step, text, size));
        TRY_GOTO(release, strings_close(out));
    }
release:
    pattern_match_release(match);
    return status;
}

// The first token loses its marks altogether, as in the library; a fused string is the first.
static Status metaspace_step(Strings *out, const Strings *in, const TextStep *step,
                             DecodeState *state)
{
    const Bytes space = {.data = (char[]){' '}, .size = 1}, nothing = {0};
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        const bool is_first = state->fused || state->n_strings == 0;
        TRY(bytes_append_replaced(&out->bytes, text, size, &step->pattern,
                                  is_first && step->first ? &nothing : &space));
        TRY(strings_close(out));
        state->n_strings++;
    }
    return OK;
}

// Both cases, as Rust's from_str_radix takes them; -1 for anything else.
static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// The byte of "<0xNN>", or -1. Rust's number parser also takes a plus sign.
static int fallback_byte(const char *text, int64_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    int high = text[3] == '+' ? 0 : hex_digit(text[3]), low = hex_digit(text[4]);
    return high >= 0 && low >= 0 ? 16 * high + low : -1;
}

// Closes a run of byte tokens: its text, or one U+FFFD for each byte if it is not valid UTF-8.
static Status flush_byte_run(Strings *out, Bytes *bytes)
{
    if (bytes->size == 0)
        return OK;
    if (utf8_valid_bytes(bytes->data, bytes->size) == bytes->size) {
        TRY(bytes_append(&out->bytes, bytes->data, bytes->size));
        TRY(strings_close(out));
    } else {
        for (int64_t i = 0; i < bytes->size; i++) {
            TRY(bytes_append(&out->bytes, "\xEF\xBF\xBD", 3));
            TRY(strings_close(out));
        }
    }
    bytes->size = 0;
    return OK;
}

// "ByteFallback": a run of tokens <0xNN> is one character or more, or what is left of them. Whether
// its bytes are characters is known when the run is over, as one that is not valid UTF-8 is none.
static Status byte_fallback_step(Strings *out, const Strings *in, DecodeState *state, bool is_last)
{
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        int byte = fallback_byte(text, size);
        if (byte >= 0) {
            char c = (char)byte;
            TRY(bytes_append(&state->held, &c, 1));
            continue;
        }
        TRY(flush_byte_run(out, &state->held));
        TRY(bytes_append(&out->bytes, text, size));
        TRY(strings_close(out));
    }
    return is_last ? flush_byte_run(out, &state->held) : OK;
}

// Cuts `content` from the beginning of a string, and counts that in *n_cut, which ends at `start`
// or where something else stands: then *n_cut is set to `start`. Without is_whole, more may follow.
static void strip_start(const char **text, int64_t *size, const TextStep *step, int64_t *n_cut,
                        bool is_whole)
{
    const Bytes *cut = &step->content;
    while (*n_cut < step->start) {
        const int64_t seen = *size < cut->size ? *size : cut->size;
        const bool differs = memcmp(*text, cut->data, (size_t)seen) != 0;
        if (!differs && seen < cut->size && !is_whole)
            return;
        if (differs || seen < cut->size) {
            *n_cut = step->start;
            return;
        }
        *text += cut->size;
        *size -= cut->size;
        ++*n_cut;
    }
}

static int64_t strip_end(const char *text, int64_t size, const TextStep *step)
{
    const Bytes *cut = &step->content;
    for (int64_t k = 0; k < step->stop && size >= cut->size; k++) {
        if (memcmp(text + size - cut->size, cut->data, (size_t)cut->size) != 0)
            break;
        size -= cut->size;
    }
    return size;
}

// "Strip": at most `start` times from the beginning of each string and `stop` times from its end.
static Status strip_step(Strings *out, const Strings *in, const TextStep *step)
{
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size, n_cut = 0;
        const char *text = string_at(in, i, &size);
        strip_start(&text, &size, step, &n_cut, true);
        TRY(bytes_append(&out->bytes, text, strip_end(text, size, step)));
        TRY(strings_close(out));
    }
    return OK;
}

// The same for pieces of one string: its last characters are held, as they may be cut.
static Status strip_fused_step(Strings *out, const Strings *in, const TextStep *step,
                               DecodeState *state, bool is_last)
{
    Bytes *held = &state->held;
    TRY(bytes_append(held, in->bytes.data, in->bytes.size));
    const char *text = held->data != NULL ? held->data : "";
    int64_t size = held->size;
    strip_start(&text, &size, step, &state->n_cut, is_last);
    int64_t n_ready =
        is_last ? strip_end(text, size, step) : size - step->stop * step->content.size;
    if (n_ready < 0 || state->n_cut < step->start)
        n_ready = 0;
    while (n_ready > 0 && n_ready < size && ((unsigned char)text[n_ready] & 0xC0) == 0x80)
        n_ready--; // whole characters
    TRY(bytes_append(&out->bytes, text, n_ready));
    if (size > n_ready)
        memmove(held->data, text + n_ready, (size_t)(size - n_ready));
    held->size = size - n_ready;
    return strings_close(out);
}

// The bytes a token stands for; its text itself if a character is not of the byte-level alphabet.
static Status append_byte_level(Bytes *out, const char *text, int64_t size)
{
    int64_t before = out->size;
    TRY(bytes_reserve(out, size));
    for (int64_t i = 0; i < size; i += utf8_length((unsigned char)text[i])) {
        int byte = byte_level_byte(utf8_code(text + i));
        if (byte < 0) {
            out->size = before;
            return bytes_append(out, text, size);
        }
        out->data[out->size++] = (char)byte;
    }
    return OK;
}

// "ByteLevel": characters may be cut between tokens, so bytes are joined before they are decoded.
// Bytes at the end that a later one may complete are held.
static Status byte_level_step(Strings *out, const Strings *in, DecodeState *state, bool is_last)
{
    Bytes *held = &state->held;
    for (int64_t i = 0; i < in->n; i++) {
        int64_t size;
        const char *text = string_at(in, i, &size);
        TRY(append_byte_level(held, text, size));
    }
    const int64_t n_ready = is_last ? held->size : utf8_decided_bytes(held->data, held->size);
    TRY(utf8_append_repaired(&out->bytes, held->data, n_ready));
    if (n_ready > 0)
        memmove(held->data, held->data + n_ready, (size_t)(held->size - n_ready));
    held->size -= n_ready;
    return strings_close(out);
}

// "Fuse": the list becomes one string, so that later steps see text and not tokens.
static Status fuse_step(Strings *out, const Strings *in)
{
    TRY(bytes_append(&out->bytes, in->bytes.data, in->bytes.size));
    return strings_close(out);
}

static Status run_step(Strings *out, const Strings *in, const TextStep *step, DecodeState *state,
                       bool is_last)
{
    switch (step->kind) {
    case STEP_REPLACE:
        return replace_step(out, in, step);
    case STEP_BYTE_FALLBACK:
        return byte_fallback_step(out, in, state, is_last);
    case STEP_FUSE:
        return fuse_step(out, in);
    case STEP_STRIP:
        return state->fused ? strip_fused_step(out, in, step, state, is_last)
                            : strip_step(out, in, step);
    case STEP_BYTE_LEVEL:
        return byte_level_step(out, in, state, is_last);
    case STEP_METASPACE:
        return metaspace_step(out, in, step, state);
    case STEP_PREPEND:
    case STEP_NORMALIZE:
        break;
    }
    CHECK(false, "decoder step %d", (int)step->kind);
    return FAILED;
}

// What these steps make of a string depends on all of it.
static bool waits_for_whole_string(const TextStep *step)
{
    return step->kind == STEP_REPLACE || step->kind == STEP_BYTE_FALLBACK ||
           step->kind == STEP_BYTE_LEVEL;
}

Status decode_step(Strings *out, const Strings *in, const TextStep *step, DecodeState *state,
                   bool is_last)
{
    if (!state->fused || !waits_for_whole_string(step))
        return run_step(out, in, step, state, is_last);
    TRY(bytes_append(&state->whole, in->bytes.data, in->bytes.size));
    if (!is_last)
        return OK;
    int64_t end = state->whole.size;
    const Strings whole = {.bytes = state->whole, .ends = &end, .n = 1, .capacity = 1};
    return run_step(out, &whole, step, state, true);
}
