package svd

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// The oracles: the obvious versions, in plain loops or by gonum's exact
// solvers, independent of the kernels under test.

func naiveProduct(a, b Matrix) Matrix {
	if a.Cols != b.Rows {
		panic(badShape)
	}
	c := NewMatrix(a.Rows, b.Cols)
	for i := range a.Rows {
		for k, v := range a.Row(i) {
			axpy(v, b.Row(k), c.Row(i))
		}
	}
	return c
}

func naiveSub(a, b Matrix) Matrix {
	c := a.Clone()
	for i := range a.Rows {
		for j := range a.Cols {
			c.Set(i, j, a.At(i, j)-b.At(i, j))
		}
	}
	return c
}

func frobenius(a Matrix) float64 {
	var s float64
	for i := range a.Rows {
		for _, v := range a.Row(i) {
			s = math.Hypot(s, v)
		}
	}
	return s
}

func naiveTrace(a Matrix) float64 {
	var s float64
	for i := range a.Rows {
		s += a.At(i, i)
	}
	return s
}

func oracleEigenvalues(c Matrix) []float64 {
	inv, unit := powerOfTwoScale(max(mat.Max(c.Dense()), -mat.Min(c.Dense()))) // gonum 0.17 panics on tiny elements
	s := mat.NewSymDense(c.Rows, nil)
	for i := range c.Rows {
		for j := range i + 1 {
			s.SetSym(i, j, inv*c.At(i, j))
		}
	}
	var f mat.EigenSym
	if !f.Factorize(s, true) {
		panic("oracle did not converge")
	}
	v := f.Values(nil)
	scale(unit, v)
	for i, j := 0, len(v)-1; i < j; i, j = i+1, j-1 {
		v[i], v[j] = v[j], v[i]
	}
	return v
}

// optimalDiscarded returns the least energy that a truncation of a to each
// rank 0 .. min(m, n) discards.
func optimalDiscarded(a Matrix) []float64 {
	var f mat.SVD
	if !f.Factorize(a.Dense(), mat.SVDNone) {
		panic("oracle did not converge")
	}
	s := f.Values(nil)
	d := make([]float64, len(s)+1)
	for i := len(s) - 1; i >= 0; i-- {
		d[i] = d[i+1] + s[i]*s[i]
	}
	return d
}

// orthogonalityError returns the largest |Q^T Q - I| over the elements.
func orthogonalityError(q Matrix) float64 {
	g := naiveProduct(q.T(), q)
	var worst float64
	for i := range g.Rows {
		for j, v := range g.Row(i) {
			if i == j {
				v--
			}
			if math.IsNaN(v) {
				return math.Inf(1)
			}
			worst = max(worst, math.Abs(v))
		}
	}
	return worst
}

func randomMatrix(rng *rand.Rand, rows, cols int) Matrix {
	return paddedMatrix(rng, rows, cols, 0)
}

// paddedMatrix returns a random matrix with pad NaNs at the end of every row.
func paddedMatrix(rng *rand.Rand, rows, cols, pad int) Matrix {
	stride := max(1, cols+pad)
	a := Matrix{Rows: rows, Cols: cols, Stride: stride, Data: make([]float64, rows*stride)}
	for i := range a.Data {
		a.Data[i] = math.NaN()
	}
	for i := range rows {
		for j := range a.Row(i) {
			a.Set(i, j, rng.NormFloat64())
		}
	}
	return a
}

func randomOrthogonal(rng *rand.Rand, rows, cols int) Matrix {
	if cols == 0 {
		return NewMatrix(rows, 0)
	}
	var qr mat.QR
	qr.Factorize(randomMatrix(rng, rows, cols).Dense())
	var q mat.Dense
	qr.QTo(&q)
	return FromDense(&q).Slice(0, rows, 0, cols).Clone()
}

// withSpectrum returns U diag(s) V^T with random orthonormal factors.
func withSpectrum(rng *rand.Rand, rows, cols int, s []float64) Matrix {
	u, v := randomOrthogonal(rng, rows, len(s)), randomOrthogonal(rng, cols, len(s))
	for i := range rows {
		for j := range s {
			u.Data[i*u.Stride+j] *= s[j]
		}
	}
	return naiveProduct(u, v.T())
}

func withEigenvalues(rng *rand.Rand, values []float64) Matrix {
	n := len(values)
	q := randomOrthogonal(rng, n, n)
	l := q.Clone()
	for i := range n {
		for j := range n {
			l.Data[i*n+j] *= values[j]
		}
	}
	c := naiveProduct(l, q.T())
	symmetrise(c)
	return c
}

func testRNG() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", name)
		}
	}()
	f()
}

// oracleRoot returns an n x n factor of the positive semidefinite c by
// gonum's eigenvectors.
func oracleRoot(c Matrix) Matrix {
	n := c.Rows
	var f mat.EigenSym
	s := mat.NewSymDense(n, nil)
	for i := range n {
		for j := range i + 1 {
			s.SetSym(i, j, c.At(i, j))
		}
	}
	if !f.Factorize(s, true) {
		panic("oracle did not converge")
	}
	var z mat.Dense
	f.VectorsTo(&z)
	l := FromDense(&z).Clone()
	for j, v := range f.Values(nil) {
		for i := range n {
			l.Data[i*n+j] *= math.Sqrt(max(0, v))
		}
	}
	return l
}
