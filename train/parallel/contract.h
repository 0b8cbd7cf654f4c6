// What all ranks of a job must have the same: a list of keys and values, which each rank makes of
// what it has itself and all compare before they begin to work.
//
//     Contract contract = {0};
//     contract_add(&contract, "optim.lr", "%s", "1.0e-3");
//     Status status = read_model(&model, dir);
//     if (status == OK)
//         contract_add(&contract, "vocab_size", "%d", model.shape.vocab_size);
//     TRY(contract_agree(&contract, &comm, status, "every rank needs the same config"));
//
// A job of unequal ranks is refused in one line, such as
//
//     rank 1 on node7: optim.lr is 9.0e-3, rank 0 on node3 has 1.0e-3; every rank needs the same
//     config
//
// instead of ending in a mixture of two runs, a message of the wrong length or a wait without end.
// Equal ranks exchange a checksum and no more.
//
// A list must not hold what may differ: the path of a file that machines have copies of is not what
// counts, its content is.
#ifndef MHA2MLA_TRAIN_PARALLEL_CONTRACT_H
#define MHA2MLA_TRAIN_PARALLEL_CONTRACT_H

#include "train/parallel/comm.h"

#include <jansson.h>

typedef struct Contract {
    char *bytes; // owned: key, zero, value, zero, next key ...
    int64_t size_bytes, reserved_bytes;
    bool lacks_memory; // for what was added: contract_agree() fails
} Contract;

// Adds a key with its value, in the same order on all ranks. Not collective.
void contract_add(Contract *contract, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

// Adds every number and text of a JSON value as a key of its own: "KEY.sources[0].weight". Objects
// in the order of their members. Not collective.
void contract_add_json(Contract *contract, const char *key, const json_t *value);

// Compares the lists of all ranks, which are released. `own` is how the making of this rank's went:
// where one rank failed all return its error, as comm_agree() does. BAD_INPUT on all ranks with the
// first key that differs on the first rank that differs from rank 0, both values and `demand`, a
// clause that says what to do. Collective.
Status contract_agree(Contract *contract, const Comm *comm, Status own, const char *demand);

// The same where unequal ranks can work together: the difference is a warning, with `consequence`
// behind it. FAILED: no memory. Collective.
Status contract_warn(Contract *contract, const Comm *comm, const char *consequence);

#endif
