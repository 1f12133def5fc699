package svd

import (
	"cmp"
	"fmt"
	"math"
	"math/cmplx"
	"slices"
)

// HermitianEigen holds the eigenpairs of a Hermitian n x n matrix:
// H = Vectors diag(Values) Vectors^*.
type HermitianEigen struct {
	Values  []float64 // n eigenvalues, descending
	Vectors CMatrix   // n x n, unitary; the largest component of each column is real and positive
}

// EigHermitian returns all eigenpairs of the Hermitian matrix h by the cyclic
// Jacobi method (Golub and Van Loan, Matrix Computations, 8.5, with the phase
// of the pivot taken out first). It is meant for n up to about 128. Only the
// lower triangle and the real part of the diagonal are read.
func EigHermitian(h CMatrix) (*HermitianEigen, error) {
	const maxSweeps = 40
	n := h.Rows
	if n != h.Cols {
		panic(notSquare)
	}
	checkShape(n, n, h.Stride, len(h.Data))

	var scale float64
	for i := range n {
		for j := range i + 1 {
			v := h.At(i, j)
			big := max(math.Abs(real(v)), math.Abs(imag(v)))
			if math.IsNaN(real(v)) || math.IsNaN(imag(v)) || math.IsInf(big, 0) {
				return nil, fmt.Errorf("%w: %v at row %d, column %d", ErrNotFinite, v, i, j)
			}
			scale = max(scale, big)
		}
	}
	e := &HermitianEigen{Values: make([]float64, n), Vectors: NewCMatrix(n, n)}
	if n == 0 {
		return e, nil
	}
	inv, unscale := powerOfTwoScale(scale)

	// a holds rows of the matrix, vt those of the transposed vectors: a
	// rotation combines two rows.
	a, vt := NewCMatrix(n, n), NewCMatrix(n, n)
	for i := range n {
		a.Set(i, i, complex(real(h.At(i, i))*inv, 0))
		vt.Set(i, i, 1)
		for j := range i {
			v := h.At(i, j) * complex(inv, 0)
			a.Set(i, j, v)
			a.Set(j, i, cmplx.Conj(v))
		}
	}
	converged := false
	for range maxSweeps {
		if !jacobiSweep(a, vt) {
			converged = true
			break
		}
	}
	if !converged {
		return nil, fmt.Errorf("%w: Hermitian eigenvalues of a %d x %d matrix", ErrNoConvergence, n, n)
	}

	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(real(a.At(j, j)), real(a.At(i, i))) })
	for k, p := range order {
		e.Values[k] = real(a.At(p, p)) * unscale
		row := vt.Data[p*n : p*n+n]
		var big complex128
		for _, v := range row {
			if cmplx.Abs(v) > cmplx.Abs(big) {
				big = v
			}
		}
		phase := cmplx.Conj(big) / complex(cmplx.Abs(big), 0)
		for i, v := range row {
			e.Vectors.Set(i, k, v*phase)
		}
	}
	return e, nil
}

// jacobiSweep annihilates every element off the diagonal of a once and
// reports whether any was large enough to need it.
func jacobiSweep(a, vt CMatrix) bool {
	const eps = 0x1p-53
	n := a.Rows
	rotated := false
	for p := range n {
		for q := p + 1; q < n; q++ {
			apq := a.At(p, q)
			r := cmplx.Abs(apq)
			app, aqq := real(a.At(p, p)), real(a.At(q, q))
			if r <= 0.5*eps*math.Sqrt(math.Abs(app))*math.Sqrt(math.Abs(aqq)) || r < 0x1p-1000 {
				continue
			}
			if d := math.Abs(aqq - app); r <= eps*eps*d { // too small to move either eigenvalue
				a.Set(p, q, 0)
				a.Set(q, p, 0)
				continue
			}
			rotated = true
			tau := (aqq - app) / (2 * r)
			t := math.Copysign(1/(math.Abs(tau)+math.Hypot(1, tau)), tau)
			c := 1 / math.Hypot(1, t)
			s := t * c
			phase := cmplx.Conj(apq) / complex(r, 0)
			// J = diag(1, phase) [c s; -s c] on (p, q): a <- J^* a J, vectors
			// <- vectors J.
			jqp, jqq := complex(-s, 0)*phase, complex(c, 0)*phase
			jpp, jpq := complex(c, 0), complex(s, 0)
			rowP, rowQ := a.Data[p*a.Stride:p*a.Stride+n], a.Data[q*a.Stride:q*a.Stride+n]
			for k := range n {
				x, y := rowP[k], rowQ[k]
				rowP[k] = cmplx.Conj(jpp)*x + cmplx.Conj(jqp)*y
				rowQ[k] = cmplx.Conj(jpq)*x + cmplx.Conj(jqq)*y
			}
			for k := range n {
				if k != p && k != q {
					a.Set(k, p, cmplx.Conj(rowP[k]))
					a.Set(k, q, cmplx.Conj(rowQ[k]))
				}
			}
			a.Set(p, p, complex(app-t*r, 0))
			a.Set(q, q, complex(aqq+t*r, 0))
			a.Set(p, q, 0)
			a.Set(q, p, 0)
			vP, vQ := vt.Data[p*n:p*n+n], vt.Data[q*n:q*n+n]
			for k := range n {
				x, y := vP[k], vQ[k]
				vP[k] = jpp*x + jqp*y
				vQ[k] = jpq*x + jqq*y
			}
		}
	}
	return rotated
}
