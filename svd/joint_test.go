package svd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// jointLoss is sum_i tr(Q_i E_i C E_i^T), E_i = A_i - Up_i Down, in plain loops
// from full metrics.
func jointLoss(a, q []Matrix, c Matrix, up []Matrix, down Matrix) float64 {
	var s float64
	for i := range a {
		r := naiveSub(a[i], naiveProduct(up[i], down))
		s += naiveTrace(naiveProduct(naiveProduct(naiveProduct(q[i], r), c), r.T()))
	}
	return s
}

// jointSpectrum is the spectrum of M by gonum, from C's eigenfactor.
func jointSpectrum(a, q []Matrix, c Matrix) []float64 {
	k := NewMatrix(c.Rows, c.Rows)
	for i := range a {
		t := naiveProduct(naiveProduct(a[i].T(), q[i]), a[i])
		for x := range t.Data {
			k.Data[x] += t.Data[x]
		}
	}
	l := oracleRoot(c)
	return oracleEigenvalues(naiveProduct(naiveProduct(l.T(), k), l))
}

type jointCase struct {
	name   string
	blocks []Block
	c      Metric
	a, q   []Matrix
	full   Matrix
}

func jointCases() []jointCase {
	rng := testRNG()
	var cases []jointCase
	for _, shape := range []struct {
		d    int
		rows []int
	}{{1, []int{1}}, {12, []int{3, 4}}, {12, []int{20, 9, 1}}, {40, []int{16, 16, 8}}, {7, []int{0, 5}}} {
		for _, right := range []string{"identity", "diagonal", "gap", "factor", "wide", "tall", "gram", "singular"} {
			jc := jointCase{name: fmt.Sprintf("d=%d rows=%v right=%s", shape.d, shape.rows, right)}
			d := shape.d
			switch right {
			case "identity":
				jc.c, jc.full = IdentityMetric(d), eye(d)
			case "diagonal", "gap":
				g := make([]float64, d)
				jc.full = NewMatrix(d, d)
				for i := range g {
					g[i] = rng.NormFloat64()
					if right == "gap" && i%3 == 1 {
						g[i] = 0
					}
					jc.full.Set(i, i, g[i]*g[i])
				}
				jc.c = DiagonalMetric(g)
			case "factor", "wide", "tall":
				l := paddedMatrix(rng, d, map[string]int{"factor": d, "wide": d + 5, "tall": (d + 1) / 2}[right], 2)
				jc.c, jc.full = FactorMetric(l), naiveProduct(l, l.T())
			case "gram", "singular":
				l := randomMatrix(rng, d, map[string]int{"gram": d + 3, "singular": (d + 1) / 2}[right])
				jc.full = naiveProduct(l, l.T())
				jc.c = GramMetric(jc.full)
			}
			for i, m := range shape.rows {
				a := paddedMatrix(rng, m, d, i)
				var q Metric
				var full Matrix
				switch i % 3 {
				case 0:
					l := randomMatrix(rng, m, m+2)
					full = naiveProduct(l, l.T())
					q = GramMetric(full)
				case 1:
					l := randomMatrix(rng, m, 2*m)
					full = naiveProduct(l, l.T())
					q = FactorMetric(l)
				default:
					q, full = IdentityMetric(m).Scaled(2.5), eye(m)
					scale(2.5, full.Data)
				}
				jc.blocks = append(jc.blocks, Block{A: a, Q: q})
				jc.a, jc.q = append(jc.a, a), append(jc.q, full)
			}
			cases = append(cases, jc)
		}
	}
	return cases
}

func TestJoint(t *testing.T) {
	for _, jc := range jointCases() {
		t.Run(jc.name, func(t *testing.T) {
			spectrum := jointSpectrum(jc.a, jc.q, jc.full)
			var total float64
			for _, v := range spectrum {
				total += v
			}
			d := jc.full.Rows
			best := total
			for rank := 0; rank <= d+3; rank++ {
				f, err := Joint(jc.blocks, jc.c, rank, Options{})
				if err != nil {
					t.Fatal(err)
				}
				if rank > 0 && rank <= d {
					best -= spectrum[rank-1]
				}
				tol := 1e-11 * total
				loss := jointLoss(jc.a, jc.q, jc.full, f.Up, f.Down)
				if math.Abs(loss-f.Discarded) > tol {
					t.Errorf("rank %d: true error %g, Discarded %g", rank, loss, f.Discarded)
				}
				if math.Abs(f.Discarded-max(0, best)) > tol {
					t.Errorf("rank %d: Discarded %g, optimum %g of total %g", rank, f.Discarded, best, total)
				}
				if math.Abs(f.Total-total) > tol || math.Abs(f.Captured+f.Discarded-f.Total) > tol {
					t.Errorf("rank %d: Total %g (want %g), Captured %g, Discarded %g", rank, f.Total, total, f.Captured, f.Discarded)
				}
				for i := range min(rank, len(f.Values)) {
					if math.Abs(f.Values[i]-spectrum[i]) > tol {
						t.Errorf("rank %d: eigenvalue %d is %g, want %g", rank, i, f.Values[i], spectrum[i])
					}
				}
				g := naiveProduct(naiveProduct(f.Down, jc.full), f.Down.T())
				for i := range rank {
					for j := range rank {
						want := 0.0
						if i == j && i < f.Rank {
							want = 1
						}
						if math.Abs(g.At(i, j)-want) > 1e-9 {
							t.Fatalf("rank %d: (Down C Down^T)[%d,%d] = %g, want %g", rank, i, j, g.At(i, j), want)
						}
					}
				}
				for i := f.Rank; i < rank; i++ {
					for _, v := range f.Down.Row(i) {
						if v != 0 {
							t.Fatalf("rank %d: padding row %d is not zero", rank, i)
						}
					}
				}
			}
		})
	}
}

// A stack of exact rank r must come back whole, in every direction of the
// input, even where the metric is singular.
func TestJointLossless(t *testing.T) {
	rng := testRNG()
	const d, r = 24, 5
	down := randomMatrix(rng, r, d)
	var blocks []Block
	for range 3 {
		a := naiveProduct(randomMatrix(rng, 6, r), down)
		blocks = append(blocks, Block{A: a, Q: IdentityMetric(6)})
	}
	g := make([]float64, d)
	for i := range g {
		g[i] = float64(i % 4) // every fourth direction has no weight
	}
	f, err := Joint(blocks, DiagonalMetric(g), 9, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.Rank != r {
		t.Errorf("useful rank %d, want %d", f.Rank, r)
	}
	for i, b := range blocks {
		if e := frobenius(naiveSub(b.A, naiveProduct(f.Up[i], f.Down))); e > 1e-12*frobenius(b.A) {
			t.Errorf("block %d: error %g", i, e)
		}
	}
	if f.Discarded > 1e-24*f.Total {
		t.Errorf("Discarded %g of %g", f.Discarded, f.Total)
	}
}

func TestJointScale(t *testing.T) {
	jc := jointCases()[13]
	base, err := Joint(jc.blocks, jc.c, 3, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []float64{0x1p-500, 0x1p-480, 0x1p470} {
		var blocks []Block
		for _, b := range jc.blocks {
			a := b.A.Clone()
			scale(s, a.Data)
			blocks = append(blocks, Block{A: a, Q: b.Q})
		}
		f, err := Joint(blocks, jc.c, 3, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := f.Discarded/s/s, base.Discarded; math.Abs(got-want) > 1e-12*want {
			t.Errorf("scale %g: Discarded %g, want %g", s, got, want)
		}
		if e := frobenius(naiveSub(f.Down, base.Down)); e > 1e-12*frobenius(base.Down) {
			t.Errorf("scale %g: Down differs by %g", s, e)
		}
	}
}

func TestJointErrors(t *testing.T) {
	a := eye(3)
	bad := a.Clone()
	bad.Set(1, 2, math.NaN())
	indefinite := a.Clone()
	indefinite.Set(2, 2, -1)
	for _, tc := range []struct {
		name   string
		blocks []Block
		c      Metric
		want   error
	}{
		{"NaN block", []Block{{bad, IdentityMetric(3)}}, IdentityMetric(3), ErrNotFinite},
		{"NaN metric", []Block{{a, IdentityMetric(3)}}, GramMetric(bad), ErrNotFinite},
		{"NaN diagonal", []Block{{a, IdentityMetric(3)}}, DiagonalMetric([]float64{1, math.Inf(1), 1}), ErrNotFinite},
		{"NaN left metric", []Block{{a, FactorMetric(bad)}}, IdentityMetric(3), ErrNotFinite},
		{"indefinite left metric", []Block{{a, GramMetric(indefinite)}}, IdentityMetric(3), ErrNotPositive},
		{"indefinite right metric", []Block{{a, IdentityMetric(3)}}, GramMetric(indefinite), ErrNotPositive},
		{"indefinite right metric, tall", []Block{{a, IdentityMetric(3)}, {a, IdentityMetric(3)}}, GramMetric(indefinite), ErrNotPositive},
	} {
		if _, err := Joint(tc.blocks, tc.c, 2, Options{}); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", tc.name, err, tc.want)
		}
	}
	mustPanic(t, "block of another width", func() { Joint([]Block{{NewMatrix(2, 4), IdentityMetric(2)}}, IdentityMetric(3), 1, Options{}) })
	mustPanic(t, "metric of another order", func() { Joint([]Block{{NewMatrix(2, 3), IdentityMetric(3)}}, IdentityMetric(3), 1, Options{}) })
	mustPanic(t, "negative rank", func() { Joint(nil, IdentityMetric(3), -1, Options{}) })
}

// Every route of the iteration: on the left, and on the right with a diagonal
// (formed and not) and with a full metric.
func TestJointIterative(t *testing.T) {
	rng := testRNG()
	for _, tc := range []struct {
		name           string
		d, block, rank int
		c              string
	}{
		{"left, diagonal", 260, 70, 20, "diagonal"},
		{"left, full", 260, 70, 20, "full"},
		{"right, diagonal", 230, 90, 30, "diagonal"},
		{"right, diagonal, low rank", 250, 100, 4, "diagonal"},
		{"right, full", 220, 90, 20, "full"},
		{"right, singular", 230, 90, 20, "singular"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c Metric
			full := NewMatrix(tc.d, tc.d)
			if tc.c == "diagonal" {
				g := make([]float64, tc.d)
				for i := range g {
					g[i] = rng.NormFloat64() * float64(i%5)
					full.Set(i, i, 3*g[i]*g[i])
				}
				c = DiagonalMetric(g).Scaled(3)
			} else {
				values := spectrum("power 0.5", tc.d)
				if tc.c == "singular" {
					clear(values[205:])
				}
				full = withEigenvalues(rng, values)
				c = GramMetric(full)
			}
			var blocks []Block
			var a, q []Matrix
			for range 3 {
				x := withSpectrum(rng, tc.block, tc.d, spectrum("power 1", tc.block))
				l := randomMatrix(rng, tc.block, tc.block)
				a, q = append(a, x), append(q, naiveProduct(l, l.T()))
				blocks = append(blocks, Block{A: x, Q: FactorMetric(l)})
			}
			spectrum := jointSpectrum(a, q, full)
			var total, best float64
			for i, v := range spectrum {
				total += v
				if i >= tc.rank {
					best += v
				}
			}
			f, err := Joint(blocks, c, tc.rank, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if f.Iterations == 0 || !f.Converged || f.Rank != tc.rank {
				t.Fatalf("%d iterations, converged %v, rank %d", f.Iterations, f.Converged, f.Rank)
			}
			loss := jointLoss(a, q, full, f.Up, f.Down)
			if math.Abs(loss-f.Discarded) > 1e-12*total || math.Abs(f.Total-total) > 1e-12*total {
				t.Errorf("true error %g, Discarded %g; total %g, Total %g", loss, f.Discarded, total, f.Total)
			}
			if f.Discarded > best*(1+1e-4) || f.Discarded < best-1e-12*total {
				t.Errorf("Discarded %g, optimum %g of %g", f.Discarded, best, total)
			}
		})
	}
}

func TestJointThreads(t *testing.T) {
	jc := jointCases()[30]
	var first *JointFactors
	for threads := 1; threads <= 3; threads++ {
		f, err := Joint(jc.blocks, jc.c, 4, Options{Engine: blas.New(threads)})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = f
			continue
		}
		same := slices.Equal(first.Down.Data, f.Down.Data) && first.Discarded == f.Discarded
		for i := range f.Up {
			same = same && slices.Equal(first.Up[i].Data, f.Up[i].Data)
		}
		if !same {
			t.Errorf("%d threads give other bits than one", threads)
		}
	}
}
