// Finds the candidate with the smallest edit distance to a mistyped word. Lists are short (keys,
// options, subcommands), so every candidate is compared.
#define _GNU_SOURCE
#include "base/suggest.h"

#include "base/intmath.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Optimal string alignment distance (restricted Damerau-Levenshtein): the fewest insertions,
// deletions, substitutions and swaps of neighbours, the four slips of typing. Row i of the dynamic
// programming holds the distances of a's first i letters to each beginning of b; a swap looks two
// rows back.
static int edit_distance(const char *a, const char *b)
{
    int rows[3][SUGGEST_LONGEST_WORD + 1];
    int n = (int)strlen(a), m = (int)strlen(b);
    int *before = rows[0], *last = rows[1], *row = rows[2];
    for (int j = 0; j <= m; j++)
        last[j] = j;
    for (int i = 1; i <= n; i++) {
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int replaced = last[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = min_int(replaced, 1 + min_int(last[j], row[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = min_int(row[j], before[j - 2] + 1);
        }
        int *reused = before;
        before = last;
        last = row;
        row = reused;
    }
    return last[m];
}

const char *suggest_nearest(const char *word, const char *const *candidates, int n_candidates)
{
    const char *nearest = NULL;
    int length = (int)strnlen(word, SUGGEST_LONGEST_WORD + 1);
    if (length > SUGGEST_LONGEST_WORD)
        return NULL;
    // About a third of the word may be wrong; of equally near candidates the first is taken.
    int smallest = 1 + (length + 1) / 3;
    for (int c = 0; c < n_candidates; c++) {
        const char *candidate = candidates[c];
        if (strlen(candidate) > SUGGEST_LONGEST_WORD)
            continue;
        // A word cut short counts as one slip, however long the rest.
        bool is_start = length >= 3 && strncmp(word, candidate, (size_t)length) == 0;
        int distance = is_start ? 1 : edit_distance(word, candidate);
        if (distance < smallest) {
            smallest = distance;
            nearest = candidate;
        }
    }
    return nearest;
}

// The characters rule out hexadecimal, infinity and NaN; 1e15 is the largest that a reader counts
// the digits of.
void suggest_whole(char out[SUGGEST_WHOLE_BYTES], const char *text)
{
    char digits[SUGGEST_WHOLE_BYTES], *end;
    size_t length = 0;
    for (const char *c = text; *c != '\0' && length + 1 < sizeof digits; c++)
        if (*c != '_')
            digits[length++] = *c;
    digits[length] = '\0';
    out[0] = '\0';
    if (strpbrk(digits, "0123456789") == NULL || digits[strspn(digits, "+-.0123456789eE")] != '\0')
        return;
    const double value = strtod(digits, &end);
    if (*end == '\0' && value == rint(value) && fabs(value) < 1e15)
        snprintf(out, SUGGEST_WHOLE_BYTES, "; write it as %.0f", value);
}
