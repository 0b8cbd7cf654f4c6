// Unicode normalization forms, as the normalizers NFC, NFD, NFKC and NFKD of the `tokenizers`
// library give them.
//
//     NormalScratch scratch = {0};
//     TRY(normal_append(&out, &scratch, NORMAL_C, text, size));
//     normal_scratch_release(&scratch);
//
// A NormalScratch belongs to one thread. Time and memory are linear in the text, whatever it says.
#ifndef MHA2MLA_DATA_TOKENIZER_TOKENIZER_NORMAL_H
#define MHA2MLA_DATA_TOKENIZER_TOKENIZER_NORMAL_H

#include "base/status.h"
#include "data/tokenizer/tokenizer_text.h"

#include <stdint.h>

typedef enum NormalForm { NORMAL_C, NORMAL_D, NORMAL_KC, NORMAL_KD } NormalForm;

typedef struct NormalScratch {
    int32_t *codes; // owned; decomposed characters, a span of the text at a time
    int64_t n, capacity;
    int32_t *sorted; // owned; a long run of combining marks in its new order
    int64_t sorted_capacity;
} NormalScratch;

// Appends text [size] (valid UTF-8) in the form. FAILED without memory, BAD_INPUT for 2 GiB.
Status normal_append(Bytes *out, NormalScratch *scratch, NormalForm form, const char *text,
                     int64_t size);
void normal_scratch_release(NormalScratch *scratch);

#endif
