package model

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
)

// benchmarkShape is that of SmolLM2-135M but for the number of layers and the vocabulary.
var benchmarkShape = testmodel.Shape{
	Hidden: 576, Intermediate: 1536, Layers: 2, Heads: 9, KVHeads: 3, HeadDim: 64, Vocab: 4096, Tied: true, DType: "BF16", Seed: 1,
}

func benchmarkNetwork(b *testing.B) *Network {
	m := testmodel.New(benchmarkShape)
	m.Config["max_position_embeddings"] = 2048
	return openSource(b, m)
}

// openSource is the network of a checkpoint that is written for it.
func openSource(t testing.TB, m *testmodel.Model) *Network {
	t.Helper()
	src := m.Open(t)
	parsed, err := arch.Parse(src.Config())
	if err != nil {
		t.Fatal(err)
	}
	net, err := OpenSource(src, parsed)
	if err != nil {
		t.Fatal(err)
	}
	return net
}

func benchmarkBatch(sequences, length int) Batch {
	r := rand.New(rand.NewPCG(2, 2))
	ids := make([][]int, sequences)
	for s := range ids {
		ids[s] = make([]int, length)
		for i := range ids[s] {
			ids[s][i] = r.IntN(benchmarkShape.Vocab)
		}
	}
	return NewBatch(ids)
}

// reportTokens adds the tokens a second of a benchmark that takes n in each iteration.
func reportTokens(b *testing.B, n int) {
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

// BenchmarkForward runs two layers over windows of 512 and of 2,048 tokens.
func BenchmarkForward(b *testing.B) {
	net, e := benchmarkNetwork(b), blas.New(0)
	for _, s := range []struct{ sequences, length int }{{8, 512}, {2, 2048}} {
		b.Run(fmt.Sprintf("%dx%d", s.sequences, s.length), func(b *testing.B) {
			batch := benchmarkBatch(s.sequences, s.length)
			for b.Loop() {
				if _, err := net.Forward(e, &batch); err != nil {
					b.Fatal(err)
				}
			}
			reportTokens(b, batch.Tokens())
		})
	}
}

// BenchmarkDecode is one step of two layers and the output head, for sequences side by side, with as many tokens in the
// cache.
func BenchmarkDecode(b *testing.B) {
	net, e := benchmarkNetwork(b), blas.New(0)
	for _, s := range []struct{ sequences, position int }{{1, 256}, {8, 256}, {48, 256}, {40, 1024}} {
		b.Run(fmt.Sprintf("%dx%d", s.sequences, s.position), func(b *testing.B) {
			d, err := NewDecoder(e, net, s.sequences, s.position+1)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			ids := make([]int, s.sequences)
			for b.Loop() {
				d.length = s.position
				if _, err := d.Step(ids); err != nil {
					b.Fatal(err)
				}
			}
			reportTokens(b, s.sequences)
		})
	}
}

// BenchmarkMLA is one converted layer's attention (rank 128, 64 rotary) over 4 windows of 512 tokens: forward, and forward
// and back with all gradients.
func BenchmarkMLA(b *testing.B) {
	const hidden, heads, dim, rank, rope = 576, 9, 64, 128, 64
	r := rand.New(rand.NewPCG(3, 3))
	a := &MLA{
		Heads: heads, NoPEDim: dim, RopeDim: rope, VDim: dim, Rank: rank, Frequencies: testFrequencies(rope / 2),
		Q: randomWeight(r, heads*(dim+rope), hidden), KVDown: randomWeight(r, rank+rope, hidden),
		KVUp: randomWeight(r, heads*2*dim, rank), O: randomWeight(r, hidden, heads*dim), OBias: make([]float32, hidden),
	}
	batch, h := randomInputs(r, []int{512, 512, 512, 512}, hidden)
	e := blas.New(0)
	y := make([]float32, len(h))
	b.Run("forward", func(b *testing.B) {
		for b.Loop() {
			a.Forward(e, batch, h, y)
		}
		reportTokens(b, batch.Tokens())
	})
	b.Run("backward", func(b *testing.B) {
		g, dh := NewMLAGradient(a), make([]float32, len(h))
		for b.Loop() {
			pass := a.Begin(e, batch, h)
			pass.Output(y)
			pass.Backward(y, g, dh)
		}
		reportTokens(b, batch.Tokens())
	})
}

// BenchmarkBackwardMLP is the MLP of one layer over 2,048 tokens, forward and back.
func BenchmarkBackwardMLP(b *testing.B) {
	net, e := benchmarkNetwork(b), blas.New(0)
	block, err := net.Block(0)
	if err != nil {
		b.Fatal(err)
	}
	defer block.Close()
	_, start := randomInputs(rand.New(rand.NewPCG(5, 5)), []int{2048}, net.Hidden)
	x := make([]float32, len(start))
	for b.Loop() {
		copy(x, start)
		block.BeginMLP(e, 2048, x).Backward(e, x)
	}
	reportTokens(b, 2048)
}
