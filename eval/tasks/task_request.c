#include "eval/tasks/task_request.h"

#include <string.h>

void task_request_release(TaskRequest *request)
{
    token_buffer_release(&request->ids);
    token_buffer_release(&request->context);
    token_buffer_release(&request->whole);
    bytes_release(&request->text);
    *request = (TaskRequest){0};
}

static Status encode(TokenBuffer *out, const TaskEncoding *encoding, const char *text, int64_t size,
                     bool adds_special, const char *where)
{
    out->count = 0;
    TRY(tokenizer_encode(encoding->tokenizer, out, text != NULL ? text : "", size, adds_special));
    for (int64_t i = 0; i < out->count; i++)
        if (out->ids[i] >= encoding->vocab_size)
            return fail(BAD_INPUT,
                        "%s: a token has id %d, the model has ids 0 to %d: the tokenizer in %s is "
                        "another model's",
                        where, (int)out->ids[i], encoding->vocab_size - 1, encoding->model);
    return OK;
}

Status task_request_context(TaskRequest *request, const TaskEncoding *encoding, TextSpan context,
                            const char *where)
{
    request->text.size = 0;
    TRY(task_text_append(&request->text, context));
    request->whole_context_bytes = context.size;
    request->context_bytes = task_text_strip_end(context).size;
    if (request->context_bytes > 0)
        return encode(&request->context, encoding, request->text.data, request->context_bytes, true,
                      where);
    if (encoding->begin_id < 0)
        return fail(BAD_INPUT,
                    "%s: nothing stands before the choices, and the tokenizer of %s names no token "
                    "that begins a text (bos_token or eos_token in tokenizer_config.json)",
                    where, encoding->model);
    request->context.count = 0;
    return token_buffer_append(&request->context, encoding->begin_id);
}

// The tokens of the continuation, borrowed from `whole`.
static const int32_t *find_continuation(int64_t *n, const TaskRequest *request)
{
    const TokenBuffer *whole = &request->whole;
    const int64_t n_before = request->context_bytes == 0 ? 0 : request->context.count;
    *n = whole->count > n_before ? whole->count - n_before : 1;
    return whole->ids + whole->count - *n;
}

static Status append_last(TokenBuffer *out, const int32_t *ids, int64_t n, int64_t n_last)
{
    for (int64_t i = n > n_last ? n - n_last : 0; i < n; i++)
        TRY(token_buffer_append(out, ids[i]));
    return OK;
}

Status task_request_continue(TaskRequest *request, const TaskEncoding *encoding,
                             TextSpan continuation, const char *where)
{
    const TokenBuffer *context = &request->context;
    int64_t n_continuation;
    request->text.size = request->whole_context_bytes;
    TRY(task_text_append(&request->text, continuation));
    // After the token that begins a text the continuation gets no second one.
    TRY(encode(&request->whole, encoding, request->text.data, request->text.size,
               request->context_bytes > 0, where));
    if (request->whole.count == 0)
        return fail(BAD_INPUT, "%s: a choice has no tokens", where);
    const int32_t *scored = find_continuation(&n_continuation, request);
    // A token that spans the border is the continuation alone, without it at the context's end.
    const bool is_spanned = request->context_bytes > 0 && request->whole.count <= context->count;
    const int32_t *before = is_spanned ? request->whole.ids : context->ids;
    const int64_t n_before = is_spanned ? request->whole.count - 1 : context->count;
    const int64_t n = n_before + n_continuation, kept = encoding->max_length + 1;
    if (n_before == 0)
        return fail(BAD_INPUT,
                    "%s: context and choice are one token; there is nothing to score it "
                    "after",
                    where);
    request->ids.count = 0;
    if (n_continuation < kept)
        TRY(append_last(&request->ids, before, n_before, kept - n_continuation));
    TRY(append_last(&request->ids, scored, n_continuation, kept));
    request->is_cut = n > kept;
    request->n_scored =
        (int)(n_continuation < request->ids.count ? n_continuation : request->ids.count - 1);
    return OK;
}
