// The block `distill` of a config (train/config/config.h), which `mha2mla distill` has as options.
#ifndef MHA2MLA_TRAIN_CONFIG_DISTILL_CONFIG_H
#define MHA2MLA_TRAIN_CONFIG_DISTILL_CONFIG_H

#include <stdbool.h>

// Local distillation of the converted layers before training (train/distill/distill.h).
typedef enum DistillLayers { DISTILL_SEQUENTIAL, DISTILL_APART } DistillLayers;

typedef struct DistillConfig {
    bool given;     // counts for a run that converts alone: config_distills()
    int steps;      // of every layer
    int windows;    // sequences that are read
    int window_len; // tokens of one at most
    double rho;
    double lr; // in parts of each tensor's root mean square
    DistillLayers layers;
} DistillConfig;

#endif
