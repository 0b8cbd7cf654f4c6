// The command line as a contract (train/parallel/contract.h). Under mpirun all ranks get the same
// words, but not under an srun --multi-prog or a wrapper that varies its arguments by rank. Values
// are compared after parsing, so "--d-kv 8" and "--d-kv=8" are the same; paths are not compared, as
// what they hold is compared by the command itself.
#include "train/cli/command/command_agreement.h"

#include "train/parallel/contract.h"

#include <stdio.h>

// An option that is not given and has no default is left out of the list.
static void add_option(Contract *contract, const Option *option, const void *values)
{
    char key[64];
    const void *value = (const char *)values + option->offset;
    snprintf(key, sizeof key, "--%s", option->name);
    switch (option->kind) {
    case OPTION_TEXT: {
        const char *text = *(const char *const *)value;
        if (text != NULL)
            contract_add(contract, key, "%s", option->files != NULL ? "a path" : text);
        return;
    }
    case OPTION_TEXTS: {
        const OptionTexts *texts = value;
        for (int i = 0; i < texts->n; i++)
            contract_add(contract, key, "%s", option->files != NULL ? "a path" : texts->items[i]);
        return;
    }
    case OPTION_INT:
        contract_add(contract, key, "%lld", (long long)*(const int64_t *)value);
        return;
    case OPTION_REAL:
    case OPTION_POSITIVE:
        contract_add(contract, key, "%.17g", *(const double *)value);
        return;
    case OPTION_CHOICE: {
        const int choice = *(const int *)value; // negative: a default that has no name
        if (choice >= 0)
            contract_add(contract, key, "%s", option->choices[choice]);
        return;
    }
    case OPTION_FLAG:
        if (*(const bool *)value)
            contract_add(contract, key, "given");
        return;
    }
}

// Overrides are not in the list: they are part of the config, whose resolved values are compared.
static void add_words(Contract *contract, const Words *words, const CommandLine *line)
{
    char key[64];
    contract_add(contract, "the number of arguments", "%d", line->n_words);
    for (int i = 0; i < line->n_words && words->files == NULL; i++) {
        snprintf(key, sizeof key, "argument %d", i + 1);
        contract_add(contract, key, "%s", line->words[i]);
    }
}

// Collective. A rank whose own parsing failed has an empty list; contract_agree() then returns its
// error.
Status command_agree(const Comm *comm, const Command *command, const CommandLine *line, Status own)
{
    Contract contract = {0};
    for (int o = 0; o < command->n_options && own == OK; o++)
        add_option(&contract, &command->options[o], line->options);
    if (own == OK)
        add_words(&contract, &command->words, line);
    return contract_agree(&contract, comm, own, "every rank needs the same command line");
}
