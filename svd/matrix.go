package svd

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/blas/cblas128"
	"gonum.org/v1/gonum/mat"
)

var (
	// ErrNotFinite says that an input holds a NaN or an infinity.
	ErrNotFinite = errors.New("NaN or infinity in the input")
	// ErrNotPositive says that a matrix is not positive (semi)definite.
	ErrNotPositive = errors.New("matrix is not positive definite")
	// ErrNoConvergence says that an iteration failed to converge.
	ErrNoConvergence = errors.New("no convergence")
)

const (
	badShape  = "svd: dimension mismatch"
	badMatrix = "svd: matrix data shorter than its shape"
	badStride = "svd: stride smaller than the number of columns"
	badRank   = "svd: negative rank"
	notSquare = "svd: matrix is not square"
)

// Matrix is a dense row-major matrix: element (i, j) is Data[i*Stride+j]. It
// converts to and from gonum's blas64.General without a copy.
type Matrix blas64.General

// CMatrix is a dense row-major complex matrix.
type CMatrix cblas128.General

// NewMatrix returns a zero matrix of the given shape.
func NewMatrix(rows, cols int) Matrix {
	return Matrix{Rows: rows, Cols: cols, Stride: max(1, cols), Data: make([]float64, rows*cols)}
}

// FromDense returns a view of d; the data is shared.
func FromDense(d *mat.Dense) Matrix { return Matrix(d.RawMatrix()) }

// Dense returns a gonum view of a; the data is shared.
func (a Matrix) Dense() *mat.Dense {
	var d mat.Dense
	if a.Rows > 0 && a.Cols > 0 {
		d.SetRawMatrix(blas64.General(a))
	}
	return &d
}

// At returns element (i, j).
func (a Matrix) At(i, j int) float64 { return a.Data[i*a.Stride+j] }

// Set sets element (i, j).
func (a Matrix) Set(i, j int, v float64) { a.Data[i*a.Stride+j] = v }

// Row returns row i; the data is shared.
func (a Matrix) Row(i int) []float64 {
	if a.Cols == 0 {
		return nil
	}
	return a.Data[i*a.Stride : i*a.Stride+a.Cols : i*a.Stride+a.Cols]
}

// Slice returns the view of rows [i, j) and columns [k, l).
func (a Matrix) Slice(i, j, k, l int) Matrix {
	if i < 0 || j < i || j > a.Rows || k < 0 || l < k || l > a.Cols {
		panic(badShape)
	}
	s := Matrix{Rows: j - i, Cols: l - k, Stride: a.Stride}
	if i < j && k < l {
		s.Data = a.Data[i*a.Stride+k : (j-1)*a.Stride+l]
	}
	return s
}

// Clone returns a copy of a without padding between the rows.
func (a Matrix) Clone() Matrix {
	b := NewMatrix(a.Rows, a.Cols)
	b.copyFrom(a)
	return b
}

// T returns the transpose of a as a new matrix.
func (a Matrix) T() Matrix {
	t := NewMatrix(a.Cols, a.Rows)
	transposeInto(t, a)
	return t
}

func (a Matrix) copyFrom(b Matrix) {
	for i := range a.Rows {
		copy(a.Row(i), b.Row(i))
	}
}

// At returns element (i, j).
func (a CMatrix) At(i, j int) complex128 { return a.Data[i*a.Stride+j] }

// Set sets element (i, j).
func (a CMatrix) Set(i, j int, v complex128) { a.Data[i*a.Stride+j] = v }

// NewCMatrix returns a zero complex matrix of the given shape.
func NewCMatrix(rows, cols int) CMatrix {
	return CMatrix{Rows: rows, Cols: cols, Stride: max(1, cols), Data: make([]complex128, rows*cols)}
}

// transposeInto writes a's transpose into t, in tiles that stay in cache.
func transposeInto(t, a Matrix) {
	const tile = 32
	for i0 := 0; i0 < a.Rows; i0 += tile {
		i1 := min(i0+tile, a.Rows)
		for j0 := 0; j0 < a.Cols; j0 += tile {
			j1 := min(j0+tile, a.Cols)
			for i := i0; i < i1; i++ {
				for j := j0; j < j1; j++ {
					t.Data[j*t.Stride+i] = a.Data[i*a.Stride+j]
				}
			}
		}
	}
}

// check panics when a's fields do not describe a matrix.
func (a Matrix) check() {
	checkShape(a.Rows, a.Cols, a.Stride, len(a.Data))
}

func checkShape(rows, cols, stride, n int) {
	if rows < 0 || cols < 0 {
		panic(badShape)
	}
	if rows == 0 || cols == 0 {
		return
	}
	if stride < cols {
		panic(badStride)
	}
	if n < (rows-1)*stride+cols {
		panic(badMatrix)
	}
}

func (a Matrix) checkSquare() {
	if a.Rows != a.Cols {
		panic(notSquare)
	}
	a.check()
}

// maxAbs returns the largest |a_ij|, or an error that names the first element
// that is not finite.
func (a Matrix) maxAbs() (float64, error) { return a.maxAbsWhere(false) }

// lowerMaxAbs is maxAbs over the lower triangle.
func (a Matrix) lowerMaxAbs() (float64, error) { return a.maxAbsWhere(true) }

func (a Matrix) maxAbsWhere(lower bool) (float64, error) {
	var m float64
	for i := range a.Rows {
		row := a.Row(i)
		if lower {
			row = row[:i+1]
		}
		for j, v := range row {
			v = math.Abs(v)
			if !(v <= math.MaxFloat64) {
				return 0, fmt.Errorf("%w: %v at row %d, column %d", ErrNotFinite, a.At(i, j), i, j)
			}
			m = max(m, v)
		}
	}
	return m, nil
}

// powerOfTwoScale returns a power of two near 1/x and its inverse, and 1 and
// 1 for zero. Scaling by them is exact away from underflow.
func powerOfTwoScale(x float64) (inv, scale float64) {
	if x == 0 {
		return 1, 1
	}
	_, exp := math.Frexp(x)
	exp = min(max(exp, -1000), 1000)
	return math.Ldexp(1, -exp), math.Ldexp(1, exp)
}

// safeScale is powerOfTwoScale where squares of numbers near x come near
// underflow or overflow, and 1 and 1 elsewhere, which saves a copy.
func safeScale(x float64) (inv, scale float64) {
	if x > 1e-60 && x < 1e60 {
		return 1, 1
	}
	return powerOfTwoScale(x)
}
