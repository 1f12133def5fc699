package mla

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/svd"
)

// randomStatistics are metrics of random inputs for every head: of x [tokens, d] = z of A, z of as many columns as A has rows.
func randomStatistics(r *rand.Rand, s *Source, a svd.Matrix) *Statistics {
	metric := func(a svd.Matrix) svd.Matrix {
		z := randomMatrix(r, 3*a.Rows, a.Rows, 1)
		for i := range z.Data {
			z.Data[i] *= math.Pow(float64(i%z.Stride+1), -0.5)
		}
		x := svd.Product(nil, false, false, z, a)
		return svd.Product(nil, true, false, x, x)
	}
	st := &Statistics{Input: metric(a)}
	for range s.Heads {
		st.Heads = append(st.Heads, HeadStatistics{
			Softmax: metric(a), Averaged: metric(a), Mean: svd.Product(nil, false, false, randomMatrix(r, 1, a.Rows, 1), a).Row(0),
			Query: metric(identity(s.HeadDim)), Squared: 0.1 + r.Float64(), Distances: PowerLaw(64, 1),
		})
	}
	return st
}

// in returns the statistics in a basis, by definition.
func (st *Statistics) in(b *Basis) *Statistics {
	metric := func(m svd.Matrix) svd.Matrix {
		return svd.Product(nil, false, true, svd.Product(nil, false, false, b.Rows, m), b.Rows)
	}
	out := &Statistics{Basis: b, Input: metric(st.Input)}
	for _, h := range st.Heads {
		h.Softmax, h.Averaged = metric(h.Softmax), metric(h.Averaged)
		mean := make([]float64, b.Rows.Rows)
		for i := range mean {
			mean[i] = dot(b.Rows.Row(i), h.Mean)
		}
		h.Mean = mean
		out.Heads = append(out.Heads, h)
	}
	return out
}

func (st *Statistics) queries() []svd.Matrix {
	var out []svd.Matrix
	for _, h := range st.Heads {
		out = append(out, h.Query)
	}
	return out
}

func identity(n int) svd.Matrix {
	m := svd.NewMatrix(n, n)
	for i := range n {
		m.Set(i, i, 1)
	}
	return m
}

// TestBasis: the rows are orthonormal, as many as asked for or as the keys and values have; those are exact in all of their
// directions, and with fewer what is left out is uncorrelated with what is kept.
func TestBasis(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	const hidden, rows = 40, 16
	for _, c := range []struct{ planted, asked, want int }{{rows, rows, rows}, {rows, 30, rows}, {rows, 7, 7}, {5, rows, 5}, {5, 3, 3}} {
		t.Run(fmt.Sprint(c.planted, c.asked), func(t *testing.T) {
			s := randomSource(r, 4, 2, 4, hidden)
			shared := randomMatrix(r, c.planted, hidden, 1)
			s.K = svd.Product(nil, false, false, randomMatrix(r, 8, c.planted, 1), shared)
			s.V = svd.Product(nil, false, false, randomMatrix(r, 8, c.planted, 1), shared)
			st := randomStatistics(r, s, identity(hidden))
			b, err := NewBasis(nil, s, st.Input, st.queries(), c.asked)
			if err != nil {
				t.Fatal(err)
			}
			if b.Rows.Rows != c.want {
				t.Fatalf("%d rows, want %d", b.Rows.Rows, c.want)
			}
			if e := relative(svd.Product(nil, false, true, b.Rows, b.Rows), identity(c.want)); e > 1e-10 {
				t.Errorf("rows are not orthonormal: %g", e)
			}
			whole := stackRows(s.K, s.V)
			kept := svd.Product(nil, false, false, stackRows(b.Keys, b.Values), b.Rows)
			if c.want == c.planted {
				if e := relative(kept, whole); e > 1e-9 {
					t.Errorf("keys and values lose %g", e)
				}
				return
			}
			// Correlations are those of the inputs and a ridge of 1e-5 of their mean variance.
			reach := svd.Product(nil, false, true, st.Input, b.Rows)
			if e := relative(svd.Product(nil, false, false, kept, reach), svd.Product(nil, false, false, whole, reach)); e > 1e-4 {
				t.Errorf("what is left out is correlated with what is kept: %g", e)
			}
			if e := relative(kept, whole); e < 0.05 {
				t.Errorf("loses only %g", e)
			}
		})
	}
}

// TestReducedFit: where inputs lie in the row space of the keys and values, or that is everything, a fit in its basis is the
// fit without one.
func TestReducedFit(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 2))
	for _, c := range []struct{ hidden, slots int }{{16, 2}, {16, 1}, {40, 2}, {40, 1}} {
		s := randomSource(r, 4, 2, 4, c.hidden)
		span := identity(c.hidden)
		if c.hidden > 16 {
			span = stackRows(s.K, s.V)
		}
		st := randomStatistics(r, s, span)
		b, err := NewBasis(nil, s, st.Input, st.queries(), 16)
		if err != nil {
			t.Fatal(err)
		}
		reduced := st.in(b)
		for _, candidate := range []Candidate{
			{QueryPower: 1, KeyWeight: 1}, {SlotInput: MixedInput, KeyWeight: 0.3, Reach: 8},
			{SlotInput: MixedInput, QueryPower: 1, KeyWeight: 1, Refine: true, Sweeps: 3, Flat: 0.3},
			{QueryPower: 1, KeyWeight: 1, Loose: true, Flat: 0.2},
		} {
			fit := func(st *Statistics, sweeps int) *Attention {
				f, err := NewFit(s, st, 5, frequencies(c.slots), candidate, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Sweep(sweeps); err != nil {
					t.Fatal(err)
				}
				return f.Attention()
			}
			for _, sweeps := range []int{0, 2} {
				want, got := fit(st, sweeps), fit(reduced, sweeps)
				// On the inputs there are; a ridge of 1e-5 is spread over more directions without a basis.
				on := func(a svd.Matrix) svd.Matrix { return svd.Product(nil, false, true, a, span) }
				for _, m := range []struct {
					name      string
					got, want svd.Matrix
				}{
					{"rotary queries", got.QRope, want.QRope}, {"rotary keys", got.KRope, want.KRope},
					{"keys", on(svd.Product(nil, false, false, got.UpK, got.Down)), on(svd.Product(nil, false, false, want.UpK, want.Down))},
					{"values", on(svd.Product(nil, false, false, got.UpV, got.Down)), on(svd.Product(nil, false, false, want.UpV, want.Down))},
					{"bias", svd.Matrix{Rows: 1, Cols: c.hidden, Stride: c.hidden, Data: got.Bias}, svd.Matrix{Rows: 1, Cols: c.hidden, Stride: c.hidden, Data: want.Bias}},
				} {
					if e := relative(m.got, m.want); !(e < 1e-3) {
						t.Errorf("hidden %d, %d slots, %s, %d sweeps: %s differ by %g", c.hidden, c.slots, candidate, sweeps, m.name, e)
					}
				}
			}
		}
	}
}

func TestMetricWidth(t *testing.T) {
	for _, c := range []struct{ hidden, rows, rank, want int }{
		{4096, 1024, 512, 2048}, // Llama-3-8B
		{4096, 1024, 300, 1200}, {4096, 4096, 512, 2048},
		{4096, 4096, 1024, 4096}, {4096, 1536, 2000, 3072}, {4096, 1537, 2000, 4096},
		{1024, 64, 32, 1024}, {1025, 64, 32, 128}, {576, 192, 128, 576},
	} {
		if got := MetricWidth(c.hidden, c.rows, c.rank); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
