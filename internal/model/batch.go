package model

import "fmt"

// Batch is token sequences laid end to end; attention never crosses from one into the next.
type Batch struct {
	IDs []int
	// Starts holds the offset of each sequence in IDs, and len(IDs) as its last element.
	Starts []int
	// InFlight bounds how many tokens' queries, keys and values an attention holds at once, but for those of one sequence; 0
	// stands for 4,096. It has no influence on results.
	InFlight int
}

// NewBatch lays sequences end to end. Empty sequences are left out.
func NewBatch(sequences [][]int) Batch {
	b := Batch{Starts: []int{0}}
	for _, s := range sequences {
		if len(s) == 0 {
			continue
		}
		b.IDs = append(b.IDs, s...)
		b.Starts = append(b.Starts, len(b.IDs))
	}
	return b
}

// Tokens is the number of tokens.
func (b *Batch) Tokens() int { return len(b.IDs) }

// Sequences is the number of sequences.
func (b *Batch) Sequences() int { return len(b.Starts) - 1 }

// Longest is the length of the longest sequence.
func (b *Batch) Longest() int {
	longest := 0
	for i := range b.Sequences() {
		longest = max(longest, b.Starts[i+1]-b.Starts[i])
	}
	return longest
}

// Slice returns sequences lo to hi-1 as a batch that shares b's ids.
func (b *Batch) Slice(lo, hi int) Batch {
	first := b.Starts[lo]
	out := Batch{IDs: b.IDs[first:b.Starts[hi]], Starts: make([]int, hi-lo+1), InFlight: b.InFlight}
	for i := range out.Starts {
		out.Starts[i] = b.Starts[lo+i] - first
	}
	return out
}

// Check reports the first id that is no row of a vocabulary.
func (b *Batch) Check(vocab int) error {
	for s := range b.Sequences() {
		for i, id := range b.IDs[b.Starts[s]:b.Starts[s+1]] {
			if id < 0 || id >= vocab {
				return fmt.Errorf("sequence %d, token %d: id %d, want 0 to %d", s, i, id, vocab-1)
			}
		}
	}
	return nil
}

// GroupTokens is what a zero [Batch.InFlight] stands for.
const GroupTokens = 4096

// groups calls f with the first and the last-plus-one sequence of each of the [Batch.Runs] of InFlight tokens.
func (b *Batch) groups(f func(lo, hi int)) {
	limit := b.InFlight
	if limit == 0 {
		limit = GroupTokens
	}
	for _, run := range b.Runs(limit) {
		f(run[0], run[1])
	}
}

// Runs cuts the batch into runs of whole sequences of at most limit tokens (a longer sequence makes its own run) and returns the
// first and the last-plus-one sequence of each. A run of fewer than [ManyRows] tokens, whose products would sum in another order,
// goes with the next one, the last with the one before: so a limit has no influence on results.
func (b *Batch) Runs(limit int) [][2]int {
	var out [][2]int
	tokens := func(lo, hi int) int { return b.Starts[hi] - b.Starts[lo] }
	lo := 0
	for hi := 1; hi <= b.Sequences(); hi++ {
		if hi == b.Sequences() || tokens(lo, hi+1) > limit && tokens(lo, hi) >= ManyRows {
			out = append(out, [2]int{lo, hi})
			lo = hi
		}
	}
	if last := len(out) - 1; last > 0 && tokens(out[last][0], out[last][1]) < ManyRows {
		out[last-1][1] = out[last][1]
		out = out[:last]
	}
	return out
}
