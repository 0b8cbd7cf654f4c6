// A config as YAML: the resolved one of a run, and the reference of all keys. Both are written from
// the table and not through libyaml's emitter, which cannot write comments.
#include "train/config/config.h"

#include "base/file.h"
#include "train/config/config_table.h"
#include "train/config/config_value.h"

#include <string.h>

enum { MARGIN_BYTES = 64, COMMENT_COLUMNS = 100 };

static const void *field_of(const void *base, size_t offset)
{
    return (const char *)base + offset;
}

static void write_indent(FILE *out, int indent)
{
    fprintf(out, "%*s", indent, "");
}

// A list of texts in block style, one to a line: paths are long.
static void write_texts(FILE *out, const void *base, const Key *key, int indent)
{
    char *const *texts = *(char *const *const *)field_of(base, key->offset);
    int n = *(const int *)field_of(base, key->count_offset);
    for (int i = 0; i < n; i++) {
        fputc('\n', out);
        write_indent(out, indent);
        fputs("- ", out);
        value_write_text(out, texts[i]);
    }
}

static void write_block(FILE *out, const void *base, const char *block, int indent, bool is_item);

static void write_items(FILE *out, const void *base, const Key *key, int indent)
{
    const char *items = *(const void *const *)field_of(base, key->offset);
    int n = *(const int *)field_of(base, key->count_offset);
    char block[128];
    snprintf(block, sizeof block, "%s[]", key->path);
    fputc('\n', out);
    for (int i = 0; i < n; i++)
        write_block(out, items + (size_t)i * key->item_bytes, block, indent + 2, true);
}

// The keys of an item stand two to the right of its dash, which `is_item` puts before the first.
static void write_block(FILE *out, const void *base, const char *block, int indent, bool is_item)
{
    for (int k = 0; k < n_config_keys; k++) {
        const Key *key = &config_keys[k];
        const char *name = key_name_in(key, block);
        if (name == NULL || !value_is_given(base, key))
            continue;
        write_indent(out, is_item ? indent - 2 : indent);
        fprintf(out, "%s%s:", is_item ? "- " : "", name);
        is_item = false;
        if (key->kind == KEY_SECTION || key->kind == KEY_BLOCK) {
            fputc('\n', out);
            write_block(out, base, key->path, indent + 2, false);
        } else if (key->kind == KEY_ITEMS) {
            write_items(out, base, key, indent + 2);
        } else {
            if (key->kind == KEY_TEXTS) {
                write_texts(out, base, key, indent + 2);
            } else {
                fputc(' ', out);
                value_write(out, base, key);
            }
            fputc('\n', out);
        }
    }
}

void config_print(FILE *out, const Config *config)
{
    write_block(out, config, "", 0, false);
}

// Renamed into place when it is whole.
Status config_write(const Config *config, const char *path)
{
    AtomicFile file;
    TRY(file_begin(&file, path));
    config_print(file.stream, config);
    return file_commit(&file); // sees the stream's error
}

// "# peak learning rate (0 to 10; default 1.0e-4)", broken between words into lines that all start
// with the margin.
static void print_comment(FILE *out, const Key *key, const char *margin)
{
    char notes[KEY_NOTES_BYTES] = "", text[2 * KEY_NOTES_BYTES];
    if (key->kind != KEY_SECTION)
        key_describe(notes, key);
    snprintf(text, sizeof text, key->kind != KEY_SECTION ? "%s (%s)" : "%s", key->help, notes);
    int column = COMMENT_COLUMNS; // of the end of the line so far
    for (const char *word = text; *word != '\0';) {
        const int length = (int)strcspn(word, " ");
        if (column + 1 + length > COMMENT_COLUMNS)
            column = fprintf(out, "%s%s#", word > text ? "\n" : "", margin) - (word > text);
        column += fprintf(out, " %.*s", length, word);
        word += length + (word[length] == ' ');
    }
    fputc('\n', out);
}

// The margin of a nested block. Nesting is bounded by the table, hence the CHECK.
static void widen(char out[MARGIN_BYTES], const char *margin, const char *more)
{
    int n = snprintf(out, MARGIN_BYTES, "%s%s", margin, more);
    CHECK(n < MARGIN_BYTES, "keys nested %d wide", n);
}

static void print_block(FILE *out, const char *block, const char *margin);

// `margin` is what every line starts with: spaces, in a block that is commented out with "# ". A
// key without a default shows its example.
static void print_key(FILE *out, const Key *key, const char *name, const char *margin,
                      const char *dash)
{
    char own[MARGIN_BYTES], inner[MARGIN_BYTES];
    print_comment(out, key, margin);
    widen(own, margin, key->is_off ? "# " : "");
    fprintf(out, "%s%s%s:", own, dash, name);
    if (key->kind == KEY_SECTION || key->kind == KEY_BLOCK) {
        fputc('\n', out);
        widen(inner, own, "  ");
        print_block(out, key->path, inner);
    } else if (key->kind == KEY_ITEMS) {
        fputc('\n', out);
        char block[128];
        snprintf(block, sizeof block, "%s[]", key->path);
        widen(inner, own, "  ");
        print_block(out, block, inner);
    } else {
        fprintf(out, " %s\n", key->standard != NULL ? key->standard : key->example);
    }
}

static void print_block(FILE *out, const char *block, const char *margin)
{
    bool is_item = strstr(block, "[]") != NULL;
    char inner[MARGIN_BYTES];
    for (int k = 0; k < n_config_keys; k++) {
        const char *name = key_name_in(&config_keys[k], block);
        if (name == NULL)
            continue;
        if (block[0] == '\0')
            fputc('\n', out);
        print_key(out, &config_keys[k], name, margin, is_item ? "- " : "");
        if (is_item) { // the keys after the first stand under it, right of the dash
            widen(inner, margin, "  ");
            margin = inner;
            is_item = false;
        }
    }
}

// The text is itself a config that can be loaded: optional keys are commented out with their block.
void config_print_reference(FILE *out)
{
    fputs("# Every key of a training config. Above each: what it means; bounds and unit; default.\n"
          "# Any key can be set on the command line: --optim.lr=2.0e-4, --model.convert=none.\n",
          out);
    print_block(out, "", "");
}
