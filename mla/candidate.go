package mla

import "fmt"

// SlotInput chooses the covariance under which the rotary slots are found.
type SlotInput int

const (
	// PlainInput is E[x x^T].
	PlainInput SlotInput = iota
	// MixedInput is E[x x^T] and the heads' mean softmax metric, added at equal trace.
	MixedInput
)

func (s SlotInput) String() string {
	if s == MixedInput {
		return "mixed"
	}
	return "plain"
}

// FlatWindows is how many times as far as the heads' distances those go that [Candidate.Flat] takes from their availability where
// slots are loose: what is fitted in one window has to hold beyond it.
const FlatWindows = 4

// Candidate is one way to factorize a calibrated layer; which is best is found by trying (see internal/calibrate).
type Candidate struct {
	SlotInput  SlotInput `json:"slot_input"`
	QueryPower float64   `json:"query_power"`
	// KeyWeight multiplies the natural weight of key errors.
	KeyWeight float64 `json:"key_weight"`
	// Reach bounds the distances, in tokens, over which a rotation's expected value is taken: D counts 1 - D/Reach times as
	// much as in the head's distribution. Zero stands for all of it. Heads attend to what is near and far for different
	// things, and one constant cannot stand for both; a shorter reach makes it right where most attention is.
	Reach int `json:"reach,omitempty"`
	// Loose fits the slots together with the latent (see [Fit]), over the heads' distances within Reach, Flat of them taken from
	// the availability of distances in [FlatWindows] windows. Otherwise a slot that has a frequency of the source is read by the
	// pair of that frequency alone and is right at any distance.
	Loose bool `json:"loose,omitempty"`
	// Refine turns the refinement of the slots over all frequencies on, with Sweeps as in [SlotOptions] and the heads' mean
	// distances, Flat of them taken from the availability of distances in the context.
	Refine bool    `json:"refine,omitempty"`
	Sweeps int     `json:"sweeps,omitempty"`
	Flat   float64 `json:"flat,omitempty"`
}

// String names what sets the candidate apart.
func (c Candidate) String() string {
	name := fmt.Sprintf("%s^%g key %g", c.SlotInput, c.QueryPower, c.KeyWeight)
	if c.Reach > 0 {
		name += fmt.Sprintf(", reach %d", c.Reach)
	}
	if c.Loose {
		name += fmt.Sprintf(", loose %g", c.Flat)
	}
	if c.Refine {
		name += fmt.Sprintf(", refined %g", c.Flat)
	}
	return name
}
