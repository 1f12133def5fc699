// Package verify runs a source network and its converted form side by side, layer by layer and over the logits, and
// measures what the conversion lost.
//
// It shares no code with the conversion: everything it says follows from the two checkpoints' own forward passes, the
// converted one's latent norm included, as a stock engine computes them.
package verify
