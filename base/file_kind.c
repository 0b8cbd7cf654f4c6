#include "base/file_kind.h"

#include "base/file.h"

#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LONGEST_START = 64 };

typedef struct FileKind {
    const char *start; // the first bytes, without regard to letters' case
    int start_bytes;
    const char *text;
} FileKind;

#define WEB_PAGE "a web page, not the file itself; check the address and that you are logged in"

static const FileKind kinds[] = {
    {"version https://git-lfs", 23,
     "a Git LFS pointer, not the file itself; fetch it with git lfs pull"},
    {"<!doctype html", 14, WEB_PAGE},
    {"<html", 5, WEB_PAGE},
    {"<?xml", 5, "XML, as servers answer errors; check the address and that you are logged in"},
    {"\x28\xb5\x2f\xfd", 4, "zstd-compressed; decompress it with zstd -d"},
    {"\xfd"
     "7zXZ",
     5, "xz-compressed; decompress it with xz -d"},
    {"BZh", 3, "bzip2-compressed; decompress it with bzip2 -d"},
    {"PK\x03\x04", 4, "a zip archive (torch.save() makes such files too); unpack or convert it"},
    {"PAR1", 4, "a Parquet file; write its text column as JSON lines (.jsonl)"},
    {"\x89HDF\r\n\x1a\n", 8, "an HDF5 file"},
    {"GGUF", 4, "a GGUF file; the Hugging Face model in safetensors is needed"},
    {"\xff\xfe", 2, FILE_KIND_UTF16},
    {"\xfe\xff", 2, FILE_KIND_UTF16},
    {"\x80\x02", 2, "a Python pickle; save the model as safetensors"},
};

const char *file_kind_of_bytes(const void *bytes, int64_t size_bytes)
{
    const char *text = bytes, *end = text + size_bytes;
    // Web servers put line breaks before a page; no other kind begins with one.
    while (text < end && (*text == ' ' || *text == '\n' || *text == '\r' || *text == '\t'))
        text++;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const FileKind *kind = &kinds[k];
        if (end - text >= kind->start_bytes &&
            strncasecmp(text, kind->start, (size_t)kind->start_bytes) == 0)
            return kind->text;
    }
    return NULL;
}

Status file_kind_check(const char *path)
{
    char control[PATH_BYTES], start[LONGEST_START];
    int fd;
    // aria2 keeps this beside the file, which has its full size from the start, until all is there.
    if (snprintf(control, sizeof control, "%s.aria2", path) < PATH_BYTES && file_exists(control))
        return fail(BAD_INPUT,
                    "%s: its download is not finished: %s is there; start aria2c again in its "
                    "directory",
                    path, control);
    if (file_open(&fd, path) != OK)
        return OK;
    const ssize_t n = pread(fd, start, sizeof start, 0);
    close(fd);
    const char *kind = n > 0 ? file_kind_of_bytes(start, n) : NULL;
    return kind == NULL ? OK : fail(BAD_INPUT, "%s: is %s", path, kind);
}
