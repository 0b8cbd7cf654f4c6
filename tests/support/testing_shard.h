// Where the documents of a token shard start: the program checks that when it opens a shard and
// asks for it nowhere else.
#ifndef MHA2MLA_TESTS_SUPPORT_TESTING_SHARD_H
#define MHA2MLA_TESTS_SUPPORT_TESTING_SHARD_H

#include <stdint.h>

// Reads entries first .. first + count - 1 of /documents into out [count]; entry i is where
// document i starts, the last one where the last document ends. Fails the test where there are not
// as many.
void testing_documents(int64_t *out, const char *shard_path, int64_t first, int64_t count);

#endif
