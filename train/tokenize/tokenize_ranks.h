// Tokenization over the ranks of a run: text files into one token shard.
//
//     TokenizeCounts counts;
//     TRY(tokenize_over_ranks(&counts, &comm, &options, patterns, n_patterns));
//
// Rank 0 reads the texts, hands batches of documents to idle ranks, tokenizes documents itself in
// the time that is left, and writes the ids in the order of the texts. So the shard is the same for
// any number of ranks, a compressed file is shared like any other, and only rank 0 needs to see the
// text files and the shard; every rank reads the tokenizer. A few batches per rank are held at
// once.
//
// (Chunks of files read by the ranks themselves would wait for one another: what a rank reads ahead
// of its turn has to be held until all before it is written, and a compressed file has no middle to
// start from.) Reading and writing, which stay on rank 0, are about 0.4 of the work with SmolLM's
// tokenizer: three ranks are of use for one shard. Several shards at once have no such bound.
#ifndef MHA2MLA_TRAIN_TOKENIZE_TOKENIZE_RANKS_H
#define MHA2MLA_TRAIN_TOKENIZE_TOKENIZE_RANKS_H

#include "data/text/tokenize.h"
#include "train/parallel/comm.h"

// Collective; the counts and on_progress are rank 0's. A failure of one rank ends all with one text
// and leaves nothing behind: BAD_INPUT for texts, names and tokenizer, FAILED for the disk, memory,
// or `stop`.
Status tokenize_over_ranks(TokenizeCounts *out, const Comm *comm, const TokenizeOptions *options,
                           char *const *patterns, int n_patterns);

#endif
