// "Did you mean": the known word that a mistyped one most likely stands for, and how to write a
// number.
//
//     const char *nearest = suggest_nearest("leraning_rate", names, n_names);
//     suggest_whole(hint, "1e3"); // "; write it as 1000"
#ifndef MHA2MLA_BASE_SUGGEST_H
#define MHA2MLA_BASE_SUGGEST_H

enum { SUGGEST_LONGEST_WORD = 64 }; // longer words have no suggestion

// The candidate with the smallest edit distance to `word`, or NULL if more than about a third of
// the word would have to change.
const char *suggest_nearest(const char *word, const char *const *candidates, int n_candidates);

// "; write it as 1000" of a whole number in another notation, 1e3, 1000.0 or 1_000; "" of all other
// texts.
enum { SUGGEST_WHOLE_BYTES = 40 };
void suggest_whole(char out[SUGGEST_WHOLE_BYTES], const char *text);

#endif
