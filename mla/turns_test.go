package mla

import (
	"math"
	"math/cmplx"
	"math/rand/v2"
	"testing"

	"github.com/mlaconvert/mlaconvert/svd"
)

// turned is the rows of a, pairs in the given layout, with pair i turned by e^{-i w[i] distance}, as keys are.
func turned(a svd.Matrix, at layout, w []float64, distance int) svd.Matrix {
	out := a.Clone()
	for i := range w {
		re, im := at(i)
		c := cmplx.Rect(1, -w[i]*float64(distance))
		for j := range a.Cols {
			z := c * complex(a.At(re, j), a.At(im, j))
			out.Set(re, j, real(z))
			out.Set(im, j, imag(z))
		}
	}
	return out
}

// looseError is the expected error of [Fit] with loose slots, by turning keys and slots over every distance.
func looseError(f *Fit, s *Source, c Candidate) float64 {
	p, sum := &f.problem, 0.0
	for h := range p.heads {
		t, st := &p.heads[h], &f.statistics.Heads[h]
		d := Mixture(st.Distances.Within(c.Reach), Available(FlatWindows*len(st.Distances)), c.Flat)
		for distance, share := range d {
			slots := turned(p.down.Slice(p.shared, p.down.Rows, 0, p.down.Cols), interleaved, f.frequencies, distance)
			rest := turned(t.key, halves(s.Pairs()), s.Frequencies, distance)
			subtract(rest, svd.Product(nil, false, false, t.up, stackRows(p.latent(p.down), slots)))
			sum += share * svd.GramMetric(t.query).Inner(svd.GramMetric(t.softmax).Congruence(nil, rest))
		}
		rest := t.value.Clone()
		subtract(rest, svd.Product(nil, false, false, t.upV, p.latent(p.down)))
		sum += svd.GramMetric(t.output).Inner(svd.GramMetric(t.averaged).Congruence(nil, rest))
	}
	return sum
}

// TestLoose: neither half of a sweep raises the expected error, nor does a step from where either ends lower it; loose
// slots end with less than the others.
func TestLoose(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 3))
	for _, slots := range []int{2, 1} {
		s := randomSource(r, 4, 2, 4, 20)
		st := randomStatistics(r, s, identity(20))
		for h := range st.Heads {
			st.Heads[h].Distances = PowerLaw(9, 1)
		}
		c := Candidate{QueryPower: 1, KeyWeight: 1, Reach: 6, Loose: true, Flat: 0.2}
		f, err := NewFit(s, st, 5, frequencies(slots), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		// stationary moves elements of the matrices a little both ways.
		stationary := func(name string, tolerance float64, matrices ...svd.Matrix) {
			t.Helper()
			at := looseError(f, s, c)
			for _, m := range matrices {
				for range 6 {
					i, j := r.IntN(m.Rows), r.IntN(m.Cols)
					v, h := m.At(i, j), 1e-3
					m.Set(i, j, v+h)
					up := looseError(f, s, c)
					m.Set(i, j, v-h)
					down := looseError(f, s, c)
					m.Set(i, j, v)
					curvature := (up + down - 2*at) / (h * h)
					if slope := (up - down) / (2 * h); slope*slope > tolerance*curvature*at {
						t.Errorf("%d slots, %s: error %g, slope %g, curvature %g at %d, %d", slots, name, at, slope, curvature, i, j)
					}
				}
			}
		}
		errors := []float64{looseError(f, s, c)}
		for range 3 {
			stationary("readings", 1e-6, f.problem.heads[1].up, f.problem.heads[2].upV)
			if err := f.problem.fitDown(); err != nil {
				t.Fatal(err)
			}
			errors = append(errors, looseError(f, s, c))
			stationary("rows", 1e-3, f.problem.down)
			if err := f.problem.normaliseDown(); err != nil {
				t.Fatal(err)
			}
			if e, before := looseError(f, s, c), errors[len(errors)-1]; math.Abs(e-before) > 1e-9*before {
				t.Errorf("%d slots: normalising changes the error from %g to %g", slots, before, e)
			}
			if err := f.problem.fitUp(); err != nil {
				t.Fatal(err)
			}
			errors = append(errors, looseError(f, s, c))
		}
		for i, e := range errors[1:] {
			if e > errors[i]*(1+1e-6) {
				t.Errorf("%d slots: half-sweeps raise the error: %v", slots, errors)
			}
		}
		if last := errors[len(errors)-1]; last > 0.97*errors[0] {
			t.Errorf("%d slots: sweeps lower the error only from %g to %g", slots, errors[0], last)
		}
	}
}

// TestFitOfRounding: metrics that are nothing but rounding errors, of either sign, as inputs that are all alike leave them, are
// those of nothing.
func TestFitOfRounding(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 3))
	s := randomSource(r, 4, 2, 4, 20)
	for _, loose := range []bool{false, true} {
		st := randomStatistics(r, s, identity(20))
		for h := range st.Heads {
			st.Heads[h].Softmax = scaled(identity(20), -1e-12)
		}
		st.Heads[1].Averaged = scaled(identity(20), -1e-12)
		f, err := NewFit(s, st, 5, frequencies(2), Candidate{SlotInput: MixedInput, QueryPower: 1, KeyWeight: 1, Loose: loose, Flat: 0.2}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if m := trace(f.problem.mean); math.Abs(m-1) > 1e-3 { // that of the averaged inputs alone
			t.Errorf("loose %v: mean metric of trace %g", loose, m)
		}
		if err := f.Sweep(2); err != nil {
			t.Fatal(err)
		}
		for _, y := range f.Attention().Expanded(randomMatrix(r, 7, 20, 1)).Data {
			if math.IsNaN(y) || math.Abs(y) > 1e3 {
				t.Fatalf("loose %v: output %g", loose, y)
			}
		}
	}
}

// TestFitOfNothing: a layer whose keys and values are zero, as pruning leaves them, is fitted by one that gives nothing.
func TestFitOfNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 3))
	s := randomSource(r, 4, 2, 4, 20)
	clear(s.K.Data)
	clear(s.V.Data)
	st := randomStatistics(r, s, identity(20))
	for _, c := range []Candidate{{QueryPower: 1, KeyWeight: 1}, {QueryPower: 1, KeyWeight: 1, Loose: true, Flat: 0.2}} {
		f, err := NewFit(s, st, 5, frequencies(2), c, nil)
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		if err := f.Sweep(2); err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		for _, y := range f.Attention().Expanded(randomMatrix(r, 7, 20, 1)).Data {
			if y != 0 {
				t.Fatalf("%s: output %g", c, y)
			}
		}
	}
}
