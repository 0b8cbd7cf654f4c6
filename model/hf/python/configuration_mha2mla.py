"""Configuration of a Llama model whose attention mha2mla has converted to latent attention.

The keys are those of LlamaConfig and the block "mha2mla" of config.json, a dict:

    rope_pairs   rotated pairs of every KV head, or of the layer (shared form)
    d_kv         latent width per KV head; 0 in the shared form
    svd          "joint": one latent for keys and values; "split": one half of it for each
    latent       latent width of the shared form; missing or 0 in the per-head form
    latent_norm  shared form: RMSNorm of the latent before the up-projections
    qk_norm      per-head form: RMSNorm of every head of queries and keys before the rotation

and what the model has besides Llama's parts, each missing or 0 without it:

    attention_bias  projections of queries, rotated keys and the output have a bias
    no_rope_layers  a list of 0 for layers whose pairs are not rotated and 1 for the others
    sliding_window  of the original; sequences are to be no longer
"""

from transformers import LlamaConfig


class Mha2mlaConfig(LlamaConfig):
    model_type = "mha2mla_llama"
    base_model_tp_plan = None  # Llama's names projections that are not there
