package svd

import (
	"fmt"
	"math"
	"sync"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// Metric is a symmetric positive semidefinite n x n matrix C that weights
// one side of a least squares problem, held as a diagonal, as a factor or in full.
type Metric struct {
	n     int
	scale float64 // f of Scaled

	diag   []float64 // C = f diag(g)^2
	factor *Matrix   // C = f L L^T, L n x p
	gram   *Matrix   // C = f gram

	// compact is an L with at most n columns, computed when first needed.
	compact *lazyFactor
}

type lazyFactor struct {
	once sync.Once
	l    Matrix
	err  error
}

// IdentityMetric returns the identity of order n.
func IdentityMetric(n int) Metric { return Metric{n: n, scale: 1} }

// DiagonalMetric returns diag(g)^2: for g an RMSNorm weight, the covariance of
// inputs that are white before it. Zero entries are allowed. The slice is not
// copied.
func DiagonalMetric(g []float64) Metric { return Metric{n: len(g), scale: 1, diag: g} }

// FactorMetric returns L L^T for an n x p matrix L of any shape, for example a
// Cholesky factor or the transpose of an output projection. The matrix is not
// copied.
func FactorMetric(l Matrix) Metric {
	l.check()
	return Metric{n: l.Rows, scale: 1, factor: &l, compact: new(lazyFactor)}
}

// GramMetric returns C itself, symmetric positive semidefinite, of which both
// triangles are read. Eigenvalues down to -1e-6 of the largest are taken for
// rounding and dropped where a factor is needed. The matrix is not copied.
func GramMetric(c Matrix) Metric {
	c.checkSquare()
	return Metric{n: c.Rows, scale: 1, gram: &c, compact: new(lazyFactor)}
}

// Scaled returns f C. A negative f panics.
func (m Metric) Scaled(f float64) Metric {
	if f < 0 {
		panic("svd: negative scale of a metric")
	}
	m.scale *= f
	return m
}

func (m Metric) checkFinite() error {
	if math.IsNaN(m.scale) || math.IsInf(m.scale, 0) {
		return fmt.Errorf("%w: scale %v", ErrNotFinite, m.scale)
	}
	for i, v := range m.diag {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%w: %v at diagonal element %d", ErrNotFinite, v, i)
		}
	}
	for _, a := range []*Matrix{m.factor, m.gram} {
		if a != nil {
			if _, err := a.maxAbs(); err != nil {
				return err
			}
		}
	}
	return nil
}

// compactFactor returns an n x p factor with p <= n of the unscaled metric;
// the metric is not diagonal.
func (m Metric) compactFactor(e *blas.Engine) (Matrix, error) {
	if m.factor != nil && m.factor.Cols <= m.n {
		return *m.factor, nil
	}
	m.compact.once.Do(func() {
		c := m.gram
		if c == nil {
			g := NewMatrix(m.n, m.n)
			Syrk(e, false, 1, *m.factor, 0, g)
			c = &g
		}
		m.compact.l, m.compact.err = factorPSD(e, *c)
	})
	return m.compact.l, m.compact.err
}

// factorPSD returns an n x p factor of the positive semidefinite matrix c:
// the Cholesky factor, or where that breaks down E diag(sqrt(values)) over the
// positive eigenvalues.
func factorPSD(e *blas.Engine, c Matrix) (Matrix, error) {
	if l, _, ok := Cholesky(e, c); ok {
		return l, nil
	}
	eig, err := EigSym(c, Options{Engine: e})
	if err != nil {
		return Matrix{}, err
	}
	n := c.Rows
	if eig.lowest < -notPositive*math.Abs(eig.Values[0]) {
		return Matrix{}, notPositiveError(eig.lowest, eig.Values[0])
	}
	p := 0
	for p < n && eig.Values[p] > float64(n)*epsilon*eig.Values[0] {
		p++
	}
	l := eig.Vectors.Slice(0, n, 0, p).Clone()
	for i := range n {
		for j := range p {
			l.Data[i*l.Stride+j] *= math.Sqrt(eig.Values[j])
		}
	}
	return l, nil
}

// factorRows returns the number of rows of W in C = W^T W as leftApply uses it.
func (m Metric) factorRows(e *blas.Engine) (int, error) {
	if m.diagonal() {
		return m.n, nil
	}
	l, err := m.compactFactor(e)
	return l.Cols, err
}

// leftApply writes W A into dst, C = W^T W.
func (m Metric) leftApply(e *blas.Engine, a, dst Matrix) error {
	f := math.Sqrt(m.scale)
	if m.diagonal() {
		for i := range m.n {
			g := f
			if m.diag != nil {
				g *= m.diag[i]
			}
			d := dst.Row(i)
			for j, v := range a.Row(i) {
				d[j] = g * v
			}
		}
		return nil
	}
	l, err := m.compactFactor(e)
	if err != nil {
		return err
	}
	Gemm(e, true, false, f, l, a, 0, dst)
	return nil
}

// leftProduct returns W A, C = W^T W.
func (m Metric) leftProduct(e *blas.Engine, a Matrix) (Matrix, error) {
	p, err := m.factorRows(e)
	if err != nil {
		return Matrix{}, err
	}
	w := NewMatrix(p, a.Cols)
	return w, m.leftApply(e, a, w)
}

// diagonal reports whether the metric is held as a diagonal.
func (m Metric) diagonal() bool { return m.factor == nil && m.gram == nil }

// rightApply returns X C for rows X (k x n).
func (m Metric) rightApply(e *blas.Engine, x Matrix) Matrix {
	y := NewMatrix(x.Rows, m.n)
	switch {
	case m.gram != nil:
		Gemm(e, false, false, m.scale, x, *m.gram, 0, y)
	case m.factor != nil:
		Gemm(e, false, true, m.scale, Product(e, false, false, x, *m.factor), *m.factor, 0, y)
	default:
		return m.scaleColumns(m.scaleColumns(x, 1), m.scale)
	}
	return y
}

// scaleColumns returns f X diag(g), or f X for the identity.
func (m Metric) scaleColumns(x Matrix, f float64) Matrix {
	y := NewMatrix(x.Rows, x.Cols)
	m.scaleInto(y, x, 0, f)
	return y
}

// scaleInto writes f X diag(g) into y, where X has the columns from the given one on.
func (m Metric) scaleInto(y, x Matrix, column int, f float64) {
	for i := range x.Rows {
		xi := x.Row(i)
		yi := y.Row(i)[:len(xi)]
		if m.diag == nil {
			for j, v := range xi {
				yi[j] = f * v
			}
			continue
		}
		g := m.diag[column:][:len(xi)]
		for j, v := range xi {
			yi[j] = f * (v * g[j])
		}
	}
}

// Congruence returns A C A^T for A m x n, as a new m x m matrix. A nil
// engine means the shared one.
func (m Metric) Congruence(e *blas.Engine, a Matrix) Matrix {
	e = orShared(e)
	if m.diagonal() {
		return m.diagonalCongruence(e, a)
	}
	return Product(e, false, true, m.rightApply(e, a), a)
}

// diagonalCongruence is Congruence for a diagonal C: the Gram matrix of the rows of A diag(g), which is scaled some columns
// at a time.
func (m Metric) diagonalCongruence(e *blas.Engine, a Matrix) Matrix {
	const elements = 1 << 22 // of A diag(g) at a time
	c := NewMatrix(a.Rows, a.Rows)
	width := min(max(1, elements/max(1, a.Rows)), a.Cols)
	scaled := NewMatrix(a.Rows, width)
	for j := 0; j < a.Cols; j += width {
		part := scaled.Slice(0, a.Rows, 0, min(width, a.Cols-j))
		m.scaleInto(part, a.Slice(0, a.Rows, j, j+part.Cols), j, 1)
		beta := 1.0
		if j == 0 {
			beta = 0
		}
		Syrk(e, false, m.scale, part, beta, c)
	}
	return c
}

// Inner returns tr(C X) for a symmetric n x n matrix X.
func (m Metric) Inner(x Matrix) float64 {
	if x.Rows != m.n || x.Cols != m.n {
		panic(badShape)
	}
	switch {
	case m.gram != nil:
		return m.scale * innerProduct(*m.gram, x)
	case m.factor != nil:
		return m.scale * innerProduct(*m.factor, Product(nil, false, false, x, *m.factor))
	}
	var s float64
	for i := range m.n {
		v := x.At(i, i)
		if m.diag != nil {
			v *= m.diag[i] * m.diag[i]
		}
		s += v
	}
	return m.scale * s
}
