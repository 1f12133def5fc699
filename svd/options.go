package svd

import (
	"runtime"
	"sync"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// Options tunes the iterative routines. The zero value is the default.
type Options struct {
	// Engine runs the dense kernels. Nil means one shared engine with as many
	// threads as GOMAXPROCS. Results do not depend on it.
	Engine *blas.Engine
	// Start holds in its columns a basis near the wanted subspace, for example
	// the vectors of a similar problem (V of a Truncation, Vectors of an Eigen).
	// It has as many rows as those, any number of columns, and need not be
	// orthonormal. The zero value starts from random vectors.
	Start Matrix
	// Tol stops the iteration when an estimate of the energy still to be
	// captured falls below Tol times the discarded energy. Zero means 1e-4.
	Tol float64
	// MaxIterations caps the number of products with a block of vectors. Zero
	// means 100.
	MaxIterations int
	// Seed selects the random start. It is fixed unless set.
	Seed uint64
}

const (
	defaultTol           = 1e-4
	defaultMaxIterations = 100
)

var sharedEngine = sync.OnceValue(func() *blas.Engine { return blas.New(runtime.GOMAXPROCS(0)) })

func orShared(e *blas.Engine) *blas.Engine {
	if e == nil {
		return sharedEngine()
	}
	return e
}

func (o Options) withDefaults() Options {
	o.Engine = orShared(o.Engine)
	if o.Tol == 0 {
		o.Tol = defaultTol
	}
	if o.MaxIterations == 0 {
		o.MaxIterations = defaultMaxIterations
	}
	return o
}

// checkStart panics if the start is not one for vectors of n elements.
func (o Options) checkStart(n int) {
	o.Start.check()
	if o.Start.Cols > 0 && o.Start.Rows != n {
		panic("svd: start has another number of rows than the vectors")
	}
}
