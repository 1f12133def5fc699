// Package model runs decoders forward: a source checkpoint with grouped-query attention and a converted one with
// Multi-head Latent Attention. Arithmetic is float32, token sequences go through in batches, one layer at a time, with
// the weights mapped from the checkpoint and let go after use; so peak memory is the activations and one layer.
//
// Activations are row-major [tokens, width]. Weights are [out, in], as the checkpoint stores them, and act as
// y = x W^T. Results do not depend on the number of threads.
package model
