package svd

import (
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// operator is a symmetric positive semidefinite matrix G of order n, formed or
// known by its products.
type operator struct {
	e     *blas.Engine
	n     int
	trace float64

	gram   *Matrix       // G, if formed
	single *matrix32     // G in float32 instead
	form   func() Matrix // forms G

	// X G by way of the images of the rows X (b x n), which have a length of
	// their own and a use to the caller. Length 0 means that there are none.
	images    int
	toImage   func(x, image Matrix)
	fromImage func(image, w Matrix)
}

// denseOperator is the matrix g itself.
func denseOperator(e *blas.Engine, g Matrix) *operator {
	return &operator{e: e, n: g.Rows, trace: trace(g), gram: &g}
}

// productOperator is B^T B if tall and B B^T otherwise. Images are the X B^T
// or X B.
func productOperator(e *blas.Engine, b Matrix, tall bool) *operator {
	g := &operator{e: e, n: b.Rows, images: b.Cols, trace: energy(b)}
	if tall {
		g.n, g.images = b.Cols, b.Rows
	}
	g.form = func() Matrix {
		m := NewMatrix(g.n, g.n)
		Syrk(e, tall, 1, b, 0, m)
		return m
	}
	g.toImage = func(x, image Matrix) { Gemm(e, false, tall, 1, x, b, 0, image) }
	g.fromImage = func(image, w Matrix) { Gemm(e, false, !tall, 1, image, b, 0, w) }
	return g
}

// formNow forms G, after which products go through it.
func (g *operator) formNow() Matrix {
	if g.gram == nil {
		m := g.form()
		g.gram = &m
	}
	return *g.gram
}

// formed says that products go through G itself, so that there are no images.
func (g *operator) formed() bool { return g.gram != nil || g.single != nil }

// apply writes X G into w, which is zero. If G is not formed it leaves the images of X in image.
func (g *operator) apply(x, w, image Matrix) {
	if g.single != nil {
		// G X^T, for G is multiplied where it lies.
		product32(g.e, true, *g.single, narrow(x)).transposed().addTo(w, 1)
		return
	}
	if g.gram != nil {
		Gemm(g.e, false, false, 1, x, *g.gram, 0, w)
		return
	}
	g.toImage(x, image)
	g.fromImage(image, w)
}

// leadingSpace holds the k leading eigenpairs of an operator, or what
// approximates them.
type leadingSpace struct {
	values    []float64 // k Ritz values, descending
	vectors   Matrix    // k x n, in rows, orthonormal
	images    Matrix    // k x images
	total     float64   // trace of the operator
	blocks    int       // products of G with a block; 0 for a direct solution
	converged bool
}

// leadingEigen finds the k <= n leading eigenpairs of g: directly where that
// is cheaper than a Krylov space, else by blockKrylov.
func leadingEigen(g *operator, k int, opt Options) (*leadingSpace, error) {
	if k == 0 {
		return &leadingSpace{vectors: NewMatrix(0, g.n), images: NewMatrix(0, g.images), total: g.trace, converged: true}, nil
	}
	if !solveDirectly(g.n, k) {
		return blockKrylov(g, k, opt)
	}
	eig, err := eigSymTop(g.e, g.formNow(), k)
	if err != nil {
		return nil, err
	}
	if eig.lowest < -notPositive*eig.Values[0] {
		return nil, notPositiveError(eig.lowest, eig.Values[0])
	}
	out := &leadingSpace{values: eig.Values, vectors: eig.Vectors.T(), total: g.trace, converged: true}
	out.findImages(g)
	return out, nil
}

// findImages computes the images of the vectors.
func (s *leadingSpace) findImages(g *operator) {
	s.images = NewMatrix(s.vectors.Rows, g.images)
	if g.images > 0 {
		g.toImage(s.vectors, s.images)
	}
}

// solveDirectly reports whether a full reduction to tridiagonal form is
// cheaper than a Krylov space for k of n eigenpairs.
func solveDirectly(n, k int) bool { return n <= 192 || 5*k >= 2*n }

// gramIsCheaper reports whether it saves time to form the Gram matrix on the
// shorter side before looking for k eigenvectors, which are then mapped to the
// longer side.
func gramIsCheaper(long, short, k int) bool {
	if solveDirectly(short, k) {
		return true
	}
	l, s, r := float64(long), float64(short), float64(k)
	dim := 2 * r // of the Krylov space, about
	formed := l*s*s + 2*s*s*dim + 2*l*s*r
	return formed < 4*l*s*dim+2*l*r*dim
}

// notPositive is how negative, relative to the largest, an eigenvalue may be
// and still be taken for the rounding of a Gram matrix summed in float32.
const notPositive = 1e-6

func notPositiveError(low, high float64) error {
	return fmt.Errorf("%w: eigenvalue %g beside the largest, %g", ErrNotPositive, low, high)
}
