// A pickle is a program for a stack machine. That of a tensor is one call with constants, which
// differs between versions of PyTorch and pickle protocols in how numbers and texts are written and
// in what is memorized. So it is read as a row of symbols without the memory, and compared with the
// one row that there is.
#include "model/paper/torch_pickle.h"

#include <string.h>

// ---- symbols of a pickle -----------------------------------------------------------------------

typedef enum SymbolKind {
    SYMBOL_END, // of the bytes, or what is not understood
    SYMBOL_INT,
    SYMBOL_TEXT,
    SYMBOL_GLOBAL, // "module name"
    SYMBOL_CODE,   // any other operation
} SymbolKind;

typedef struct Symbol {
    SymbolKind kind;
    int64_t number;              // SYMBOL_INT
    unsigned char code;          // SYMBOL_CODE
    char text[TORCH_TEXT_BYTES]; // SYMBOL_TEXT, SYMBOL_GLOBAL; longer ones are cut
} Symbol;

typedef struct Pickle {
    const unsigned char *at, *end;
} Pickle;

// The next `size` bytes; NULL: there are fewer.
static const unsigned char *take(Pickle *pickle, uint64_t size)
{
    const unsigned char *bytes = pickle->at;
    if ((uint64_t)(pickle->end - pickle->at) < size)
        return NULL;
    pickle->at += size;
    return bytes;
}

// A little-endian number of `size` bytes, signed if that is 4 or 8 and is_signed.
static bool take_number(int64_t *out, Pickle *pickle, int size, bool is_signed)
{
    const unsigned char *bytes = take(pickle, (uint64_t)size);
    uint64_t value = 0;
    if (bytes == NULL)
        return false;
    for (int i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    if (is_signed && size == 4)
        value = (uint64_t)(int64_t)(int32_t)value;
    *out = (int64_t)value;
    return true;
}

// An integer of size_bytes bytes, the highest of which has the sign (LONG1): up to 8 bytes.
static bool take_long(int64_t *out, Pickle *pickle)
{
    int64_t size, value = 0;
    if (!take_number(&size, pickle, 1, false) || size > 8)
        return false;
    if (!take_number(&value, pickle, (int)size, false))
        return false;
    const bool is_negative = size > 0 && (pickle->at[-1] & 0x80) != 0;
    *out = is_negative && size < 8 ? value - ((int64_t)1 << 8 * size) : value;
    return true;
}

static void set_text(char *out, size_t out_bytes, const unsigned char *bytes, uint64_t size)
{
    const size_t n = size < out_bytes - 1 ? (size_t)size : out_bytes - 1;
    for (size_t i = 0; i < n; i++) // control characters are for no terminal
        out[i] = bytes[i] >= ' ' && bytes[i] != 0x7f ? (char)bytes[i] : '?';
    out[n] = '\0';
}

static bool take_text(Symbol *symbol, Pickle *pickle, int length_bytes)
{
    int64_t length;
    if (!take_number(&length, pickle, length_bytes, false) || length < 0)
        return false;
    const unsigned char *bytes = take(pickle, (uint64_t)length);
    if (bytes == NULL)
        return false;
    set_text(symbol->text, TORCH_TEXT_BYTES, bytes, (uint64_t)length);
    return true;
}

// "module\nname\n", as "module name".
static bool take_global(Symbol *symbol, Pickle *pickle)
{
    size_t used = 0;
    for (int line = 0; line < 2; line++) {
        const unsigned char *start = pickle->at;
        const unsigned char *newline = memchr(start, '\n', (size_t)(pickle->end - start));
        if (newline == NULL || (size_t)(newline - start) + 2 > TORCH_TEXT_BYTES - used)
            return false;
        set_text(symbol->text + used, TORCH_TEXT_BYTES - used, start, (uint64_t)(newline - start));
        used += (size_t)(newline - start);
        if (line == 0)
            symbol->text[used++] = ' ';
        pickle->at = newline + 1;
    }
    return true;
}

// What says nothing of the tensor: protocol, frames, and memory of values that are not used again.
// *is_whole: its argument is there.
static bool is_silent(unsigned char code, Pickle *pickle, bool *is_whole)
{
    static const struct {
        unsigned char code, argument_bytes;
    } silent[] = {{0x80, 1}, {0x95, 8}, {'q', 1}, {'r', 4}, {0x94, 0}};
    for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++) {
        if (silent[i].code != code)
            continue;
        *is_whole = take(pickle, silent[i].argument_bytes) != NULL;
        return true;
    }
    return false;
}

static Symbol next(Pickle *pickle)
{
    Symbol symbol = {.kind = SYMBOL_END};
    bool is_whole = true;
    const unsigned char *code;
    do {
        code = take(pickle, 1);
    } while (code != NULL && is_silent(*code, pickle, &is_whole) && is_whole);
    if (code == NULL || !is_whole)
        return symbol;
    symbol.code = *code;
    SymbolKind kind = SYMBOL_CODE;
    switch (*code) {
    case 'K': // BININT1
    case 'M': // BININT2
    case 'J': // BININT
        kind = SYMBOL_INT;
        is_whole = take_number(&symbol.number, pickle,
                               *code == 'K'   ? 1
                               : *code == 'M' ? 2
                                              : 4,
                               *code == 'J');
        break;
    case 0x8a: // LONG1
        kind = SYMBOL_INT;
        is_whole = take_long(&symbol.number, pickle);
        break;
    case 'X':  // BINUNICODE
    case 0x8c: // SHORT_BINUNICODE
        kind = SYMBOL_TEXT;
        is_whole = take_text(&symbol, pickle, *code == 'X' ? 4 : 1);
        break;
    case 'c': // GLOBAL
        kind = SYMBOL_GLOBAL;
        is_whole = take_global(&symbol, pickle);
        break;
    default:
        break;
    }
    symbol.kind = is_whole ? kind : SYMBOL_END;
    return symbol;
}

// ---- the one row -------------------------------------------------------------------------------

static bool is_code(Pickle *pickle, unsigned char code)
{
    const Symbol symbol = next(pickle);
    return symbol.kind == SYMBOL_CODE && symbol.code == code;
}

static bool is_int(int64_t *out, Pickle *pickle)
{
    const Symbol symbol = next(pickle);
    *out = symbol.number;
    return symbol.kind == SYMBOL_INT;
}

static bool is_text(char out[TORCH_TEXT_BYTES], Pickle *pickle)
{
    const Symbol symbol = next(pickle);
    memcpy(out, symbol.text, TORCH_TEXT_BYTES);
    return symbol.kind == SYMBOL_TEXT;
}

// Protocol 4 writes a global as two texts and a code.
static bool is_global(char out[TORCH_TEXT_BYTES], Pickle *pickle)
{
    Symbol symbol = next(pickle);
    memcpy(out, symbol.text, TORCH_TEXT_BYTES);
    if (symbol.kind != SYMBOL_TEXT)
        return symbol.kind == SYMBOL_GLOBAL;
    symbol = next(pickle);
    const size_t used = strlen(out);
    if (symbol.kind != SYMBOL_TEXT || used + 1 + strlen(symbol.text) >= TORCH_TEXT_BYTES)
        return false;
    out[used] = ' ';
    memcpy(out + used + 1, symbol.text, strlen(symbol.text) + 1);
    return is_code(pickle, 0x93); // STACK_GLOBAL
}

static bool is_named(Pickle *pickle, const char *name)
{
    char global[TORCH_TEXT_BYTES];
    return is_global(global, pickle) && strcmp(global, name) == 0;
}

static bool is_triple(int64_t out[3], Pickle *pickle)
{
    return is_int(&out[0], pickle) && is_int(&out[1], pickle) && is_int(&out[2], pickle) &&
           is_code(pickle, 0x87); // TUPLE3
}

// Whether gradients are wanted: either.
static bool is_bool(Pickle *pickle)
{
    const Symbol symbol = next(pickle);
    return symbol.kind == SYMBOL_CODE && (symbol.code == 0x88 || symbol.code == 0x89);
}

// ("storage", class, key, device, numbers) as a persistent id.
static bool is_storage(TorchPickle *tensor, Pickle *pickle)
{
    char text[TORCH_TEXT_BYTES], device[TORCH_TEXT_BYTES];
    return is_code(pickle, '(') && is_text(text, pickle) && strcmp(text, "storage") == 0 &&
           is_global(tensor->storage, pickle) && is_text(tensor->key, pickle) &&
           is_text(device, pickle) && is_int(&tensor->n_stored, pickle) && is_code(pickle, 't') &&
           is_code(pickle, 'Q'); // TUPLE, BINPERSID
}

// _rebuild_tensor_v2(storage, offset, dims, strides, requires_grad, OrderedDict()).
static bool is_tensor(TorchPickle *tensor, Pickle *pickle)
{
    return is_named(pickle, "torch._utils _rebuild_tensor_v2") && is_code(pickle, '(') &&
           is_storage(tensor, pickle) && is_int(&tensor->offset, pickle) &&
           is_triple(tensor->dims, pickle) && is_triple(tensor->strides, pickle) &&
           is_bool(pickle) && is_named(pickle, "collections OrderedDict") && is_code(pickle, ')') &&
           is_code(pickle, 'R') && is_code(pickle, 't') && is_code(pickle, 'R') &&
           is_code(pickle, '.');
}

bool torch_pickle_read(TorchPickle *out, const unsigned char *bytes, int64_t size_bytes)
{
    Pickle pickle = {bytes, bytes + size_bytes};
    return is_tensor(out, &pickle);
}

bool torch_pickle_is_dict(const unsigned char *bytes, int64_t size_bytes)
{
    Pickle pickle = {bytes, bytes + size_bytes};
    return is_code(&pickle, '}'); // EMPTY_DICT
}
