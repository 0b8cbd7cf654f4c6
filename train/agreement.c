// Each list is made of values the program works with, not of the text of files: a config is
// compared after defaults and overrides, a model by its tensors, a shard by its tokens. So what is
// written differently and means the same is the same.
#include "train/agreement.h"

#include "base/checksum.h"
#include "data/mixture.h"
#include "data/shards/source.h"
#include "data/tokenizer/tokenizer_file.h"
#include "model/hf/hf.h"
#include "model/hf/hf_fingerprint.h"
#include "model/shape_fields.h"
#include "train/config/config_values.h"
#include "train/parallel/contract.h"
#include "train/validation.h"

#include <stdio.h>

static const char same_config[] = "every rank needs the same config";
static const char same_model[] = "every rank needs the same model";
static const char same_data[] = "every rank needs the same data";

// ---- config ------------------------------------------------------------------------------------

// A path may differ between hosts; what lies there is compared by content, below.
static void add_value(Contract *contract, const ConfigValue *value)
{
    contract_add(contract, value->key, "%s", value->is_path ? "a path" : value->text);
}

// What follows from other keys comes after them, so that the first difference is the one that was
// written: train.steps is later in the table than optim.decay_start, which follows from it.
static Status add_values(Contract *contract, const Config *config)
{
    ConfigValues values;
    TRY(config_values_list(&values, config));
    for (int i = 0; i < values.n; i++)
        if (!values.items[i].is_derived)
            add_value(contract, &values.items[i]);
    for (int i = values.n - 1; i >= 0; i--)
        if (values.items[i].is_derived)
            add_value(contract, &values.items[i]);
    config_values_release(&values);
    return OK;
}

Status agreement_config(const Comm *comm, const Config *config, Status own)
{
    Contract contract = {0};
    if (own == OK)
        own = add_values(&contract, config);
    return contract_agree(&contract, comm, own, same_config);
}

// ---- model -------------------------------------------------------------------------------------

// One key for each field, so that the error names the field that differs.
static void add_shape(Contract *contract, const char *whose, const ModelShape *shape)
{
    char key[128], value[SHAPE_TEXT_BYTES];
    for (int i = 0; i < N_SHAPE_FIELDS; i++) {
        snprintf(key, sizeof key, "%s %s", whose, shape_fields[i].key);
        contract_add(contract, key, "%s", shape_field_format(value, &shape_fields[i], shape));
    }
    snprintf(key, sizeof key, "%s healed_seq_len", whose);
    contract_add(contract, key, "%d", shape->healed_seq_len);
}

Status agreement_shapes(const Comm *comm, const ModelShape *original, const ModelShape *converted,
                        Status own)
{
    Contract contract = {0};
    if (own == OK) {
        add_shape(&contract, "the model's", original);
        add_shape(&contract, "the trained model's", converted);
    }
    return contract_agree(&contract, comm, own, same_model);
}

// The weights are compared by samples of every tensor: reading a model of 7 billion parameters on
// every rank would take minutes.
static Status add_model(Contract *contract, const char *dir)
{
    char sha256[SHA256_HEX_BYTES];
    ModelShape shape;
    json_t *fingerprint;
    TRY(hf_load_shape(&shape, dir));
    add_shape(contract, "the model's", &shape);
    TRY(hf_fingerprint(&fingerprint, dir));
    contract_add_json(contract, "tensors", fingerprint);
    json_decref(fingerprint);
    TRY(tokenizer_file_sha256(sha256, dir));
    contract_add(contract, "the tokenizer's sha256", "%s", sha256);
    return OK;
}

// On one rank nothing is read: a fingerprint touches every tensor's file.
Status agreement_model(const Comm *comm, const char *dir)
{
    Contract contract = {0};
    if (comm->size == 1)
        return OK;
    return contract_agree(&contract, comm, add_model(&contract, dir), same_model);
}

// The whole file: scores are small beside a model.
Status agreement_file(const Comm *comm, const char *name, const char *path)
{
    Contract contract = {0};
    char sha256[SHA256_HEX_BYTES];
    const Status status = checksum_sha256_file(sha256, path);
    if (status == OK)
        contract_add(&contract, name, "a file with sha256 %s", sha256);
    return contract_agree(&contract, comm, status, "every rank needs the same file");
}

Status agreement_tokenizer(const Comm *comm, const char *sha256, Status own)
{
    Contract contract = {0};
    if (own == OK)
        contract_add(&contract, "the tokenizer's sha256", "%s", sha256);
    return contract_agree(&contract, comm, own, "every rank needs the same tokenizer");
}

// ---- data --------------------------------------------------------------------------------------

// A copy may have another name.
static void drop_file_names(json_t *value)
{
    const char *name;
    json_t *member;
    if (json_is_object(value)) {
        json_object_del(value, "file");
        json_object_foreach(value, name, member) drop_file_names(member);
    }
    for (size_t i = 0; i < json_array_size(value); i++)
        drop_file_names(json_array_get(value, i));
}

static Status add_fingerprint(Contract *contract, const char *key, json_t *fingerprint)
{
    if (fingerprint == NULL)
        return fail(FAILED, "no memory for the data's fingerprint");
    drop_file_names(fingerprint);
    contract_add_json(contract, key, fingerprint);
    json_decref(fingerprint);
    return OK;
}

// Opens the data as the run will, so what is wrong with them shows before anything long begins. The
// fingerprint of a shard comes from its size, its documents and a sample of its tokens.
static Status add_data(Contract *contract, const Config *config, int vocab_size,
                       const char *tokenizer_sha256)
{
    const DataConfig *data = &config->data;
    Mixture *mixture;
    Validation validation;
    TRY(mixture_open(&mixture, data->sources, data->n_sources, data->seq_len,
                     (uint64_t)config->run.seed, tokenizer_sha256, vocab_size));
    Status status = add_fingerprint(contract, "data", mixture_fingerprint(mixture));
    mixture_close(mixture);
    if (status != OK || !data->validation.given)
        return status;
    TRY(validation_open(&validation, config, vocab_size, tokenizer_sha256));
    status = add_fingerprint(contract, "data.validation", source_fingerprint(validation.source));
    validation_close(&validation);
    return status;
}

Status agreement_data(const Comm *comm, const Config *config, int vocab_size,
                      const char *tokenizer_sha256)
{
    Contract contract = {0};
    if (comm->size == 1) // nobody to compare with: the data are opened when they are needed
        return OK;
    const Status own = add_data(&contract, config, vocab_size, tokenizer_sha256);
    return contract_agree(&contract, comm, own, same_data);
}

Status agreement_fingerprint(const Comm *comm, json_t *fingerprint, Status own)
{
    Contract contract = {0};
    if (own == OK)
        own = add_fingerprint(&contract, "data", fingerprint);
    return contract_agree(&contract, comm, own, same_data);
}
