package blas

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

// Benchmarks of the shapes that the converter spends its time in, at every level
// that the machine supports. bench/compare.py runs the same beside numpy.

// forward lists tokens, outputs and inputs of Y = X*W^T.
var forward = []shape{{64, 576, 576}, {512, 1536, 576}, {512, 4096, 4096}, {64, 14336, 4096}}

var decode = []shape{{1, 4096, 4096}, {4, 4096, 4096}, {16, 4096, 4096}, {8, 576, 576}}

func BenchmarkSgemm(b *testing.B) {
	for _, s := range append(append([]shape{{2048, 2048, 2048}}, forward...), decode...) {
		benchGemm(b, s, 0, func(e *Engine, x, y, z []float32) {
			e.Sgemm(false, true, s.m, s.n, s.k, 1, x, s.k, y, s.k, 0, z, s.n)
		})
	}
}

func BenchmarkDgemm(b *testing.B) {
	for _, s := range []shape{{2048, 2048, 2048}, {4096, 576, 576}, {4096, 576, 4096}} {
		benchGemm(b, s, 0, func(e *Engine, x, y, z []float64) {
			e.Dgemm(false, false, s.m, s.n, s.k, 1, x, s.k, y, s.n, 0, z, s.n)
		})
	}
}

func BenchmarkSgemmBF16(b *testing.B) {
	for _, s := range append([]shape{{64, 4096, 4096}, {512, 1536, 576}}, decode...) {
		w := make([]uint16, s.n*s.k)
		value := bf16(rand.New(rand.NewPCG(1, 1)))
		for i := range w {
			w[i] = value()
		}
		benchGemm(b, s, 0, func(e *Engine, x, _, z []float32) {
			e.SgemmBF16(true, s.m, s.n, s.k, 1, x, s.k, w, s.k, 0, z, s.n)
		})
	}
}

// BenchmarkFor is what sharing costs: regions of 100 microseconds on two goroutines, with others of one between them. late-us is how
// much longer than that they take.
func BenchmarkFor(b *testing.B) {
	if runtime.GOMAXPROCS(0) < 2 {
		b.Skip("one processor")
	}
	busy := func(d time.Duration) {
		for start := time.Now(); time.Since(start) < d; {
		}
	}
	const part = 25 * time.Microsecond
	for _, gap := range []time.Duration{0, 10, 40, 200, 1000} {
		gap *= time.Microsecond
		b.Run(gap.String(), func(b *testing.B) {
			e := New(2)
			var took time.Duration
			for range b.N {
				busy(gap)
				start := time.Now()
				e.For(8, func(int) { busy(part) })
				took += time.Since(start) - 4*part
			}
			b.ReportMetric(float64(took.Microseconds())/float64(b.N), "late-us/op")
		})
	}
}

// BenchmarkAttention runs the two products of one head on one goroutine.
func BenchmarkAttention(b *testing.B) {
	const length, dim = 512, 64
	b.Run("scores", func(b *testing.B) {
		benchGemm(b, shape{length, length, dim}, 1, func(e *Engine, q, k, s []float32) {
			e.Sgemm(false, true, length, length, dim, 0.125, q, dim, k, dim, 0, s, length)
		})
	})
	b.Run("values", func(b *testing.B) {
		benchGemm(b, shape{length, dim, length}, 1, func(e *Engine, p, v, o []float32) {
			e.Sgemm(false, false, length, dim, length, 1, p, length, v, dim, 0, o, dim)
		})
	})
}

func BenchmarkSyrk(b *testing.B) {
	const n, k = 2048, 2048
	half := shape{n, n, k / 2} // half the work of a product
	a32, a64 := random[float32](n*k), random[float64](n*k)
	c32, c64 := make([]float32, n*n), make([]float64, n*n)
	for _, f := range []struct {
		name string
		run  func(e *Engine)
	}{
		{"Ssyrk", func(e *Engine) { e.Ssyrk(false, n, k, 1, a32, k, 0, c32, n) }},
		{"Dsyrk", func(e *Engine) { e.Dsyrk(false, n, k, 1, a64, k, 0, c64, n) }},
		{"SsyrkAcc", func(e *Engine) { e.SsyrkAcc(n, k, 1, a32, n, c64, n) }},
	} {
		b.Run(f.name, func(b *testing.B) { benchLevels(b, half, 0, f.run) })
	}
}

func random[T float](n int) []T {
	s, value := make([]T, n), normal[T](rand.New(rand.NewPCG(1, 2)))
	for i := range s {
		s[i] = value()
	}
	return s
}

func benchGemm[T float](b *testing.B, s shape, threads int, f func(e *Engine, x, y, z []T)) {
	x, y, z := random[T](s.m*s.k), random[T](s.n*s.k), make([]T, s.m*s.n)
	benchLevels(b, s, threads, func(e *Engine) { f(e, x, y, z) })
}

func benchLevels(b *testing.B, s shape, threads int, f func(e *Engine)) {
	if threads == 0 {
		threads = New(0).Threads()
	}
	for _, level := range isa.Supported() {
		b.Run(fmt.Sprintf("%dx%dx%d/%v", s.m, s.n, s.k, level), func(b *testing.B) {
			e := engineAt(level, threads)
			for b.Loop() {
				f(e)
			}
			b.ReportMetric(2*float64(s.m)*float64(s.n)*float64(s.k)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
		})
	}
}
