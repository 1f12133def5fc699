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
	// min(r, order of M) of them. Their sum over all would be Total.
	Values    []float64
	Total     float64 // sum_i tr(Q_i A_i C A_i^T)
	Captured  float64 // sum_i tr(Q_i Up_i Up_i^T)
	Discarded float64 // sum_i tr(Q_i (A_i - Up_i Down) C (A_i - Up_i Down)^T) = Total - Captured
	Rank      int     // useful rank: at most r, and less where M has fewer eigenvalues above rounding

	// Basis is an Options.Start for a joint stack of the same shapes.
	Basis      Matrix
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

	lead, err := leadingRows(stack, c, rank, opt)
	if err != nil {
		return nil, err
	}
	f := &JointFactors{
		Values: lead.values, Total: lead.total, Basis: lead.basis,
		Iterations: lead.iterations, Converged: lead.converged,
	}
	down := orthonormalise(e, lead.rows, c)
	f.Rank = down.Rows
	positiveRows(down)

	f.Down = NewMatrix(rank, c.n)
	f.Down.Slice(0, f.Rank, 0, c.n).copyFrom(down)
	readout := c.rightApply(e, down) // r x d; Up_i = A_i C Down^T
	for _, b := range blocks {
		up := NewMatrix(b.A.Rows, rank)
		Gemm(e, false, true, 1, b.A, readout, 0, up.Slice(0, up.Rows, 0, f.Rank))
		f.Up = append(f.Up, up)
	}

	weightedUp := Product(e, false, true, stack, readout)
	f.Captured = energy(weightedUp)
	f.Discarded = max(0, f.Total-f.Captured)
	if f.Discarded < cancelled*f.Total {
		Gemm(e, false, false, -1, weightedUp, down, 1, stack)
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

// leading is what leadingRows finds: rows Y with Y C Y^T near I whose span is
// that of Down.
type leading struct {
	rows       Matrix
	values     []float64
	total      float64
	basis      Matrix
	iterations int
	converged  bool
}

// leadingRows solves the eigenproblem on the smaller side of B = stack L.
// On the left, B B^T = stack C stack^T = U Lambda U^T needs no factor of C, and
// Y = Lambda^-1/2 U^T stack. On the right, B^T B = L^T K L = V Lambda V^T with
// K = stack^T stack, and Y = Lambda^-1 (L V)^T K.
func leadingRows(stack Matrix, c Metric, rank int, opt Options) (*leading, error) {
	e := opt.Engine
	left := stack.Rows <= c.n
	var m, k, l Matrix
	if left {
		m = Product(e, false, true, c.rightApply(e, stack), stack)
		symmetrise(m)
	} else {
		k = NewMatrix(c.n, c.n)
		syrk(e, true, 1, stack, 0, k)
		kl, err := c.rightFactor(e, k)
		if err != nil {
			return nil, fmt.Errorf("right metric: %w", err)
		}
		if l, err = c.rightFactor(e, eye(c.n)); err != nil {
			return nil, fmt.Errorf("right metric: %w", err)
		}
		m = Product(e, true, false, l, kl)
		symmetrise(m)
	}
	eig, err := TopEigen(m, rank, opt)
	if err != nil {
		return nil, fmt.Errorf("joint stack: %w", err)
	}
	useful := 0
	for useful < len(eig.Values) && eig.Values[useful] > float64(max(stack.Rows, c.n))*epsilon*eig.Values[0] {
		useful++
	}
	v := eig.Vectors.Slice(0, m.Rows, 0, useful)
	var y Matrix
	if left {
		y = Product(e, true, false, v, stack)
	} else {
		y = Product(e, true, false, Product(e, false, false, l, v), k)
	}
	for i := range useful {
		f := 1 / eig.Values[i]
		if left {
			f = math.Sqrt(f)
		}
		scale(f, y.Row(i))
	}
	return &leading{
		rows: y, values: eig.Values, total: eig.Trace, basis: eig.Vectors,
		iterations: eig.Iterations, converged: eig.Converged,
	}, nil
}

// orthonormalise returns T Y with (T Y) C (T Y)^T = I, T lower triangular. Rows that depend on the
// ones before them to working precision end the result.
func orthonormalise(e *blas.Engine, y Matrix, c Metric) Matrix {
	for range 2 { // twice, as in CholeskyQR2
		n := Product(e, false, true, c.rightApply(e, y), y)
		t, pivot, ok := Cholesky(e, n)
		if !ok {
			y = y.Slice(0, pivot, 0, y.Cols)
			t = t.Slice(0, pivot, 0, pivot)
		}
		SolveLower(e, t, false, y)
	}
	return y
}
