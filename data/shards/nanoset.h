// Nanosets: the token files of nanotron and datatrove, read as they are.
//
//     Nanoset *nanoset;
//     TRY(nanoset_open(&nanoset, "fineweb-edu.ds"));
//     TRY(nanoset_read(nanoset, first, count, ids));
//     nanoset_close(nanoset);
//
// NAME.ds holds nothing but ids, little-endian, of 2 bytes each (vocabularies up to 65536) or 4;
// NAME.ds.index holds where each document ends, in tokens, as little-endian uint64. So the last end
// tells how many tokens there are, and with the size of NAME.ds how wide they are. Neither has a
// checksum, nor says which tokenizer it was made with: the reader of the ids must check them.
//
// Errors are BAD_INPUT naming the file: no index, sizes that do not fit, ends that descend; at a
// read, a file that became shorter. One thread at a time per handle; nothing is held in memory.
#ifndef MHA2MLA_DATA_SHARDS_NANOSET_H
#define MHA2MLA_DATA_SHARDS_NANOSET_H

#include "base/status.h"

#include <stdint.h>

typedef struct Nanoset Nanoset;

// Opens both files and checks the whole index.
Status nanoset_open(Nanoset **out, const char *path);

int64_t nanoset_n_tokens(const Nanoset *nanoset);
int64_t nanoset_n_documents(const Nanoset *nanoset);
int nanoset_token_bytes(const Nanoset *nanoset);          // 2 or 4
uint32_t nanoset_documents_crc32(const Nanoset *nanoset); // over the index
const char *nanoset_path(const Nanoset *nanoset);

// Reads tokens first .. first + count - 1, which must be there, into out [count]. An id above
// INT32_MAX is BAD_INPUT.
Status nanoset_read(Nanoset *nanoset, int64_t first, int64_t count, int32_t *out);

void nanoset_close(Nanoset *nanoset); // NULL is allowed

#endif
