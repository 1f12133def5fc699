package mla

import (
	"fmt"
	"math"
	"math/cmplx"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

// refineRidge is the share of the mean diagonal added to the systems of [Slots.refine]: slots of nearly equal frequency
// are nearly the same over a short context.
const refineRidge = 1e-6

// refine improves the slots by alternating least squares on the expected squared score error over keys and distances,
//
//	sum_{g,f} w_{g,f} E| conj(k_{g,f}) e^{i theta_f D} - sum_s A_{g,s,f} conj(kappa_s) e^{i omega_s D} |^2,
//
// w the query energy (with the queries' components taken as uncorrelated). phi(w) = E[e^{i w D}]. For fixed keys the query
// coefficients solve, for each g and f,
//
//	sum_s' (b_s^* C_k b_s') phi(omega_s' - omega_s) A_s' = (b_s^* C_k)_{g,f} phi(theta_f - omega_s),
//
// and for fixed coefficients the key functionals solve
//
//	sum_s' [sum_{g,f} w A_s conj(A_s') phi(omega_s - omega_s')] b_s'^* = sum_{g,f} w A_s phi(omega_s - theta_f) e_{g,f}^T.
func (t *Slots) refine(e *blas.Engine, s *Source, covariance svd.CMatrix, energy []float64, d Weights, sweeps int) error {
	slots, pairs := len(t.Frequencies), s.Pairs()
	n := s.KVHeads * pairs
	between := svd.NewCMatrix(slots, slots) // phi(omega_j - omega_i)
	toSource := svd.NewCMatrix(slots, pairs)
	for i, w := range t.Frequencies {
		for j, v := range t.Frequencies {
			between.Set(i, j, phase(d, v-w))
		}
		for f, v := range s.Frequencies {
			toSource.Set(i, f, phase(d, v-w))
		}
	}
	for sweep := range sweeps + 1 {
		if sweep > 0 {
			if err := t.refineKeys(energy, between, toSource, pairs); err != nil {
				return fmt.Errorf("slot keys: %w", err)
			}
		}
		reach := complexProduct(e, t.Key, covariance) // b_s^* C_k
		gram := complexProduct(e, reach, adjoint(t.Key))
		for i := range slots {
			for j := range slots {
				gram.Set(i, j, gram.At(i, j)*between.At(i, j))
			}
		}
		right := svd.NewCMatrix(slots, n)
		for i := range slots {
			for m := range n {
				right.Set(i, m, reach.At(i, m)*toSource.At(i, m%pairs))
			}
		}
		if err := solveHermitian(gram, right); err != nil {
			return fmt.Errorf("slot queries: %w", err)
		}
		for i := range slots {
			for m := range n {
				t.Query[m/pairs].Set(i, m%pairs, right.At(i, m))
			}
		}
	}
	return nil
}

func (t *Slots) refineKeys(energy []float64, between, toSource svd.CMatrix, pairs int) error {
	slots, n := len(t.Frequencies), t.Key.Cols
	gram, right := svd.NewCMatrix(slots, slots), svd.NewCMatrix(slots, n)
	for i := range slots {
		for m := range n {
			a := t.Query[m/pairs].At(i, m%pairs) * complex(energy[m], 0)
			right.Set(i, m, a*cmplx.Conj(toSource.At(i, m%pairs)))
			for j := range slots {
				gram.Set(i, j, gram.At(i, j)+a*cmplx.Conj(t.Query[m/pairs].At(j, m%pairs)))
			}
		}
		for j := range slots {
			gram.Set(i, j, gram.At(i, j)*cmplx.Conj(between.At(i, j)))
		}
	}
	if err := solveHermitian(gram, right); err != nil {
		return err
	}
	t.Key = right
	return nil
}

// phase is E[e^{i w D}] for w of either sign.
func phase(d Weights, w float64) complex128 {
	if w < 0 {
		return cmplx.Conj(d.Phase(-w))
	}
	return d.Phase(w)
}

// solveHermitian replaces b by (a + ridge)^-1 b for a small positive semidefinite a, by Cholesky, in place.
func solveHermitian(a, b svd.CMatrix) error {
	n := a.Rows
	mean := 0.0
	for i := range n {
		mean += real(a.At(i, i)) / float64(n)
	}
	if mean == 0 {
		clear(b.Data)
		return nil
	}
	for j := range n {
		pivot := real(a.At(j, j)) + refineRidge*mean
		for k := range j {
			v := a.At(j, k)
			pivot -= real(v)*real(v) + imag(v)*imag(v)
		}
		if !(pivot > 0) {
			return fmt.Errorf("%w at slot %d", svd.ErrNotPositive, j)
		}
		pivot = math.Sqrt(pivot)
		for i := j + 1; i < n; i++ {
			v := a.At(i, j)
			for k := range j {
				v -= a.At(i, k) * cmplx.Conj(a.At(j, k))
			}
			a.Set(i, j, v/complex(pivot, 0))
		}
		a.Set(j, j, complex(pivot, 0))
	}
	for c := range b.Cols {
		for i := range n {
			v := b.At(i, c)
			for k := range i {
				v -= a.At(i, k) * b.At(k, c)
			}
			b.Set(i, c, v/a.At(i, i))
		}
		for i := n - 1; i >= 0; i-- {
			v := b.At(i, c)
			for k := i + 1; k < n; k++ {
				v -= cmplx.Conj(a.At(k, i)) * b.At(k, c)
			}
			b.Set(i, c, v/a.At(i, i))
		}
	}
	return nil
}

// complexProduct is the product of the real parts above the imaginary ones of a with the real beside the imaginary ones of b.
func complexProduct(e *blas.Engine, a, b svd.CMatrix) svd.CMatrix {
	m, n := a.Rows, b.Cols
	left, right := svd.NewMatrix(2*m, a.Cols), svd.NewMatrix(b.Rows, 2*n)
	for i := range m {
		re, im := left.Row(i), left.Row(m+i)
		for k, v := range a.Data[i*a.Stride:][:a.Cols] {
			re[k], im[k] = real(v), imag(v)
		}
	}
	for k := range b.Rows {
		row := right.Row(k)
		for j, v := range b.Data[k*b.Stride:][:n] {
			row[j], row[n+j] = real(v), imag(v)
		}
	}
	parts := svd.Product(e, false, false, left, right)
	out := svd.NewCMatrix(m, n)
	for i := range m {
		re, im := parts.Row(i), parts.Row(m+i)
		for j := range n {
			out.Set(i, j, complex(re[j]-im[n+j], re[n+j]+im[j]))
		}
	}
	return out
}

func adjoint(a svd.CMatrix) svd.CMatrix {
	out := svd.NewCMatrix(a.Cols, a.Rows)
	for i := range a.Rows {
		for j := range a.Cols {
			out.Set(j, i, cmplx.Conj(a.At(i, j)))
		}
	}
	return out
}
