package svd

import (
	"math"
	"math/rand/v2"
	"testing"
)

// decayingStack is rows x cols with singular values i^-power, of which those from rank on are zero.
func decayingStack(rng *rand.Rand, rows, cols, rank int, power float64) Matrix {
	n := min(rows, cols, rank)
	left, right := randomMatrix(rng, n, rows), randomMatrix(rng, n, cols)
	for _, m := range []Matrix{left, right} {
		if err := orthonormaliseRows(orShared(nil), nil, m, false, rng); err != nil {
			panic(err)
		}
	}
	for i := range n {
		scale(math.Pow(float64(i+1), -power), left.Row(i))
	}
	return Product(nil, true, false, left, right)
}

// singleCase is a joint stack large enough for float32, wide or tall.
func singleCase(rows, cols, rank int, power float64) ([]Block, Metric) {
	rng := testRNG()
	stack := decayingStack(rng, rows, cols, rank, power)
	g := make([]float64, cols)
	for i := range g {
		g[i] = 1e-3 * (1 + 0.5*rng.NormFloat64())
	}
	l := randomMatrix(rng, rows/3, rows/3+5)
	return []Block{
		{A: stack.Slice(0, rows/3, 0, cols), Q: FactorMetric(l)},
		{A: stack.Slice(rows/3, rows, 0, cols), Q: IdentityMetric(rows - rows/3).Scaled(1e4)},
	}, DiagonalMetric(g).Scaled(3)
}

// Where much is discarded, float32 finds a subspace that discards as little, and what is said of it is exact.
func TestJointSingle(t *testing.T) {
	const rank = 60
	for _, shape := range []struct{ rows, cols int }{{540, 640}, {900, 520}} {
		blocks, c := singleCase(shape.rows, shape.cols, 600, 0.5)
		stack, err := stackBlocks(orShared(nil), blocks, shape.cols)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok, err := leadingRowsSingle(stack, c, shape.rows > shape.cols, rank, Options{}.withDefaults()); !ok || err != nil {
			t.Fatalf("%v: float32 is not used: %v", shape, err)
		}
		eig, err := EigSym(c.Congruence(nil, stack), Options{})
		if err != nil {
			t.Fatal(err)
		}
		best := eig.Trace - sum(eig.Values[:rank])

		f, err := Joint(blocks, c, rank, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var loss float64
		for i, b := range blocks {
			e := Product(nil, false, false, f.Up[i], f.Down)
			scale(-1, e.Data)
			for r := range e.Rows {
				axpy(1, b.A.Row(r), e.Row(r))
			}
			loss += Block{A: e, Q: b.Q}.Energy(nil, c)
		}
		if d := math.Abs(loss-f.Discarded) / f.Total; d > 1e-13 {
			t.Errorf("%v: true error %g, Discarded %g", shape, loss, f.Discarded)
		}
		if d := math.Abs(f.Total/eig.Trace - 1); d > 1e-13 {
			t.Errorf("%v: Total %g, want %g", shape, f.Total, eig.Trace)
		}
		if excess := f.Discarded/best - 1; excess < -1e-12 || excess > 2*defaultTol {
			t.Errorf("%v: %g of the discarded energy in excess", shape, excess)
		}
		if o := orthogonalityError(c.scaleColumns(f.Down, math.Sqrt(c.scale)).T()); !(o < 1e-13) {
			t.Errorf("%v: (Down C Down^T) is off the identity by %g", shape, o)
		}
		for i, v := range f.Values {
			// No Ritz value is short by more than all of them may be together.
			if d := eig.Values[i] - v; d > 2*defaultTol*best || d < -singleError*f.Total {
				t.Errorf("%v: eigenvalue %d is %g, want %g", shape, i, v, eig.Values[i])
			}
		}
	}
}

// Where little is discarded, float64 takes over: a stack of the wanted rank comes back whole.
func TestJointSingleLossless(t *testing.T) {
	const rank = 60
	for _, shape := range []struct{ rows, cols int }{{540, 640}, {900, 520}} {
		blocks, c := singleCase(shape.rows, shape.cols, rank, 1)
		f, err := Joint(blocks, c, rank+5, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if f.Rank != rank {
			t.Errorf("%v: useful rank %d, want %d", shape, f.Rank, rank)
		}
		if f.Discarded > 1e-20*f.Total {
			t.Errorf("%v: discarded %g of %g", shape, f.Discarded, f.Total)
		}
	}
}
