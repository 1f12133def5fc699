package svd

import "fmt"

// notPositive is how negative, relative to the largest, an eigenvalue may be
// and still be taken for the rounding of a Gram matrix summed in float32.
const notPositive = 1e-6

// TopEigen returns the k leading eigenpairs of the symmetric positive
// semidefinite matrix c, of which both triangles are read. The k is lowered to n.
func TopEigen(c Matrix, k int, opt Options) (*Eigen, error) {
	c.checkSquare()
	if k < 0 {
		panic(badRank)
	}
	e, err := EigSym(c, opt)
	if err != nil {
		return nil, err
	}
	n := c.Rows
	if n > 0 && e.Values[n-1] < -notPositive*e.Values[0] {
		return nil, fmt.Errorf("%w: eigenvalue %g beside the largest %g", ErrNotPositive, e.Values[n-1], e.Values[0])
	}
	k = min(k, n)
	e.Basis = e.Vectors
	e.Values = e.Values[:k]
	e.Vectors = e.Vectors.Slice(0, n, 0, k)
	return e, nil
}
