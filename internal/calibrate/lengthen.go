package calibrate

import (
	"math/rand/v2"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/model"
)

// The spans that [Repetition] copies, in tokens, and how far behind the end of its original a copy begins at least.
const (
	shortestSpan, longestSpan = 4, 24
	leastGap                  = 32
)

// Repetition makes long texts, in which what was said comes back, of calibration windows. Text at hand repeats its names and
// phrases, and a network predicts them from where they stood before, however far that is; what a source samples from itself has
// little of it. In texts of SmolLM2-135M 3 % of the tokens end a trigram that stood in the same 512 tokens before, in WikiText-2
// 16 %, and 25 % in 2,048 tokens.
type Repetition struct {
	// Windows is how many windows are laid end to end, as far as the context goes.
	Windows int
	// Share is that of the tokens, about, in whose place copies of earlier spans of the text are put.
	Share float64
}

// together is how many windows of the given length make a text for a network of the given context.
func (o Repetition) together(window, context int) int { return max(1, min(o.Windows, context/window)) }

// apply makes texts of the windows of a batch. The last one is shorter where the windows do not come out even.
func (o Repetition) apply(windows *model.Batch, context int, seed uint64) model.Batch {
	together := o.together(windows.Longest(), context)
	random := rand.New(rand.NewPCG(seed, 1<<34))
	var texts [][]int
	for first := 0; first < windows.Sequences(); first += together {
		last := min(first+together, windows.Sequences())
		text := slices.Clone(windows.IDs[windows.Starts[first]:windows.Starts[last]])
		for at := longestSpan + leastGap; at < len(text); {
			n := min(shortestSpan+random.IntN(longestSpan-shortestSpan+1), len(text)-at)
			if random.Float64() < o.Share {
				from := random.IntN(at - n - leastGap + 1)
				copy(text[at:at+n], text[from:from+n])
			}
			at += n
		}
		texts = append(texts, text)
	}
	return model.NewBatch(texts)
}

// Copies adds windows that repeat themselves to those that layers are fitted to, polished on and judged by: behind every Every
// windows the last of them once more, with copies of its spans in place of Share of it, about. What is there stays, so that nothing
// that the windows tell is lost. Heads that find in a text what followed before (see [Repetition]) have nothing to do in windows
// without, and a fit gives what they read away.
type Copies struct {
	Every int
	Share float64
}

// leastRepeating is the length of windows from which on copies are worth it: more than a quarter of shorter ones lies before the first.
const leastRepeating = 4 * (longestSpan + leastGap)

// Windows is how many windows are added to so many of the given length.
func (c Copies) Windows(windows, length int) int {
	if c.Every == 0 || length < leastRepeating {
		return 0
	}
	return windows / c.Every
}

// add returns the windows of a batch with those that repeat themselves in between.
func (c Copies) add(b *model.Batch, seed uint64) model.Batch {
	if c.Windows(b.Sequences(), b.Longest()) == 0 {
		return *b
	}
	copied := Repetition{Windows: 1, Share: c.Share}.apply(b, b.Longest(), seed)
	var out [][]int
	for i := range b.Sequences() {
		out = append(out, b.IDs[b.Starts[i]:b.Starts[i+1]])
		if (i+1)%c.Every == 0 {
			out = append(out, copied.IDs[copied.Starts[i]:copied.Starts[i+1]])
		}
	}
	return model.NewBatch(out)
}
