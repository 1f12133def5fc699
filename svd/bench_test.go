package svd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// benchmarkMatrix returns a rows x cols matrix with about the singular values
// s: a product of Gaussian matrices would blur them, so each side is rotated by
// a few random Householder reflections, exactly orthogonal and cheap.
func benchmarkMatrix(rows, cols int, s []float64) Matrix {
	rng := rand.New(rand.NewPCG(5, 6))
	a := NewMatrix(rows, cols)
	for i, v := range s {
		a.Set(i, i, v)
	}
	const reflections = 8
	left, right := randomOrthonormalRows(rng, reflections, rows), randomOrthonormalRows(rng, reflections, cols)
	for i := range reflections { // A <- (I - 2 u u^T) A (I - 2 v v^T)
		u, v := left.Row(i), right.Row(i)
		ua := make([]float64, cols)
		for x := range rows {
			axpy(u[x], a.Row(x), ua)
		}
		for x := range rows {
			row := a.Row(x)
			axpy(-2*u[x], ua, row)
			axpy(-2*dot(row, v), v, row)
		}
	}
	return a
}

func randomOrthonormalRows(rng *rand.Rand, rows, cols int) Matrix {
	a := randomMatrix(rng, rows, cols)
	gramSchmidt(a, rng)
	return a
}

// BenchmarkTruncate reports the excess of the error over the optimum in
// percent beside the time.
func BenchmarkTruncate(b *testing.B) {
	for _, tc := range []struct{ rows, cols, rank int }{{2048, 1024, 128}, {2048, 4096, 512}, {8192, 4096, 512}} {
		for _, kind := range []string{"power 0.5", "power 1", "exponential over noise"} {
			var a Matrix
			s := spectrum(kind, min(tc.rows, tc.cols))
			var want float64
			for _, v := range s[tc.rank:] {
				want += v * v
			}
			for _, tol := range []float64{1e-3, 1e-4} {
				for _, gram := range []bool{false, true} {
					b.Run(fmt.Sprintf("%dx%d-%d/%s/tol=%g/gram=%v", tc.rows, tc.cols, tc.rank, kind, tol, gram), func(b *testing.B) {
						if a.Rows == 0 {
							a = benchmarkMatrix(tc.rows, tc.cols, s)
						}
						var f *Truncation
						var err error
						for b.Loop() {
							if f, err = truncate(a, tc.rank, gram, Options{Tol: tol}); err != nil {
								b.Fatal(err)
							}
						}
						b.ReportMetric(100*(math.Sqrt(f.Discarded/want)-1), "excess%")
						b.ReportMetric(float64(f.Iterations), "blocks")
					})
				}
			}
		}
	}
}
