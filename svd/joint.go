package svd

import (
	"fmt"
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// Block is one term tr(Q (A - Up Down) C (A - Up Down)^T) of a joint stack.
type Block struct {
	A Matrix // m_i x d
	Q Metric // order m_i
}

// Energy returns tr(Q A C A^T), what the block costs if nothing of it is kept.
func (b Block) Energy(e *blas.Engine, c Metric) float64 {
	return b.Q.Inner(c.Congruence(e, b.A))
}

// JointFactors is the best rank-r factorization of a weighted joint stack.
type JointFactors struct {
	Down Matrix   // r x d; Down C Down^T = I on the first Rank rows, the rest are zero
	Up   []Matrix // m_i x r for each block; columns from Rank on are zero

	// Values are the computed leading eigenvalues of M, descending: at least
	// min(r, order of M) of them. Their sum over all would be Total. They are to
	// the precision of float32 where that is what found them; what follows is not.
	Values    []float64
	Total     float64 // sum_i tr(Q_i A_i C A_i^T)
	Captured  float64 // sum_i tr(Q_i Up_i Up_i^T)
	Discarded float64 // sum_i tr(Q_i (A_i - Up_i Down) C (A_i - Up_i Down)^T) = Total - Captured
	Rank      int     // useful rank: at most r, and less where M has fewer eigenvalues above rounding

	Iterations int
	Converged  bool
}

// Joint factors the stack of blocks A_i with left metrics Q_i and the right
// metric c to the given rank; see the package documentation for the equations. A
// rank above the useful one is padded with zeros.
func Joint(blocks []Block, c Metric, rank int, opt Options) (*JointFactors, error) {
	if rank < 0 {
		panic(badRank)
	}
	for _, b := range blocks {
		b.A.check()
		if b.A.Cols != c.n || b.Q.n != b.A.Rows {
			panic(badShape)
		}
	}
	opt = opt.withDefaults()
	e := opt.Engine

	if err := c.checkFinite(); err != nil {
		return nil, fmt.Errorf("right metric: %w", err)
	}
	stack, err := stackBlocks(e, blocks, c.n)
	if err != nil {
		return nil, err
	}
	big, err := stack.maxAbs()
	if err != nil {
		return nil, fmt.Errorf("weighted blocks: %w", err)
	}
	inv, unit := powerOfTwoScale(big)
	scale(inv, stack.Data)

	lead, y, err := leadingRows(stack, c, rank, opt)
	if err != nil {
		return nil, err
	}
	f := &JointFactors{
		Values: lead.values, Total: lead.total, Iterations: lead.blocks, Converged: lead.converged,
	}
	down, readout := orthonormalise(e, y, c)
	f.Rank = down.Rows

	f.Down = NewMatrix(rank, c.n)
	f.Down.Slice(0, f.Rank, 0, c.n).copyFrom(down)
	for _, b := range blocks {
		full := NewMatrix(b.A.Rows, rank)
		up := full.Slice(0, full.Rows, 0, f.Rank)
		Gemm(e, false, true, 1, b.A, readout, 0, up)
		f.Up = append(f.Up, full)
		weighted, err := b.Q.leftProduct(e, up)
		if err != nil {
			return nil, err
		}
		scale(inv, weighted.Data)
		f.Captured += energy(weighted)
	}
	f.Discarded = max(0, f.Total-f.Captured)
	if f.Discarded < cancelled*f.Total {
		Gemm(e, false, false, -1, Product(e, false, true, stack, readout), down, 1, stack)
		f.Discarded = max(0, innerProduct(stack, c.rightApply(e, stack)))
		f.Captured = f.Total - f.Discarded
	}
	for i := range f.Values {
		f.Values[i] *= unit * unit
	}
	f.Total *= unit * unit
	f.Captured *= unit * unit
	f.Discarded *= unit * unit
	return f, nil
}

// stackBlocks returns the stack of W_i A_i, Q_i = W_i^T W_i.
func stackBlocks(e *blas.Engine, blocks []Block, d int) (Matrix, error) {
	rows := make([]int, len(blocks))
	m := 0
	for i, b := range blocks {
		if err := b.Q.checkFinite(); err != nil {
			return Matrix{}, fmt.Errorf("left metric of block %d: %w", i, err)
		}
		if _, err := b.A.maxAbs(); err != nil {
			return Matrix{}, fmt.Errorf("block %d: %w", i, err)
		}
		p, err := b.Q.factorRows(e)
		if err != nil {
			return Matrix{}, fmt.Errorf("left metric of block %d: %w", i, err)
		}
		rows[i] = p
		m += p
	}
	stack := NewMatrix(m, d)
	at := 0
	for i, b := range blocks {
		if err := b.Q.leftApply(e, b.A, stack.Slice(at, at+rows[i], 0, d)); err != nil {
			return Matrix{}, fmt.Errorf("left metric of block %d: %w", i, err)
		}
		at += rows[i]
	}
	return stack, nil
}

// leadingRows solves the eigenproblem on the smaller side of B = stack L and
// returns with it rows Y, scaled so that Y C Y^T is near I, whose span is that
// of Down.
func leadingRows(stack Matrix, c Metric, rank int, opt Options) (*leadingSpace, Matrix, error) {
	e := opt.Engine
	left := stack.Rows <= c.n
	var g *operator
	var err error
	if n := min(stack.Rows, c.n); c.diagonal() && n >= singleOrder && !solveDirectly(n, rank) &&
		(left || gramIsCheaper(stack.Rows, c.n, rank)) {
		lead, y, ok, err := leadingRowsSingle(stack, c, !left, rank, opt)
		if err != nil {
			return nil, Matrix{}, fmt.Errorf("joint stack: %w", err)
		}
		if ok {
			return lead, y, nil
		}
	}
	switch {
	case left:
		g = leftOperator(e, stack, c)
	case c.diagonal():
		b := c.scaleColumns(stack, math.Sqrt(c.scale))
		g = productOperator(e, b, true)
		if gramIsCheaper(b.Rows, b.Cols, min(rank, b.Cols)) {
			g.formNow()
		}
	default:
		g, err = rightOperator(e, stack, c)
	}
	if err != nil {
		return nil, Matrix{}, fmt.Errorf("right metric: %w", err)
	}
	opt.checkStart(g.n)
	lead, err := leadingEigen(g, min(rank, g.n), opt)
	if err != nil {
		return nil, Matrix{}, fmt.Errorf("joint stack: %w", err)
	}

	useful := 0
	for useful < len(lead.values) && lead.values[useful] > float64(max(stack.Rows, c.n))*epsilon*lead.values[0] {
		useful++
	}
	v, images := lead.vectors.Slice(0, useful, 0, g.n), lead.images.Slice(0, useful, 0, g.images)
	var y Matrix
	switch {
	case left: // Y = Lambda^-1/2 U^T stack
		y = Product(e, false, false, v, stack)
	case c.diagonal(): // Y = Lambda^-1 (B V)^T stack
		y = Product(e, false, false, images, stack)
	default: // Y = Lambda^-1 (L V)^T K
		y = images
	}
	for i := range useful {
		f := 1 / lead.values[i]
		if left {
			f = math.Sqrt(f)
		}
		scale(f, y.Row(i))
	}
	return lead, y, nil
}

// leftOperator is B B^T = stack C stack^T, which needs no factor of C.
func leftOperator(e *blas.Engine, stack Matrix, c Metric) *operator {
	m := c.Congruence(e, stack)
	if !c.diagonal() {
		symmetrise(m)
	}
	return denseOperator(e, m)
}

// rightOperator is L^T K L, K = stack^T stack, with images X L^T K.
func rightOperator(e *blas.Engine, stack Matrix, c Metric) (*operator, error) {
	l, err := c.compactFactor(e)
	if err != nil {
		return nil, err
	}
	k := NewMatrix(c.n, c.n)
	Syrk(e, true, c.scale, stack, 0, k)
	return &operator{
		e: e, n: l.Cols, images: c.n, trace: innerProduct(l, Product(e, false, false, k, l)),
		form: func() Matrix {
			m := Product(e, true, false, l, Product(e, false, false, k, l))
			symmetrise(m)
			return m
		},
		toImage:   func(x, image Matrix) { Gemm(e, false, false, 1, Product(e, false, true, x, l), k, 0, image) },
		fromImage: func(image, w Matrix) { Gemm(e, false, false, 1, image, l, 0, w) },
	}, nil
}

// orthonormalise returns T Y with (T Y) C (T Y)^T = I, T lower triangular, and
// T Y C. Rows that depend on the ones before them to working precision, and
// the rows after those, are left out.
func orthonormalise(e *blas.Engine, y Matrix, c Metric) (ty, tyc Matrix) {
	var yc Matrix // follows y, unless it is as quickly made anew
	if !c.diagonal() {
		yc = c.rightApply(e, y)
	}
	for range 2 { // twice, as in CholeskyQR2
		var gram Matrix
		if c.diagonal() {
			gram = c.Congruence(e, y)
		} else {
			gram = Product(e, false, true, yc, y)
		}
		t, pivot, ok := Cholesky(e, gram)
		if !ok {
			y = y.Slice(0, pivot, 0, y.Cols)
			t = t.Slice(0, pivot, 0, pivot)
		}
		SolveLower(e, t, false, y)
		if !c.diagonal() {
			yc = yc.Slice(0, y.Rows, 0, y.Cols)
			SolveLower(e, t, false, yc)
		}
		if ok && nearIdentity(gram) {
			break // the condition number is at most sqrt(3): once is as good
		}
	}
	if c.diagonal() {
		positiveRows(y)
		return y, c.rightApply(e, y)
	}
	for i := range y.Rows {
		if positiveRow(y.Row(i)) {
			scale(-1, yc.Row(i))
		}
	}
	return y, yc
}

// nearIdentity says whether all eigenvalues of the symmetric matrix are within
// 1/2 of 1, by Gershgorin's circles.
func nearIdentity(a Matrix) bool {
	for i := range a.Rows {
		s := math.Abs(a.At(i, i)-1) - math.Abs(a.At(i, i))
		for _, v := range a.Row(i) {
			s += math.Abs(v)
		}
		if !(s <= 0.5) {
			return false
		}
	}
	return true
}
