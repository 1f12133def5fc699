package calibrate

import (
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
)

// sampleCacheBytes bounds the key/value cache of one batch of self-samples.
const sampleCacheBytes = 2 << 30

// Sampling says what a source writes for itself.
type Sampling struct {
	// Tokens is about how many, in windows of Window tokens, or less where the context is shorter.
	Tokens, Window int
	// Start is the token that a text begins with.
	Start int
	Seed  uint64
	// Together bounds the sequences that are written side by side, as far as [SampleParts] lets it; 0 is no bound but the one
	// on the cache. It has no influence on the samples.
	Together int
	// Shelf, if set, keeps the samples, and gives what it has of them.
	Shelf Shelf
	// Progress, if set, is called with the positions done and their number.
	Progress func(done, total int)
	// Stop, if set, is asked after every position; an error ends the sampling.
	Stop func() error
}

// SelfSamples lets the source write its own calibration tokens at temperature 1. Every second window begins with the start
// token; the others are what the sequences before them continued with, so that the first token of a window is also an ordinary
// one. Where the context has no room for a continuation, all begin with the start token.
func SelfSamples(e *blas.Engine, net *model.Network, o Sampling) ([][]int, error) {
	window, windows := Windows(o.Tokens, o.Window, net.Context)
	block, err := net.Block(0)
	if err != nil {
		return nil, err
	}
	cache := 8 * net.Layers
	if a, ok := block.Attention.(*model.GQA); ok {
		cache *= a.K.Out
	}
	block.Close()
	batch, batches, length := SampleShape(window, windows, net.Context, cache)
	if length > window {
		windows = (windows + 1) / 2
	}
	// The parts of all batches, by the number of their first sequence and of the one behind the last.
	type part struct{ batch, lo, hi int }
	var parts []part
	for i := range batches {
		n := min(batch, windows-i*batch)
		cut := SampleParts(n, o.Together)
		for k := range cut {
			parts = append(parts, part{i, n * k / cut, n * (k + 1) / cut})
		}
	}

	var first, second [][]int
	shelf := orNowhere(o.Shelf)
	for i, p := range parts {
		name := fmt.Sprintf("samples-%d-%d-%d", p.batch, p.lo, p.hi)
		var sequences [][]int
		known, err := keptValue(shelf, name, &sequences)
		if !known && err == nil {
			sequences, err = model.Sample(e, net, model.SampleOptions{
				Sequences: p.hi - p.lo, First: p.lo, Length: length, Start: o.Start, Seed: o.Seed + uint64(p.batch)<<32, Stop: o.Stop,
				Progress: func(done int) {
					if o.Progress != nil {
						o.Progress(i*length+done, len(parts)*length)
					}
				},
			})
			if err == nil {
				err = keepValue(shelf, name, sequences)
			}
		}
		if err != nil {
			return nil, err
		}
		for _, s := range sequences {
			first = append(first, s[:window])
			if length > window {
				second = append(second, s[window:])
			}
		}
	}
	// Alternate, so that any run of windows, the held-out ones too, has both kinds.
	var out [][]int
	for i, s := range first {
		out = append(out, s)
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out, nil
}

// Windows is how about so many tokens are cut: the length of a window, which is less where the context is shorter, and the
// number of windows, at least one to fit and one to hold out.
func Windows(tokens, length, context int) (window, windows int) {
	window = min(length, context)
	return window, max(2, (tokens+window-1)/window)
}

// SampleShape says how so many windows are sampled from a network of the given context, whose key/value cache takes so
// many bytes a token: at most batch sequences side by side, in so many batches, each sequence of length tokens.
func SampleShape(window, windows, context, cache int) (batch, batches, length int) {
	length = window
	if 2*window <= context {
		length = 2 * window
		windows = (windows + 1) / 2
	}
	batch = min(windows, max(1, sampleCacheBytes/(cache*length)))
	batches = (windows + batch - 1) / batch
	return (windows + batches - 1) / batches, batches, length
}

// SampleParts is into how many parts a batch of so many sequences is cut, so that at most together of them (0 for no bound)
// are written side by side. A batch whose products sum as those of many tokens do keeps to that in all parts.
func SampleParts(batch, together int) int {
	if together == 0 || together >= batch {
		return 1
	}
	parts := (batch + together - 1) / together
	if batch >= model.ManyRows {
		parts = min(parts, batch/model.ManyRows)
	}
	return parts
}
