package model

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// rowsPerTask is how many tokens one task of a token-wise loop takes.
const rowsPerTask = 32

// overRows calls f with ranges of rows that cover [0, n).
func overRows(e *blas.Engine, n int, f func(lo, hi int)) {
	e.For((n+rowsPerTask-1)/rowsPerTask, func(i int) {
		f(i*rowsPerTask, min(n, (i+1)*rowsPerTask))
	})
}

// RMSNorm sets y = w * x / sqrt(mean(x^2) + eps), row by row (Zhang & Sennrich 2019). x and y are [n, len(w)] and may be
// the same.
func RMSNorm(e *blas.Engine, n int, x, w []float32, eps float64, y []float32) {
	d := len(w)
	overRows(e, n, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			normRow(x[i*d:(i+1)*d], w, eps, y[i*d:(i+1)*d])
		}
	})
}

func normRow(x, w []float32, eps float64, y []float32) {
	vec.ScaleMul(y, x, inverseRMS(x, eps), w)
}

func inverseRMS(x []float32, eps float64) float32 {
	return float32(1 / math.Sqrt(float64(vec.SumSquares(x))/float64(len(x))+eps))
}
