// The list is one block of text, so that a checksum of it is a checksum of everything in it, and so
// that rank 0's can be handed to the others as it is where checksums differ.
#include "train/parallel/contract.h"

#include "base/checksum.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Bytes of a value that the error text shows: a list of shards may be longer than a line.
enum { MAX_SHOWN = 300, KEY_BYTES = 256 };

// Doubles the block, since thousands of shards or tensors are added one by one.
static bool reserve(Contract *contract, int64_t more_bytes)
{
    const int64_t needed = contract->size_bytes + more_bytes;
    if (needed <= contract->reserved_bytes)
        return true;
    char *bytes = realloc(contract->bytes, (size_t)needed * 2);
    if (bytes == NULL) {
        contract->lacks_memory = true;
        return false;
    }
    contract->bytes = bytes;
    contract->reserved_bytes = needed * 2;
    return true;
}

void contract_add(Contract *contract, const char *key, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    const int key_bytes = (int)strlen(key) + 1, value_bytes = vsnprintf(NULL, 0, format, args) + 1;
    va_end(args);
    if (reserve(contract, key_bytes + value_bytes)) {
        char *end = contract->bytes + contract->size_bytes;
        memcpy(end, key, (size_t)key_bytes);
        vsnprintf(end + key_bytes, (size_t)value_bytes, format, again);
        contract->size_bytes += key_bytes + value_bytes;
    }
    va_end(again);
}

void contract_add_json(Contract *contract, const char *key, const json_t *value)
{
    char inner[KEY_BYTES];
    if (json_is_object(value)) {
        const char *name;
        json_t *member;
        json_object_foreach((json_t *)(uintptr_t)value, name, member)
        {
            snprintf(inner, sizeof inner, "%s.%s", key, name);
            contract_add_json(contract, inner, member);
        }
        return;
    }
    if (json_is_array(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            snprintf(inner, sizeof inner, "%s[%zu]", key, i);
            contract_add_json(contract, inner, json_array_get(value, i));
        }
        return;
    }
    if (json_is_string(value)) {
        contract_add(contract, key, "%s", json_string_value(value));
        return;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    contract->lacks_memory |= text == NULL;
    if (text != NULL)
        contract_add(contract, key, "%s", text);
    free(text);
}

// ---- where two lists differ --------------------------------------------------------------------

// A key and its value, borrowed from a list; key == NULL: the list is at its end.
typedef struct Entry {
    const char *key, *value;
} Entry;

static Entry entry_at(const char *bytes, int64_t size_bytes, int64_t *at)
{
    if (*at >= size_bytes)
        return (Entry){0};
    Entry entry = {.key = bytes + *at};
    entry.value = entry.key + strlen(entry.key) + 1;
    *at = entry.value + strlen(entry.value) + 1 - bytes;
    return entry;
}

static bool has_key(const Contract *contract, const char *key)
{
    int64_t at = 0;
    for (Entry e; (e = entry_at(contract->bytes, contract->size_bytes, &at)).key != NULL;)
        if (strcmp(e.key, key) == 0)
            return true;
    return false;
}

// The first difference as an error of this rank. Both lists have one order, so where the keys part
// one of the lists lacks a key.
static Status differ(const Contract *own, const Contract *root, const char *root_host,
                     const char *demand)
{
    int64_t own_at = 0, root_at = 0;
    Entry ours, theirs;
    do {
        ours = entry_at(own->bytes, own->size_bytes, &own_at);
        theirs = entry_at(root->bytes, root->size_bytes, &root_at);
    } while (ours.key != NULL && theirs.key != NULL && strcmp(ours.key, theirs.key) == 0 &&
             strcmp(ours.value, theirs.value) == 0);
    const bool is_ours = ours.key != NULL && !has_key(root, ours.key);
    if (is_ours)
        return fail(BAD_INPUT, "%s is %.*s, rank 0 on %s has none; %s", ours.key, MAX_SHOWN,
                    ours.value, root_host, demand);
    CHECK(theirs.key != NULL, "lists of ranks that do not differ");
    if (!has_key(own, theirs.key))
        return fail(BAD_INPUT, "%s is not given, rank 0 on %s has %.*s; %s", theirs.key, root_host,
                    MAX_SHOWN, theirs.value, demand);
    return fail(BAD_INPUT, "%s is %.*s, rank 0 on %s has %.*s; %s", ours.key, MAX_SHOWN, ours.value,
                root_host, MAX_SHOWN, theirs.value, demand);
}

// ---- agreement ---------------------------------------------------------------------------------

// Hands rank 0's list to all ranks; each that has another one finds the first difference itself,
// and comm_agree() chooses the lowest of these ranks and puts its name in front.
static Status find_difference(const Contract *own, const Comm *comm, const char *demand)
{
    char host[COMM_HOST_BYTES];
    snprintf(host, sizeof host, "%s", comm->host);
    comm_broadcast(comm, host, sizeof host, 0);
    Contract root = {.size_bytes = own->size_bytes};
    comm_broadcast(comm, &root.size_bytes, sizeof root.size_bytes, 0);
    root.bytes = malloc((size_t)root.size_bytes + 1);
    Status status = root.bytes != NULL ? OK : fail(FAILED, "no memory to compare the ranks");
    TRY_GOTO(release, comm_agree(comm, status));
    if (comm->rank == 0)
        memcpy(root.bytes, own->bytes, (size_t)own->size_bytes);
    comm_broadcast(comm, root.bytes, root.size_bytes, 0);
    const bool is_same = own->size_bytes == root.size_bytes &&
                         memcmp(own->bytes, root.bytes, (size_t)own->size_bytes) == 0;
    status = comm_agree(comm, is_same ? OK : differ(own, &root, host, demand));
release:
    free(root.bytes);
    return status;
}

static Status compare(const Contract *contract, const Comm *comm, Status own, const char *demand)
{
    char own_sum[SHA256_HEX_BYTES] = "", root_sum[SHA256_HEX_BYTES];
    if (own == OK && contract->lacks_memory)
        own = fail(FAILED, "no memory to compare the ranks");
    if (own == OK)
        own = checksum_sha256_bytes(own_sum, contract->bytes, contract->size_bytes);
    TRY(comm_agree(comm, own));
    // Rank 0's checksum goes to all and each compares: two small messages in the usual case.
    memcpy(root_sum, own_sum, sizeof root_sum);
    comm_broadcast(comm, root_sum, sizeof root_sum, 0);
    if (comm_all(comm, strcmp(own_sum, root_sum) == 0))
        return OK;
    return find_difference(contract, comm, demand);
}

Status contract_agree(Contract *contract, const Comm *comm, Status own, const char *demand)
{
    const Status status = compare(contract, comm, own, demand);
    free(contract->bytes);
    *contract = (Contract){0};
    return status;
}

Status contract_warn(Contract *contract, const Comm *comm, const char *consequence)
{
    const Status status = contract_agree(contract, comm, OK, consequence);
    if (status == BAD_INPUT)
        log_warn("%s", fail_text());
    return status == BAD_INPUT ? OK : status;
}
