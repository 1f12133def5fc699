package svd

// TopEigen returns the k leading eigenpairs of the symmetric positive
// semidefinite matrix c, of which both triangles are read; k is lowered to n.
// Small matrices and large fractions of the spectrum are solved directly, the
// others by block Krylov iteration to the tolerance of the options.
func TopEigen(c Matrix, k int, opt Options) (*Eigen, error) {
	c.checkSquare()
	if k < 0 {
		panic(badRank)
	}
	opt = opt.withDefaults()
	opt.checkStart(c.Rows)
	big, err := c.maxAbs()
	if err != nil {
		return nil, err
	}
	inv, unit := safeScale(big)
	if inv != 1 {
		c = c.Clone()
		scale(inv, c.Data)
	}
	g := denseOperator(opt.Engine, c)
	s, err := leadingEigen(g, min(k, g.n), opt)
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
