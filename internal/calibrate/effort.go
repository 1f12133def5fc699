package calibrate

import (
	"math"

	"github.com/mlaconvert/mlaconvert/mla"
)

// Effort chooses how much time a calibration takes.
type Effort string

// The efforts: fast fits and refits each layer, balanced polishes six layers at a time and corrects all together
// afterwards, best takes more steps for both, and tokens of their own.
const (
	Fast     Effort = "fast"
	Balanced Effort = "balanced"
	Best     Effort = "best"
)

// Efforts lists the efforts from the quickest to the most thorough.
var Efforts = []Effort{Fast, Balanced, Best}

const (
	// Window is the length of a calibration sequence, in tokens, where the context allows it.
	Window = 512
	// statisticsTokens bounds the tokens of the second moments, which need fewer.
	statisticsTokens = 12288
)

// DefaultTokens is how many calibration tokens an effort uses. The refit of a layer needs tens of thousands; the descents
// need others, and more of them the longer they go on, and the correction in long texts others again.
func DefaultTokens(effort Effort) int {
	switch effort {
	case Best:
		return 327680
	}
	return 40960
}

// MostHeldOut is the number of sequences that are held out at most.
const MostHeldOut = 16

// Learning rates, as shares of each tensor's spread: the one that the polish tries first, that of the correction in windows, and
// that of the one in long texts, whose steps see twice the tokens. On SmolLM2-135M the polish takes the first; what a trial of a few
// steps says of the others is noise.
const (
	firstRate   = 9e-4
	distillRate = 3e-4
	textRate    = 6e-4
)

// matching is the weight of the residual streams' drift in the correction. A token's divergence is one number, its drift
// one behind every layer: with it 60 steps bring what 240 do without (babyllama, 16+32: divergence 0.0572 -> 0.0401
// against 0.0444; without and 240 steps 0.0406; weights of 1 and 20: 0.0415 and 0.0405).
const matching = 5

// repetition makes texts four times as long as windows, a quarter of them copies, for the second correction of best.
var repetition = Repetition{Windows: 4, Share: 0.25}

// copies makes a third of the windows repeat themselves in half of their tokens.
var copies = Copies{Every: 2, Share: 0.5}

// Preset returns the options of an effort for a layer of the given rotary pairs and slots.
func Preset(effort Effort, pairs, slots int) Options {
	o := Options{StatisticsTokens: statisticsTokens, Copies: copies, Candidates: candidates(pairs, slots), Refit: true}
	o.Neutral = Neutral{Tokens: 16384, Steps: 100}
	switch effort {
	case Balanced:
		o.Polish = Polish{Descent: Descent{Steps: 40, Sequences: 2, Rate: firstRate, Constant: 0.5}, Layers: 6, EarlySteps: 100}
		o.Distill = []Distill{{Descent: Descent{Steps: 80, Sequences: 2, Rate: distillRate}, Matching: matching}}
		o.Neutral = Neutral{Tokens: 24576, Steps: 150}
	case Best:
		o.FitTokens = 81920
		o.Polish = Polish{Descent: Descent{Steps: 60, Sequences: 2, Rate: firstRate, Constant: 0.5}, Layers: 6, EarlySteps: 450}
		o.Distill = []Distill{
			{Descent: Descent{Steps: 200, Sequences: 2, Rate: distillRate}, Matching: matching},
			{Descent: Descent{Steps: 120, Sequences: 4, Rate: textRate}, Matching: matching, Repetition: repetition},
		}
		o.Neutral = Neutral{Tokens: 32768, Steps: 300}
	}
	return o
}

// looseFlat is the share of distances that loose slots are fitted at beside those that heads look at: what serves texts four
// times as long as the calibration's windows. On SmolLM2-135M (fast, 20,480 tokens, 17.04 before) they had a perplexity of 21.72
// with it and 22.09 with a half.
const looseFlat = 0.2

// candidates are the factorizations that are tried for every layer. No single one wins everywhere: slots fitted with the latent
// in most layers, principal components where every frequency has a slot in others, slots refined across frequencies where there
// are fewer.
func candidates(pairs, slots int) []mla.Candidate {
	out := []mla.Candidate{
		{SlotInput: mla.MixedInput, QueryPower: 1, KeyWeight: 1, Loose: true, Flat: looseFlat},
		{SlotInput: mla.MixedInput, QueryPower: 1, KeyWeight: 1},
		{SlotInput: mla.MixedInput, QueryPower: 1, KeyWeight: 0.3},
		{SlotInput: mla.PlainInput, QueryPower: 1, KeyWeight: 1},
		{SlotInput: mla.PlainInput, QueryPower: 0, KeyWeight: 1},
		{SlotInput: mla.MixedInput, QueryPower: 0, KeyWeight: 0.3},
		{SlotInput: mla.PlainInput, QueryPower: 1, KeyWeight: 1, Loose: true, Flat: looseFlat},
		{SlotInput: mla.PlainInput, QueryPower: 0, KeyWeight: 1, Loose: true, Flat: looseFlat},
	}
	if slots < pairs {
		out = append(out,
			mla.Candidate{SlotInput: mla.PlainInput, QueryPower: 1, KeyWeight: 1, Refine: true, Sweeps: 3, Flat: 0.1},
			mla.Candidate{SlotInput: mla.MixedInput, QueryPower: 1, KeyWeight: 1, Refine: true, Sweeps: 3, Flat: 0.3},
			mla.Candidate{SlotInput: mla.PlainInput, QueryPower: 1, KeyWeight: 1, Refine: true, Sweeps: 3, Flat: 1},
		)
	}
	return out
}

// Thetas returns the rotary bases worth trying for an engine whose rotary key has fewer pairs than the source's heads:
// from the one that gives the slots the source's fastest frequencies, theta^(slots/pairs), to the source's own, which
// spreads them over all. With as many slots as pairs it is the source's alone, and so it is with one slot, whose frequency is
// the same for every base.
func Thetas(theta float64, pairs, slots int) []float64 {
	if slots >= pairs || slots == 1 {
		return []float64{theta}
	}
	const steps = 6
	least := float64(slots) / float64(pairs)
	var out []float64
	for i := range steps + 1 {
		power := least + (1-least)*float64(i)/steps
		t := math.Pow(theta, power)
		if i < steps {
			t = max(2, math.Round(t)) // a number that people can read and that every float holds; a base is more than 1
		} else {
			t = theta
		}
		out = append(out, t)
	}
	return out
}
