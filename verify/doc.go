// Package verify runs a source network and its converted form side by side, layer by layer and over the logits, and
// measures what the conversion lost.
//
// It takes nothing from the conversion: everything it says follows from the two checkpoints' own forward passes, the
// converted one's latent norm included, as a stock engine computes them. The forward passes are those of internal/model, on
// which a calibration runs too; they have oracles of their own, in plain float64 and from transformers.
package verify
