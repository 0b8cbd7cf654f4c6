// Inside the tokenizer: its tables and the stages a text passes. For data/tokenizer*.c only.
//
//     text -> added tokens -> normalizer -> added tokens -> pre-tokenizer -> words -> merges -> ids
//
// tokenizer.c        loading, the public functions, the post-processor
// tokenizer_json.c   tokenizer.json: its parts, added tokens
// tokenizer_steps.c  tokenizer.json: normalizer, pre-tokenizer, post-processor, decoder
// tokenizer_vocab.c  tokens and merges: hash tables, reading
// tokenizer_added.c  added tokens in a text
// tokenizer_split.c  normalizer and pre-tokenizer
// tokenizer_normal.c  Unicode normalization forms
// tokenizer_pattern.c the patterns on PCRE2
// tokenizer_regex.c   their regular expressions, rewritten for PCRE2
// tokenizer_regex_class.c  classes in them
// tokenizer_bpe.c    a word into ids: cache, merging
// tokenizer_decode.c the decoder's steps
// token_stream.c     ids into text, at once or as they come
// tokenizer_table.c   the tables as they are, for other formats
// tokenizer_chat.c    the chat template beside them
// tokenizer_text.c   growing bytes, UTF-8, the byte-level alphabet
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_PARTS_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_PARTS_H

#include "base/checksum.h"
#include "base/status.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/tokenizer_added.h"
#include "data/tokenizer/tokenizer_normal.h"
#include "data/tokenizer/tokenizer_pattern.h"
#include "data/tokenizer/tokenizer_text.h"
#include "data/tokenizer/tokenizer_vocab.h"

#include <jansson.h>

enum { TOKENIZER_MAX_STEPS = 32, TOKENIZER_MAX_TEMPLATE = 32 };

typedef enum TextStepKind {
    STEP_PREPEND,       // normalizer: content
    STEP_REPLACE,       // normalizer, decoder: pattern or regex by content
    STEP_NORMALIZE,     // normalizer: Unicode normalization `form`
    STEP_BYTE_FALLBACK, // decoder: <0xNN> to bytes
    STEP_FUSE,          // decoder: all tokens into one
    STEP_STRIP,         // decoder: up to `start` and `stop` times content from the ends
    STEP_BYTE_LEVEL,    // decoder: byte-level characters to bytes
    STEP_METASPACE,     // decoder: pattern to spaces; if `first`, to nothing in the first token
} TextStepKind;

typedef struct TextStep {
    TextStepKind kind;
    Bytes pattern, content; // owned
    Pattern *regex;         // owned; NULL: `pattern` is searched
    NormalForm form;
    bool first;
    int64_t start, stop;
} TextStep;

typedef enum SplitKind {
    SPLIT_NONE,       // the whole piece
    SPLIT_PATTERN,    // matches of the pattern, and what is between them
    SPLIT_EACH_DIGIT, // numeric characters, and what is between them
    SPLIT_DIGIT_RUNS, // runs of them, and what is between them
    SPLIT_METASPACE,  // spaces become `mark`; a piece begins at each of them if `cut_at_marks`
} SplitKind;

// What becomes of the matches and of the gaps between them: pieces of their own (also: without the
// matches), or joined with a neighbour. The names are tokenizer.json's.
typedef enum SplitBehavior {
    BEHAVIOR_ISOLATED,
    BEHAVIOR_REMOVED,
    BEHAVIOR_MERGED_WITH_PREVIOUS,
    BEHAVIOR_MERGED_WITH_NEXT,
    BEHAVIOR_CONTIGUOUS,
} SplitBehavior;

// When Metaspace puts a mark before a piece that does not begin with one.
typedef enum PrependScheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } PrependScheme;

typedef struct SplitStep {
    SplitKind kind;
    Pattern *pattern; // owned; for digits: one numeric character; NULL for other kinds
    char *regex;      // owned; the pattern as tokenizer.json writes it; NULL: it is not a Regex
    SplitBehavior behavior;
    bool invert; // gaps are the matches
    bool add_prefix_space;
    Bytes mark; // owned
    PrependScheme prepend;
    bool cut_at_marks;
} SplitStep;

struct Tokenizer {
    Model model;
    AddedSet added_raw, added_normalized;
    TextStep normalizer[TOKENIZER_MAX_STEPS];
    int n_normalizer;
    SplitStep splits[TOKENIZER_MAX_STEPS];
    int n_splits;
    bool has_byte_level;
    TextStep decoder[TOKENIZER_MAX_STEPS];
    int n_decoder;
    bool has_decoder; // without one, tokens are joined by spaces
    int32_t prefix[TOKENIZER_MAX_TEMPLATE], suffix[TOKENIZER_MAX_TEMPLATE];
    int n_prefix, n_suffix; // what the template puts around a text
    bool has_template;
    int32_t eos_id;
    uint64_t serial; // tells tokenizers apart for the word caches
    char sha256[SHA256_HEX_BYTES];
};

typedef struct Symbol {
    int32_t id; // -1: merged into the symbol on its left
    int32_t previous, next;
} Symbol;

typedef struct WordSlot WordSlot;

typedef struct TokenScratch {
    uint64_t serial; // of the tokenizer whose words are in the cache
    WordSlot *words; // owned; the word cache
    Bytes repaired, normalized, normalized_other, prefixed, marked, mapped;
    NormalScratch normal;
    Symbol *symbols; // owned
    int64_t symbols_capacity;
    uint64_t *heap; // owned; rank << 32 | position
    int64_t heap_size, heap_capacity;
    PatternMatch *match; // owned
} TokenScratch;

// What the stages of one tokenizer_encode() share.
typedef struct EncodeRun {
    const Tokenizer *tokenizer;
    TokenScratch *scratch;
    TokenBuffer *out;
    bool at_start; // the piece begins where the text does
} EncodeRun;

// tokenizer.c
Status token_scratch_create(TokenScratch **out);
void token_scratch_release(TokenScratch *scratch); // NULL is fine
Status token_buffer_reserve(TokenBuffer *buffer, int64_t more);

// tokenizer_json.c: everything but eos and sha256. On errors the caller releases.
Status tokenizer_json_read(Tokenizer *tokenizer, const char *path);
// BAD_INPUT unless `object` is an object whose keys are all in `keys`: " one two ".
Status tokenizer_only_keys(const json_t *object, const char *where, const char *keys);

// tokenizer_steps.c
Status steps_read_normalizer(Tokenizer *tokenizer, const json_t *object, const char *where);
Status steps_read_pre_tokenizer(Tokenizer *tokenizer, const json_t *object, const char *where);
Status steps_read_post_processor(Tokenizer *tokenizer, const json_t *object, const char *where);
Status steps_read_decoder(Tokenizer *tokenizer, const json_t *object, const char *where);
void steps_release(Tokenizer *tokenizer);

// tokenizer_split.c
// The normalizer's text, in scratch->normalized.
Status normalizer_apply(const Tokenizer *tokenizer, TokenScratch *scratch, const char *text,
                        int64_t size_bytes);
// Appends text [size] with every match of a STEP_REPLACE's pattern or regex replaced.
Status step_append_replaced(Bytes *out, PatternMatch *match, const TextStep *step, const char *text,
                            int64_t size);
Status split_text(EncodeRun *run, const char *text, int64_t size_bytes);

// tokenizer_bpe.c
Status bpe_encode_piece(EncodeRun *run, const char *text, int64_t size_bytes);
void bpe_scratch_release(TokenScratch *scratch);

#endif
