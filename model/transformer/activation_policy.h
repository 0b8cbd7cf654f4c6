// What layers keep from forward for their backward: the trade between memory and computing twice
// (activation checkpointing; Chen et al., arXiv 1604.06174). Whatever is not kept is computed again
// in backward, with the same bits. The config key is train.recompute.
#ifndef MHA2MLA_MODEL_TRANSFORMER_ACTIVATION_POLICY_H
#define MHA2MLA_MODEL_TRANSFORMER_ACTIVATION_POLICY_H

typedef enum ActivationPolicy {
    RECOMPUTE_NONE,      // every layer keeps all that its backward reads
    RECOMPUTE_ATTENTION, // all but what attention leaves for its backward
    RECOMPUTE_LAYER,     // the layer's input alone
    FORWARD_ONLY,        // nothing: there is no backward. Not a value of the config key
} ActivationPolicy;

#endif
