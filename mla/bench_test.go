package mla

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/svd"
)

// benchmarkSource is a layer with weights of a decaying spectrum: products A diag(i^-1/2) B of Gaussian matrices.
func benchmarkSource(hidden, heads, kvHeads, dim int) *Source {
	r := rand.New(rand.NewPCG(9, 9))
	gaussian := func(rows, cols int) svd.Matrix {
		m := svd.NewMatrix(rows, cols)
		for i := range m.Data {
			m.Data[i] = r.NormFloat64() / math.Sqrt(float64(cols))
		}
		return m
	}
	weight := func(rows, cols int) svd.Matrix {
		inner := min(rows, cols)
		right := gaussian(inner, cols)
		for i := range inner {
			f := math.Pow(float64(i+1), -0.5)
			for j := range right.Row(i) {
				right.Row(i)[j] *= f
			}
		}
		return svd.Product(nil, false, false, gaussian(rows, inner), right)
	}
	s := &Source{Heads: heads, KVHeads: kvHeads, HeadDim: dim, Frequencies: make([]float64, dim/2)}
	for f := range s.Frequencies {
		s.Frequencies[f] = math.Pow(10000, -2*float64(f)/float64(dim))
	}
	s.Q, s.K = weight(heads*dim, hidden), weight(kvHeads*dim, hidden)
	s.V, s.O = weight(kvHeads*dim, hidden), weight(hidden, heads*dim)
	return s
}

// BenchmarkConvert converts a layer free of data, at the shapes of SmolLM2-135M and of Llama-3-8B.
func BenchmarkConvert(b *testing.B) {
	for _, s := range []struct {
		name                                    string
		hidden, heads, kvHeads, dim, rank, rope int
	}{
		{"SmolLM2-135M", 576, 9, 3, 64, 127, 64},
		{"Llama-3-8B", 4096, 32, 8, 128, 511, 64},
	} {
		b.Run(s.name, func(b *testing.B) {
			source := benchmarkSource(s.hidden, s.heads, s.kvHeads, s.dim)
			gamma := make([]float64, s.hidden)
			for i := range gamma {
				gamma[i] = 1
			}
			frequencies := make([]float64, s.rope/2)
			for f := range frequencies {
				frequencies[f] = math.Pow(10000, -2*float64(f)/float64(s.rope))
			}
			const context = 8192
			for b.Loop() {
				m := DataFree(nil, source, gamma, context)
				o := Options{Rank: s.rank, Frequencies: frequencies, Slots: DataFreeSlots(source, len(frequencies), context)}
				if _, err := Convert(source, m, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFit is one candidate of a layer of SmolLM2-135M, under metrics of random inputs: its start, and one sweep.
func BenchmarkFit(b *testing.B) {
	const hidden, heads, kvHeads, dim, rank, slots = 576, 9, 3, 64, 127, 32
	source := benchmarkSource(hidden, heads, kvHeads, dim)
	r := rand.New(rand.NewPCG(4, 4))
	metric := func(n int) svd.Matrix {
		x := svd.NewMatrix(2*n, n)
		for i := range x.Data {
			x.Data[i] = r.NormFloat64() * math.Pow(float64(i%x.Stride+1), -0.5)
		}
		return svd.Product(nil, true, false, x, x)
	}
	st := &Statistics{Input: metric(hidden)}
	for range heads {
		st.Heads = append(st.Heads, HeadStatistics{
			Softmax: metric(hidden), Averaged: metric(hidden), Mean: make([]float64, hidden), Query: metric(dim),
			Squared: 0.3, Distances: PowerLaw(1024, 1),
		})
	}
	c := Candidate{SlotInput: MixedInput, QueryPower: 1, KeyWeight: 1}
	fit := func(b *testing.B) *Fit {
		f, err := NewFit(source, st, rank, source.Frequencies[:slots], c, nil)
		if err != nil {
			b.Fatal(err)
		}
		return f
	}
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			fit(b)
		}
	})
	b.Run("sweep", func(b *testing.B) {
		f := fit(b)
		for b.Loop() {
			if err := f.Sweep(1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
