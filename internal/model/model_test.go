package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

func randomWeight(r *rand.Rand, out, in int) Weight {
	data := make([]float32, out*in)
	for i := range data {
		data[i] = float32(1.5 * r.NormFloat64() / math.Sqrt(float64(in)))
	}
	return NewWeight(out, in, data)
}

// double widens a weight for the reference in package mla.
func double(w Weight) svd.Matrix {
	m := svd.NewMatrix(w.Out, w.In)
	for i, v := range w.F32 {
		m.Data[i] = float64(v)
	}
	return m
}

func testFrequencies(pairs int) []float64 {
	out := make([]float64, pairs)
	for i := range out {
		out[i] = math.Pow(10000, -float64(i)/float64(pairs))
	}
	return out
}

func randomInputs(r *rand.Rand, lengths []int, hidden int) (*Batch, []float32) {
	var sequences [][]int
	for _, n := range lengths {
		sequences = append(sequences, make([]int, n))
	}
	b := NewBatch(sequences)
	h := make([]float32, b.Tokens()*hidden)
	for i := range h {
		h[i] = float32(r.NormFloat64())
	}
	return &b, h
}

// compare runs the attention over sequences of several lengths, some longer than a query block, and compares each with
// the float64 reference, for several thread counts.
func compare(t *testing.T, a Attention, hidden int, reference func(x svd.Matrix) svd.Matrix) {
	t.Helper()
	b, h := randomInputs(rand.New(rand.NewPCG(7, 7)), []int{1, 5, queryBlock + 3, 2*queryBlock + 1}, hidden)
	var first []float32
	for _, threads := range []int{1, 2, 3} {
		y := make([]float32, len(h))
		a.Forward(blas.New(threads), b, h, y)
		if first == nil {
			first = y
		}
		for i, v := range first {
			if y[i] != v {
				t.Fatalf("%d threads: element %d is %g, with one thread %g", threads, i, y[i], v)
			}
		}
	}
	for s := range b.Sequences() {
		lo, hi := b.Starts[s], b.Starts[s+1]
		x := svd.NewMatrix(hi-lo, hidden)
		for i, v := range h[lo*hidden : hi*hidden] {
			x.Data[i] = float64(v)
		}
		want := reference(x)
		for i, w := range want.Data {
			if got := float64(first[lo*hidden+i]); math.Abs(got-w) > 2e-5 {
				t.Fatalf("sequence %d, element %d: got %g, want %g", s, i, got, w)
			}
		}
	}
}

func TestGQA(t *testing.T) {
	const heads, kvHeads, dim, hidden = 6, 2, 8, 40
	r := rand.New(rand.NewPCG(1, 2))
	a := &GQA{
		Heads: heads, KVHeads: kvHeads, HeadDim: dim, Frequencies: testFrequencies(dim / 2),
		Q: randomWeight(r, heads*dim, hidden), K: randomWeight(r, kvHeads*dim, hidden),
		V: randomWeight(r, kvHeads*dim, hidden), O: randomWeight(r, hidden, heads*dim),
	}
	ref := &mla.Source{
		Heads: heads, KVHeads: kvHeads, HeadDim: dim, Frequencies: a.Frequencies,
		Q: double(a.Q), K: double(a.K), V: double(a.V), O: double(a.O),
	}
	compare(t, a, hidden, ref.Forward)
}

func randomMLA(r *rand.Rand) *MLA {
	a := &MLA{Heads: 4, NoPEDim: 6, RopeDim: 4, VDim: 5, Rank: 9, Frequencies: testFrequencies(2)}
	const hidden = 24
	a.Q = randomWeight(r, a.Heads*a.qkDim(), hidden)
	a.KVDown = randomWeight(r, a.Rank+a.RopeDim, hidden)
	a.KVUp = randomWeight(r, a.Heads*(a.NoPEDim+a.VDim), a.Rank)
	a.O = randomWeight(r, hidden, a.Heads*a.VDim)
	a.OBias = randomWeight(r, 1, hidden).F32
	return a
}

// reference is the float64 form of an MLA, whose latent norm, if any, is left out.
func reference(a *MLA) *mla.Attention {
	plain := *a
	plain.LatentNorm = nil
	return plain.ToAttention()
}

// TestFromAttention: to float64 and back is the identity, and the scale of the scores moves into the queries.
func TestFromAttention(t *testing.T) {
	a := randomMLA(rand.New(rand.NewPCG(10, 4)))
	m := a.ToAttention()
	back := FromAttention(m)
	for i, pair := range [][2]Weight{{a.Q, back.Q}, {a.KVDown, back.KVDown}, {a.KVUp, back.KVUp}, {a.O, back.O}} {
		for j, v := range pair[0].F32 {
			if math.Abs(float64(v-pair[1].F32[j])) > 1e-6 {
				t.Fatalf("weight %d, element %d: %g became %g", i, j, v, pair[1].F32[j])
			}
		}
	}
	m.Scale *= 1.5
	compare(t, FromAttention(m), a.O.Out, m.Expanded)
}

func TestMLA(t *testing.T) {
	a := randomMLA(rand.New(rand.NewPCG(3, 4)))
	compare(t, a, a.O.Out, reference(a).Expanded)
	compare(t, a, a.O.Out, reference(a).Absorbed)
}

// TestLatentNorm: with the constant channel of the exact dialect the norm is the identity; without it, it is not.
func TestLatentNorm(t *testing.T) {
	a := randomMLA(rand.New(rand.NewPCG(5, 6)))
	plain := reference(a)
	plain.Down = plain.Down.Clone()
	clear(plain.Down.Row(a.Rank - 1)) // the channel's place carries nothing
	clear(a.KVDown.F32[(a.Rank-1)*a.KVDown.In : a.Rank*a.KVDown.In])

	a.LatentNorm = make([]float32, a.Rank)
	a.LatentEps = 1e-6
	const channel = 1 << 14
	for i := range a.LatentNorm {
		a.LatentNorm[i] = float32(channel / math.Sqrt(float64(a.Rank)))
	}
	b, h := randomInputs(rand.New(rand.NewPCG(8, 8)), []int{40}, a.O.Out)
	// spread is the largest factor over the least, less one.
	spread := func() float64 {
		factors := a.LatentFactors(serial, b.Tokens(), h)
		return slices.Max(factors)/slices.Min(factors) - 1
	}
	if f := spread(); f < 0.05 {
		t.Errorf("without the channel the norm's factors differ by %g only", f)
	}
	a.KVDownBias = make([]float32, a.Rank+a.RopeDim)
	a.KVDownBias[a.Rank-1] = channel
	for i := range a.Heads * (a.NoPEDim + a.VDim) {
		a.KVUp.F32[i*a.Rank+a.Rank-1] = 0
	}
	plain.UpK, plain.UpV = reference(a).UpK, reference(a).UpV
	if f := spread(); f > 1e-6 {
		t.Errorf("with the channel the norm's factors differ by %g", f)
	}
	compare(t, a, a.O.Out, plain.Expanded)
}

// TestMLP compares the chunked, fused MLP and the norms with a direct computation.
func TestMLP(t *testing.T) {
	const hidden, width, n = 12, 20, 300
	r := rand.New(rand.NewPCG(9, 9))
	b := &Block{
		Hidden: hidden, Eps: 1e-5, MLPNorm: randomWeight(r, 1, hidden).F32,
		MLP: MLP{Gate: randomWeight(r, width, hidden), Up: randomWeight(r, width, hidden), Down: randomWeight(r, hidden, width)},
	}
	_, x := randomInputs(r, []int{n}, hidden)
	got := append([]float32(nil), x...)
	b.ForwardMLP(blas.New(2), n, got)
	gate, up, down := double(b.MLP.Gate), double(b.MLP.Up), double(b.MLP.Down)
	for i := range n {
		row := x[i*hidden : (i+1)*hidden]
		sum := 0.0
		for _, v := range row {
			sum += float64(v) * float64(v)
		}
		inv := 1 / math.Sqrt(sum/hidden+b.Eps)
		mid := make([]float64, width)
		for k := range mid {
			var g, u float64
			for j, v := range row {
				h := float64(v) * inv * float64(b.MLPNorm[j])
				g += h * gate.At(k, j)
				u += h * up.At(k, j)
			}
			mid[k] = g / (1 + math.Exp(-g)) * u
		}
		for j, v := range row {
			want := float64(v)
			for k, m := range mid {
				want += m * down.At(j, k)
			}
			if d := math.Abs(float64(got[i*hidden+j]) - want); d > 1e-5 {
				t.Fatalf("token %d, element %d: got %g, want %g", i, j, got[i*hidden+j], want)
			}
		}
	}
}

func TestBatch(t *testing.T) {
	b := NewBatch([][]int{{1, 2}, {}, {3}, {4, 5, 6}})
	if b.Tokens() != 6 || b.Sequences() != 3 || b.Longest() != 3 {
		t.Errorf("got %+v", b)
	}
	part := b.Slice(1, 3)
	if part.Tokens() != 4 || part.Starts[1] != 1 || part.IDs[0] != 3 {
		t.Errorf("got %+v", part)
	}
	var runs [][2]int
	long := NewBatch([][]int{make([]int, 20), make([]int, 10), make([]int, 30)})
	long.InFlight = 30
	long.groups(func(lo, hi int) { runs = append(runs, [2]int{lo, hi}) })
	if len(runs) != 2 || runs[0] != [2]int{0, 2} || runs[1] != [2]int{2, 3} {
		t.Errorf("got %v", runs)
	}
	if err := b.Check(6); err == nil {
		t.Error("accepted id 6 of a vocabulary of 6")
	}
}
