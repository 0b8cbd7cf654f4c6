#include "model/gguf/gguf_words.h"

#include "data/tokenizer/tokenizer_pattern.h"

#include <stddef.h>

#define SUFFIXES "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define LETTERS  "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST     "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

enum { MAX_STEPS = 3 };

// ignores_merges: under this name a word that is a token stays whole, whatever its merges are.
static const struct {
    const char *name;
    bool ignores_merges;
    const char *steps[MAX_STEPS + 1]; // closed by NULL
} splits[] = {
    {"gpt-2", false, {PATTERN_GPT2}},
    {"smollm", false, {"\\p{N}", PATTERN_GPT2}},
    {"llama-bpe", true, {SUFFIXES LETTERS "\\p{N}{1,3}" REST}},
    {"dbrx", false, {SUFFIXES LETTERS "\\p{N}{1,3}" REST}},
    {"qwen2", false, {SUFFIXES LETTERS "\\p{N}" REST}},
    {"deepseek-v3",
     false,
     {"\\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?"
      "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
};

enum { N_SPLITS = sizeof splits / sizeof splits[0] };

// A line end is written as itself or as \r and \n.
static char take_character(const char **at)
{
    if (**at == '\\' && ((*at)[1] == 'r' || (*at)[1] == 'n')) {
        *at += 2;
        return (*at)[-1] == 'r' ? '\r' : '\n';
    }
    return *(*at)++;
}

static bool is_same_regex(const char *a, const char *b)
{
    char character;
    do {
        character = take_character(&a);
        if (take_character(&b) != character)
            return false;
    } while (character != '\0');
    return true;
}

static bool has_steps(const Tokenizer *tokenizer, const char *const steps[MAX_STEPS + 1])
{
    for (int i = 0; i <= MAX_STEPS; i++) {
        const char *regex = tokenizer_split_regex(tokenizer, i);
        if (regex == NULL || steps[i] == NULL)
            return regex == NULL && steps[i] == NULL;
        if (!is_same_regex(regex, steps[i]))
            return false;
    }
    return false;
}

const char *gguf_words_name(const Tokenizer *tokenizer)
{
    const bool ignores_merges = tokenizer_traits(tokenizer).ignores_merges;
    for (int i = 0; i < N_SPLITS; i++)
        if (splits[i].ignores_merges == ignores_merges && has_steps(tokenizer, splits[i].steps))
            return splits[i].name;
    return NULL;
}
