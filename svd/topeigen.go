package svd

import "fmt"

// notPositive is how negative, relative to the largest, an eigenvalue may be
// and still be taken for the rounding of a Gram matrix summed in float32.
const notPositive = 1e-6

func notPositiveError(low, high float64) error {
	return fmt.Errorf("%w: eigenvalue %g beside the largest, %g", ErrNotPositive, low, high)
}

// TopEigen returns the k leading eigenpairs of the symmetric positive
// semidefinite matrix c, of which both triangles are read; k is lowered to n. Small
// matrices and large fractions of the spectrum are solved directly, the others by block Krylov
// iteration to the tolerance of the options.
func TopEigen(c Matrix, k int, opt Options) (*Eigen, error) {
	c.checkSquare()
	if k < 0 {
		panic(badRank)
	}
	opt = opt.withDefaults()
	opt.checkStart(c.Rows)
	n := c.Rows
	k = min(k, n)
	if k > 0 && solveDirectly(n, k) {
		eig, err := eigSymTop(opt.Engine, c, k)
		if err == nil && eig.lowest < -notPositive*eig.Values[0] {
			err = notPositiveError(eig.lowest, eig.Values[0])
		}
		if err != nil {
			return nil, err
		}
		return eig, nil
	}
	big, err := c.maxAbs()
	if err != nil {
		return nil, err
	}
	if k == 0 {
		return &Eigen{Vectors: NewMatrix(n, 0), Trace: trace(c), Converged: true}, nil
	}
	inv, unit := safeScale(big)
	if inv != 1 {
		c = c.Clone()
		scale(inv, c.Data)
	}
	g := &operator{
		n: n, trace: trace(c),
		apply: func(x, w, _ Matrix) { Gemm(opt.Engine, false, false, 1, x, c, 0, w) },
	}
	s, err := blockKrylov(g, k, opt)
	if err != nil {
		return nil, err
	}
	positiveRows(s.vectors)
	scale(unit, s.values)
	return &Eigen{
		Values: s.values, Vectors: s.vectors.T(), Trace: g.trace * unit,
		Iterations: s.blocks, Converged: s.converged,
	}, nil
}

// solveDirectly reports whether a full reduction to tridiagonal form is
// cheaper than a Krylov space for k of n eigenpairs.
func solveDirectly(n, k int) bool { return n <= 192 || 5*k >= 2*n }
