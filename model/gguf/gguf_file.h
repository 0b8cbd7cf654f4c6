// Files in the GGUF format, version 3 (github.com/ggml-org/ggml, docs/gguf.md): header, metadata,
// tensor infos, and the tensors' bytes, each at a multiple of 32. Little-endian.
//
//     GgufMeta meta;
//     TRY(gguf_meta_create(&meta));
//     gguf_put_text(&meta, "general.architecture", "llama");
//     gguf_put_array(&meta, "tokenizer.ggml.tokens", GGUF_VALUE_TEXT, n);
//     for (int i = 0; i < n; i++)
//         gguf_add_text(&meta, texts[i], sizes[i]);
//     status = gguf_write("model.gguf", &meta, &tensors, types);
//     gguf_meta_release(&meta);
//
// The puts keep the first error, lack of memory, for gguf_write().
#ifndef MHA2MLA_MODEL_GGUF_GGUF_FILE_H
#define MHA2MLA_MODEL_GGUF_GGUF_FILE_H

#include "model/hf/tensor_list.h"

// How a tensor's numbers are stored; the values are the format's.
typedef enum GgufType {
    GGUF_F32 = 0,
    GGUF_F16 = 1,
    GGUF_Q8_0 = 8, // blocks of 32: a scale of 16 bits and 32 codes of 8 bits (gguf_block.h)
    GGUF_BF16 = 30,
} GgufType;

// Kinds of values in the metadata, as far as they are written here; the values are the format's.
typedef enum GgufValue {
    GGUF_VALUE_U32 = 4,
    GGUF_VALUE_I32 = 5,
    GGUF_VALUE_F32 = 6,
    GGUF_VALUE_BOOL = 7,
    GGUF_VALUE_TEXT = 8,
    GGUF_VALUE_ARRAY = 9,
} GgufValue;

// Metadata as it will stand in the file. Stays where it is made: its stream knows the place.
typedef struct GgufMeta {
    FILE *stream; // owned; into `bytes`
    char *bytes;  // owned
    size_t size_bytes;
    uint64_t n_keys;
} GgufMeta;

Status gguf_meta_create(GgufMeta *out);
void gguf_meta_release(GgufMeta *meta);

void gguf_put_u32(GgufMeta *meta, const char *key, int64_t value); // CHECKs that it fits
void gguf_put_f32(GgufMeta *meta, const char *key, double value);
void gguf_put_bool(GgufMeta *meta, const char *key, bool value);
void gguf_put_text(GgufMeta *meta, const char *key, const char *value);

// The `count` elements follow by the function of their kind.
void gguf_put_array(GgufMeta *meta, const char *key, GgufValue kind, int64_t count);
void gguf_add_text(GgufMeta *meta, const char *text, int64_t size_bytes);
void gguf_add_pair(GgufMeta *meta, const char *left, int64_t left_bytes, const char *right,
                   int64_t right_bytes); // a text of both, with a space between
void gguf_add_i32(GgufMeta *meta, int32_t value);
void gguf_add_f32(GgufMeta *meta, float value);

// types [tensors->n_specs]; rows of GGUF_Q8_0 are whole blocks. The file appears whole or not at
// all. FAILED if the disk is full or memory is short.
Status gguf_write(const char *path, GgufMeta *meta, const TensorList *tensors,
                  const GgufType *types);

// Refuses before long work what would be lost, a file of another kind, and where gguf_write() would
// fail.
Status gguf_check_target(const char *path);

#endif
