package svd

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// panelWidth is the number of rows reduced before the rest of the matrix is
// updated by one GEMM. A wider panel costs more in the matrix-vector products
// inside it.
const panelWidth = 32

// tridiagonal is the reduction C = unit Q T Q^T of a symmetric matrix to
// tridiagonal form by Householder reflections, Q = H_0 H_1 ... H_{n-2},
// H_j = I - tau_j v_j v_j^T with v_j zero up to j and 1 at j+1 (Dongarra,
// Sorensen, Hammarling, Block reduction of matrices to condensed forms, 1989).
type tridiagonal struct {
	d, e []float64 // diagonal, n, and off-diagonal, n-1, of T
	tau  []float64 // n-1
	v    Matrix    // row j holds v_j from column j+2 on

	unit   float64 // a power of two
	lowest float64 // the smallest eigenvalue of C, once known
}

// reduceTridiagonal reduces the matrix whose upper triangle a holds; a is
// overwritten. Its elements should be of order one.
func reduceTridiagonal(e *blas.Engine, a Matrix) *tridiagonal {
	n := a.Rows
	t := &tridiagonal{d: make([]float64, n), e: make([]float64, max(0, n-1)), tau: make([]float64, max(0, n-1)), v: a}
	// pairs holds v_p, w_p of the panel in its rows: first the v, then the w.
	// swapped holds the same with the two halves exchanged.
	pairs, swapped := NewMatrix(2*panelWidth, n), NewMatrix(2*panelWidth, n)
	sv := newSymv(n)
	coef := make([]float64, 2*panelWidth)
	for p := 0; p < n; p += panelWidth {
		width := min(panelWidth, n-p)
		t.reducePanel(e, a, p, width, pairs, swapped, sv, coef)
		if p+width < n {
			updateTrailing(e, a, p, width, pairs, swapped)
		}
	}
	return t
}

// reducePanel reduces rows p .. p+width-1 and leaves the rows behind them
// without the update A - sum_k (v_k w_k^T + w_k v_k^T), which pairs describes.
func (t *tridiagonal) reducePanel(e *blas.Engine, a Matrix, p, width int, pairs, swapped Matrix, sv *symv, coef []float64) {
	n := a.Rows
	for k := range width {
		j := p + k
		row := a.Row(j)
		if k > 0 { // the pending update of this row
			v, w := pairs.Data[j:], pairs.Data[panelWidth*pairs.Stride+j:]
			c := coef[:2*k]
			for i := range k {
				c[i], c[k+i] = v[i*pairs.Stride], w[i*pairs.Stride]
			}
			e.Dgemv(true, k, n-j, -1, w, pairs.Stride, c[:k], 1, row[j:])
			e.Dgemv(true, k, n-j, -1, v, pairs.Stride, c[k:], 1, row[j:])
		}
		t.d[j] = row[j]
		if j == n-1 {
			return
		}
		t.e[j], t.tau[j] = reflector(row[j+1:])

		v, w := pairs.Row(k), pairs.Row(panelWidth+k)
		clear(v[:j+1])
		v[j+1] = 1
		copy(v[j+2:], row[j+2:])
		clear(w[:j+1])
		if tau := t.tau[j]; tau == 0 {
			clear(w[j+1:])
		} else {
			// w = tau (A v - sum_i (v_i (w_i^T v) + w_i (v_i^T v))), then w -=
			// tau/2 (w^T v) v.
			sv.multiply(e, a.Slice(j+1, n, j+1, n), v[j+1:], w[j+1:])
			if k > 0 {
				c := coef[:2*k]
				m := n - j - 1
				e.Dgemv(false, k, m, 1, pairs.Data[j+1:], pairs.Stride, v[j+1:], 0, c[k:])
				e.Dgemv(false, k, m, 1, pairs.Data[panelWidth*pairs.Stride+j+1:], pairs.Stride, v[j+1:], 0, c[:k])
				e.Dgemv(true, k, m, -1, pairs.Data[j+1:], pairs.Stride, c[:k], 1, w[j+1:])
				e.Dgemv(true, k, m, -1, pairs.Data[panelWidth*pairs.Stride+j+1:], pairs.Stride, c[k:], 1, w[j+1:])
			}
			scale(tau, w[j+1:])
			axpy(-tau/2*dot(w[j+1:], v[j+1:]), v[j+1:], w[j+1:])
		}
		copy(swapped.Row(k), w)
		copy(swapped.Row(panelWidth+k), v)
	}
}

// updateTrailing subtracts sum_k (v_k w_k^T + w_k v_k^T) from the upper
// triangle behind the panel, in block rows. (Of a block on the diagonal all is
// computed; what is below is never read.)
func updateTrailing(e *blas.Engine, a Matrix, p, width int, pairs, swapped Matrix) {
	const blockRows = 256
	n := a.Rows
	for i := p + width; i < n; i += blockRows {
		h := min(blockRows, n-i)
		Gemm(e, true, false, -1, pairs.Slice(0, 2*panelWidth, i, i+h), swapped.Slice(0, 2*panelWidth, i, n), 1, a.Slice(i, i+h, i, n))
	}
}

// reflector finds H = I - tau v v^T with H x = beta e_1 and v_1 = 1, and
// leaves v in x from its second element on.
func reflector(x []float64) (beta, tau float64) {
	// Below this, squares lose their precision to underflow and H its
	// orthogonality. Beside a matrix of order one such elements are zeros.
	const negligible = 1e-140
	alpha := x[0]
	rest := x[1:]
	norm := math.Sqrt(dot(rest, rest))
	if norm < negligible {
		clear(rest)
		return alpha, 0
	}
	beta = -math.Copysign(math.Hypot(alpha, norm), alpha)
	scale(1/(alpha-beta), rest)
	return beta, (beta - alpha) / beta
}

// applyQ overwrites zt (k x n, vectors in rows) with (Q Z)^T = Z^T Q^T.
func (t *tridiagonal) applyQ(e *blas.Engine, zt Matrix) {
	const blockWidth = 64
	n := len(t.d)
	count := len(t.tau)
	v := NewMatrix(blockWidth, n)
	for p := (count - 1) / blockWidth * blockWidth; p >= 0 && count > 0; p -= blockWidth {
		width := min(blockWidth, count-p)
		vb := v.Slice(0, width, p+1, n)
		for k := range width {
			row := vb.Row(k)
			clear(row[:k])
			row[k] = 1
			copy(row[k+1:], t.v.Row(p + k)[p+k+2:])
		}
		// H_p ... H_{p+width-1} = I - V^T F V (rows v), so Z^T <- Z^T - ((Z^T
		// V^T) F^T) V.
		f := blockReflector(e, vb, t.tau[p:p+width])
		z := zt.Slice(0, zt.Rows, p+1, n)
		x := Product(e, false, true, Product(e, false, true, z, vb), f)
		Gemm(e, false, false, -1, x, vb, 1, z)
	}
}

// blockReflector returns the upper triangular F of the compact WY form
// H_0 H_1 ... = I - V^T F V for reflectors in the rows of v.
func blockReflector(e *blas.Engine, v Matrix, tau []float64) Matrix {
	n := v.Rows
	g := NewMatrix(n, n)
	Syrk(e, false, 1, v, 0, g)
	f := NewMatrix(n, n)
	for j := range n {
		f.Set(j, j, tau[j])
		for i := range j { // F[:j, j] = -tau_j F[:j, :j] (V v_j)
			var s float64
			for k := i; k < j; k++ {
				s += f.At(i, k) * g.At(k, j)
			}
			f.Set(i, j, -tau[j]*s)
		}
	}
	return f
}
