// Documents out of text files or standard input: .jsonl (also named .json) and .txt, plain, gzip or
// zstd.
//
//     TextReader *reader;
//     TRY(text_open(&reader, "fineweb.jsonl.gz", &(TextOptions){.field = "text"}));
//     TextDocument document;
//     while ((status = text_next(reader, &document)) == OK && document.bytes != NULL)
//         use(document.bytes, document.size_bytes);
//     text_close(reader);
//
// What a file holds goes by its ending or the format that is given (text_source.h), how it is
// compressed by its content (text_stream.h).
//   .jsonl: one JSON object per line, the document is the string in `field`; blank lines are
//           skipped. Beside the text all is allowed that Python writes (text_line.h).
//   .txt:   the whole file is one document, byte for byte; with a separator it is split there, and
//           line breaks at both ends of each piece are dropped.
// Empty documents are skipped, and so is a UTF-8 byte order mark at the start of a file. Documents
// are UTF-8 without zero bytes (which UTF-16 has); in other encodings they would become tokens of
// another text, without a word.
//
// Memory: one buffer, as long as the longest document of the file (for .jsonl its line, twice). A
// reader belongs to one thread. Errors are BAD_INPUT naming file and line: broken JSON, no such
// field, a field that is no string, bytes that are not UTF-8 text, a damaged or truncated file, a
// document longer than TEXT_MAX_BYTES. With `skipped` these are counted, the first few shown as
// warnings, and reading continues after the line, or after the file if it is the file that is
// damaged.
#ifndef MHA2MLA_DATA_TEXT_TEXT_H
#define MHA2MLA_DATA_TEXT_TEXT_H

#include "base/status.h"
#include "data/text/text_source.h"

#include <signal.h>
#include <stdint.h>

enum { TEXT_MAX_BYTES = 1 << 27 }; // tokenizing takes about 20 bytes of memory for each

typedef enum TextFault {
    TEXT_BROKEN_JSON, // a line
    TEXT_NO_FIELD,    // a line
    TEXT_NOT_STRING,  // a line
    TEXT_NOT_UTF8,    // a line, or a document of a .txt
    TEXT_DAMAGED,     // a file: the documents before the damage are kept, not the one it is in
    TEXT_N_FAULTS,
} TextFault;

typedef struct TextSkips {
    int64_t counts[TEXT_N_FAULTS];
} TextSkips;

typedef struct TextOptions {
    TextFormat format;
    const char *field;     // .jsonl: borrowed until text_close(); NULL means "text"
    const char *separator; // .txt: borrowed likewise; NULL or "" means one document per file
    TextSkips *skipped;    // borrowed likewise; NULL: the first fault is an error
    const volatile sig_atomic_t *stop; // borrowed likewise; may be NULL. Set: reading is FAILED
} TextOptions;

typedef struct TextDocument {
    const char *bytes; // borrowed until the next call; NULL after the last document
    int64_t size_bytes;
} TextDocument;

typedef struct TextReader TextReader;

// Errors as text_source.h has them: a name that does not say what it holds, what cannot be read,
// and FAILED when `stop` ends the wait for a pipe's writer. Pipes are read once, like files.
Status text_open(TextReader **out, const char *path, const TextOptions *options);

Status text_next(TextReader *reader, TextDocument *out);

// Bytes of the file (as it is on the disk, so compressed) read so far: for progress.
int64_t text_offset_bytes(const TextReader *reader);

// What was skipped, "2 lines of broken JSON, 1 damaged file", or "" if nothing was.
enum { TEXT_SKIPS_BYTES = 256 };
void text_describe_skips(char out[TEXT_SKIPS_BYTES], const TextSkips *skipped);

void text_close(TextReader *reader); // NULL is allowed

#endif
