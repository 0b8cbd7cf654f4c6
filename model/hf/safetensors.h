// Files in the safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes
// (https://github.com/huggingface/safetensors, "Format").
//
//     SafeTensors file;
//     TRY(safetensors_open(&file, "model.safetensors"));
//     status = safetensors_read_f32(&file, "model.norm.weight", (int[]){576}, 1, values);
//     safetensors_close(&file);
//
// Every header is checked before use: length, JSON, dtypes, shapes, offsets inside the file that
// agree with the shape, no overlaps. BAD_INPUT names the file, the tensor and the value. Tensors
// may lie unaligned; those of the format's other dtypes (I64, U8, BOOL ...) are listed, and
// refused by name when they are read.
#ifndef MHA2MLA_MODEL_HF_SAFETENSORS_H
#define MHA2MLA_MODEL_HF_SAFETENSORS_H

#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "model/kernels/dtype.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

typedef struct TensorInfo {
    const char *name; // borrowed from the open file, or from who renamed it
    DType dtype;
    const char *dtype_text; // as in the file; borrowed from the open file
    int n_dims;             // 0: a single number
    int64_t dims[SAFETENSORS_MAX_DIMS];
    const unsigned char
        *bytes; // borrowed from the map: its place, tensors are read by the functions
    int64_t size_bytes;
} TensorInfo;

typedef struct SafeTensors {
    char path[PATH_BYTES];
    FileMap map;         // owned
    int fd;              // owned
    json_t *header;      // owned
    TensorInfo *tensors; // owned, sorted by name
    int n_tensors;
} SafeTensors;

Status safetensors_open(SafeTensors *out, const char *path);
void safetensors_close(SafeTensors *file);

// NULL if the file has no such tensor.
const TensorInfo *safetensors_find(const SafeTensors *file, const char *name);

// Lets `rename` replace the names of a file's tensors by others, which must live as long as the
// file. BAD_INPUT if two become the same, or as `rename` says.
typedef Status (*SafeTensorsRename)(const char **name, void *context, const SafeTensors *file);
Status safetensors_rename(SafeTensors *file, SafeTensorsRename rename, void *context);

// Reads a tensor of exactly these dims as float32 (from F32, F16 or BF16, exactly, or from F64) or
// int32 (from I32). BAD_INPUT if missing, of other dims or another kind.
Status safetensors_read_f32(const SafeTensors *file, const char *name, const int *dims, int n_dims,
                            float *out);
Status safetensors_read_i32(const SafeTensors *file, const char *name, const int *dims, int n_dims,
                            int32_t *out);

// Whether two tensors, of one file or of two, hold the same numbers in the same shape, whatever
// float dtypes they are stored in.
Status safetensors_are_equal(bool *out, const SafeTensors *file, const char *name,
                             const SafeTensors *other_file, const char *other_name);

// Writing: one tensor after another, in the order of the list, converted to `dtype` (round to
// nearest even, NaN stays NaN) while it is written. The file appears whole or not at all. Names
// must differ. List the wider dtypes first to keep every tensor aligned.
typedef struct TensorSpec {
    const char *name;
    DType dtype;
    int n_dims;
    int64_t dims[SAFETENSORS_MAX_DIMS];
    const void *values; // borrowed: float for float dtypes, int32_t for DTYPE_I32
    // In place of values: fills a tensor of a float dtype with another arrangement of a model's
    // numbers. NULL: there are values.
    void (*make)(float *out, const void *context, int tensor);
    const void *context; // borrowed
    int tensor;
} TensorSpec;

int64_t tensor_spec_count(const TensorSpec *spec); // numbers

// The numbers of a tensor of a float dtype; `scratch` has room for a made one.
const float *tensor_spec_values(const TensorSpec *spec, float *scratch);

// Numbers of the largest tensor of a list that is made; 0: none is.
int64_t tensor_specs_scratch(const TensorSpec *tensors, int n_tensors);

// How numbers are stored: `numbers` of them, one after another, in `bytes` bytes.
typedef struct TensorEncoding {
    int numbers, bytes;
    // `count` numbers, a multiple of `numbers`; on any thread. NULL: as they are in memory.
    void (*encode)(void *out, const float *values, int64_t count);
} TensorEncoding;

TensorEncoding tensor_encoding(DType dtype);

// Writes tensors into a file that the caller has begun, in any format. Numbers are converted in a
// buffer, and a tensor that is made is held while it is written: nothing of the model's size.
typedef struct TensorWriter {
    void *block;         // owned
    float *made;         // owned: of the largest made tensor; NULL: there is none
    ProgressMeter meter; // of numbers
    int64_t n_done;
} TensorWriter;

Status tensor_writer_create(TensorWriter *out, const char *path, const TensorSpec *tensors,
                            int n_tensors);
Status tensor_writer_put(TensorWriter *writer, AtomicFile *file, const TensorSpec *spec,
                         TensorEncoding encoding);
void tensor_writer_release(TensorWriter *writer);

// FAILED if the disk is full or memory is short.
Status safetensors_write(const char *path, const TensorSpec *tensors, int n_tensors);

#endif
