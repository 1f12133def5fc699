package calibrate

import (
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
)

// sampleCacheBytes bounds the key/value cache of one batch of self-samples.
const sampleCacheBytes = 2 << 30

// SelfSamples lets the source write its own calibration tokens at temperature 1: about tokens of them, in windows of the
// given length (less where the context is shorter). Every second window begins with the start token; the others are what
// the sequences before them continued with, so that the first token of a window is also an ordinary one. Where the context
// has no room for a continuation, all begin with the start token. progress, if not nil, is called with the positions
// done and their number.
func SelfSamples(e *blas.Engine, net *model.Network, start, tokens, window int, seed uint64, progress func(done, total int), stop func() error) ([][]int, error) {
	window, windows := Windows(tokens, window, net.Context)
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

	var first, second [][]int
	for i := range batches {
		n := min(batch, windows-i*batch)
		sequences, err := model.Sample(e, net, model.SampleOptions{
			Sequences: n, Length: length, Start: start, Seed: seed + uint64(i)<<32, Stop: stop,
			Progress: func(done int) {
				if progress != nil {
					progress(i*length+done, batches*length)
				}
			},
		})
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
