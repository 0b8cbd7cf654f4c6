// "Did you mean": the known word that a mistyped one most likely stands for.
//
//     const char *nearest = suggest_nearest("leraning_rate", names, n_names);
#ifndef MHA2MLA_BASE_SUGGEST_H
#define MHA2MLA_BASE_SUGGEST_H

enum { SUGGEST_LONGEST_WORD = 64 }; // longer words have no suggestion

// The candidate with the smallest edit distance to `word`, or NULL if more than about a third of
// the word would have to change.
const char *suggest_nearest(const char *word, const char *const *candidates, int n_candidates);

#endif
