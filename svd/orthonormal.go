package svd

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// orthonormaliseRows makes the rows of v orthonormal, and orthogonal to those
// whose span project takes off them (none if it is nil), in passes of
// projection and CholeskyQR until a pass changes little. Rows that depend on
// others are replaced by random ones: that is how a Krylov space grows when the
// operator has no more to say about it, as with the identity. The first
// projection is left out if it has been done.
func orthonormaliseRows(e *blas.Engine, project func(v Matrix), v Matrix, projected bool, rng *rand.Rand) error {
	const passes = 8 // two suffice unless random rows come in
	for pass := range passes {
		if project != nil && !(projected && pass == 0) {
			project(v)
		}
		settled := pass > 0
		for i := range v.Rows {
			row := v.Row(i)
			norm := math.Sqrt(dot(row, row))
			settled = settled && norm > 0.5
			if norm == 0 {
				fillRandom(rng, v.Slice(i, i+1, 0, v.Cols))
				norm = math.Sqrt(dot(row, row))
			}
			scale(1/norm, row)
		}
		gram := NewMatrix(v.Rows, v.Rows)
		Syrk(e, false, 1, v, 0, gram)
		l, _, ok := Cholesky(e, gram)
		smallest := math.Inf(1)
		for i := range v.Rows {
			smallest = min(smallest, l.At(i, i))
		}
		if !ok || smallest < 1e-5 { // CholeskyQR would lose more digits than the next pass restores
			gramSchmidt(v, rng)
			continue
		}
		SolveLower(e, l, false, v)
		if settled && smallest > 0.5 {
			return nil
		}
	}
	return fmt.Errorf("%w: %d rows of %d elements not orthonormal after %d passes", ErrNoConvergence, v.Rows, v.Cols, passes)
}

// gramSchmidt makes the rows of v orthonormal one by one and replaces
// dependent ones by random rows.
func gramSchmidt(v Matrix, rng *rand.Rand) {
	for i := range v.Rows {
		row := v.Row(i)
		for range 3 {
			for j := range i {
				axpy(-dot(row, v.Row(j)), v.Row(j), row)
			}
			norm := math.Sqrt(dot(row, row))
			if norm < 1e-10 {
				fillRandom(rng, v.Slice(i, i+1, 0, v.Cols))
				norm = math.Sqrt(dot(row, row))
			}
			scale(1/norm, row)
		}
	}
}

func fillRandom(rng *rand.Rand, a Matrix) {
	for i := range a.Rows {
		row := a.Row(i)
		for j := range row {
			row[j] = rng.NormFloat64()
		}
	}
}

// takeOff takes off the rows of v what the orthonormal rows of known span, and
// returns its coefficients.
func takeOff(e *blas.Engine, v, known Matrix) Matrix {
	c := Product(e, false, true, v, known)
	Gemm(e, false, false, -1, c, known, 1, v)
	return c
}
