// An orthogonal rotation T of the latent, folded into the weights while they are read: W_dkv
// becomes T W_dkv, and W_uk and W_uv become W_uk T^T and W_uv T^T. Scores and outputs stay what
// they were; the numbers in the cache are mixtures of the latent's channels, whose magnitudes lie
// closer together than those of the channels themselves (QuaRot, arXiv 2404.00456).
//
// That helps schemes whose groups go across channels: with every read quantized, quanto's loss
// rises by 0.71 instead of 1.46 nats per token at 2 bits and 0.017 instead of 0.022 at 4 (demo,
// d_kv 16). Groups of one channel, as those of the channel scheme and of hqq, gain nothing.
//
//     LatentRotation *rotation;
//     TRY(latent_rotation_create(&rotation, &source));
//     WeightSource rotated = latent_rotation_weights(rotation);
//     status = infer_weights_read(&weights, &rotated, rope_pairs, dtype);
//     latent_rotation_release(rotation);
//
// Where the latent is normalized (latent_norm), the norm's weight g goes into the up-projections,
// W_uk diag(g) T^T, and what is cached is T times the normed latent without g: RMSNorm divides by a
// length, which T leaves as it is.
//
// T = (C x H) S: S random signs, H Hadamard's matrix of the largest power of two that divides the
// width, C the cosine transform (DCT-II) of what is left. Latents of split SVD turn half by half.
#ifndef MHA2MLA_INFER_LATENT_ROTATION_H
#define MHA2MLA_INFER_LATENT_ROTATION_H

#include "model/weight_source.h"

typedef struct LatentRotation LatentRotation;

// The source is borrowed. FAILED if memory is short; what a source of its tensors can fail with.
Status latent_rotation_create(LatentRotation **out, const WeightSource *source);

// The source's tensors with the rotation in them; all of them as they are where the model has its
// original attention. For one reader at a time.
WeightSource latent_rotation_weights(const LatentRotation *rotation);

void latent_rotation_release(LatentRotation *rotation); // NULL is allowed

#endif
