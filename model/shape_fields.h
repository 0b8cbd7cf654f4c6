// The fields of ModelShape in one table: what each is called in a file, and which values it may
// have. Every reader and writer of a shape is a loop over it, and so is the first half of
// shape_check():
//
//     a checkpoint's manifest   by `name`, e.g. "n_layers" (train/checkpoint/manifest.h)
//     config.json               by `key`, e.g. "num_hidden_layers", at the place that `owner` says
//                                                                     (model/hf/hf_config.c)
//     a run's config            by `key` in model.init and model.convert
//                                                                 (train/config/config_table.c)
//
//     for (int i = 0; i < N_SHAPE_FIELDS; i++)
//         TRY(shape_field_read(&shape, &shape_fields[i], object, shape_fields[i].name, where));
//     TRY(shape_check(&shape, where)); // what several fields say together
#ifndef MHA2MLA_MODEL_SHAPE_FIELDS_H
#define MHA2MLA_MODEL_SHAPE_FIELDS_H

#include "base/json.h"
#include "model/shape.h"

#include <stddef.h>

typedef enum ShapeFieldKind {
    SHAPE_INT,      // int
    SHAPE_REAL,     // double
    SHAPE_BOOL,     // bool
    SHAPE_SVD_KIND, // SvdKind, by its name
    SHAPE_LAYERS,   // LayerSet: a list of a number for each layer, 0 for those in the set, else 1
} ShapeFieldKind;

// What config.json may do without.
typedef enum ShapePresence {
    SHAPE_REQUIRED,
    SHAPE_DERIVED,  // from other fields
    SHAPE_STANDARD, // has a value of its own, that of transformers' LlamaConfig
} ShapePresence;

// What says the field in config.json.
typedef enum ShapeOwner {
    SHAPE_OF_MODEL,        // a key of its own
    SHAPE_OF_ROPE,         // a key of the object with RoPE's scaling
    SHAPE_OF_ARCHITECTURE, // the architecture's row (model/hf/architecture.h); once the model is
                           // converted, the block "mha2mla"
    SHAPE_OF_CONVERSION,   // the block "mha2mla": what a conversion chooses
} ShapeOwner;

// Places in the table.
typedef enum ShapeFieldId {
    SHAPE_D_MODEL,
    SHAPE_D_FFN,
    SHAPE_N_LAYERS,
    SHAPE_N_HEADS,
    SHAPE_N_KV_HEADS,
    SHAPE_HEAD_DIM,
    SHAPE_VOCAB_SIZE,
    SHAPE_MAX_POSITIONS,
    SHAPE_RMS_EPS,
    SHAPE_ROPE_THETA,
    SHAPE_ROPE_FACTOR,
    SHAPE_ROPE_LOW_FREQ,
    SHAPE_ROPE_HIGH_FREQ,
    SHAPE_ROPE_ORIGINAL_POSITIONS,
    SHAPE_TIED_HEAD,
    SHAPE_NO_ROPE,
    SHAPE_SLIDING_WINDOW,
    SHAPE_QK_NORM,
    SHAPE_ATTENTION_BIAS,
    SHAPE_ROPE_PAIRS,
    SHAPE_D_KV,
    SHAPE_SVD,
    SHAPE_LATENT,
    SHAPE_LATENT_NORM,
    N_SHAPE_FIELDS,
} ShapeFieldId;

typedef struct ShapeField {
    const char *name; // in manifests: of the member of ModelShape
    const char *key;  // as Hugging Face and the run's config call it
    ShapeFieldKind kind;
    size_t offset; // in ModelShape
    ShapeOwner owner;
    bool may_miss;      // in a file that knows no such thing: stays as it is, zero
    double least, most; // numbers; both are allowed. d_kv 0 is the original attention
    ShapePresence presence;
    double standard; // SHAPE_STANDARD
} ShapeField;

extern const ShapeField shape_fields[N_SHAPE_FIELDS];

// The field's value as a number: ints, bools and enums fit a double without loss. Of a set it is
// the number of its layers, so that 0 stands for a model without the part in every kind.
double shape_field_value(const ShapeField *field, const ModelShape *shape);
void shape_field_set(const ShapeField *field, ModelShape *shape, double value); // no set

// Whether both shapes have the same value of the field.
bool shape_field_is_same(const ShapeField *field, const ModelShape *a, const ModelShape *b);

// BAD_INPUT if the value is not within the field's bounds; `where` names the file in the text.
Status shape_field_check(const ShapeField *field, const ModelShape *shape, const char *where);

// Reads the member `key` of an object into the field. BAD_INPUT if it is missing (and may not be),
// of another type or out of bounds; `where` names the file in the text.
Status shape_field_read(ModelShape *shape, const ShapeField *field, const json_t *object,
                        const char *key, const char *where);

// A new reference; NULL if memory is short. An empty set is null, which is read as an absent key.
json_t *shape_field_to_json(const ShapeField *field, const ModelShape *shape);

// The value as a reader of an error message wants it: reals with as many digits as tell them apart.
// A set is the digits of its list. Returns `out`.
enum { SHAPE_TEXT_BYTES = SHAPE_MAX_LAYERS + 8 };
const char *shape_field_format(char out[SHAPE_TEXT_BYTES], const ShapeField *field,
                               const ModelShape *shape);

#endif
