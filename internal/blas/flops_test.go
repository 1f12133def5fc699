package blas

import "testing"

// TestFlops is not parallel: the counts are the whole process's.
func TestFlops(t *testing.T) {
	const m, n, k = 20, 30, 40
	e := New(2)
	a32, b32, c32 := make([]float32, m*k), make([]float32, n*k), make([]float32, n*n)
	a64, b64, c64 := make([]float64, m*k), make([]float64, n*k), make([]float64, n*n)
	for _, test := range []struct {
		name     string
		run      func()
		f32, f64 int64
	}{
		{"Sgemm", func() { e.Sgemm(false, true, m, n, k, 1, a32, k, b32, k, 0, c32, n) }, 2 * m * n * k, 0},
		{"Sgemm of one row", func() { e.Sgemm(false, true, 1, n, k, 1, a32, k, b32, k, 0, c32, n) }, 2 * n * k, 0},
		{"SgemmBF16", func() { e.SgemmBF16(true, m, n, k, 1, a32, k, make([]uint16, n*k), k, 0, c32, n) }, 2 * m * n * k, 0},
		{"Dgemm", func() { e.Dgemm(false, true, m, n, k, 1, a64, k, b64, k, 0, c64, n) }, 0, 2 * m * n * k},
		{"Dgemm of alpha 0", func() { e.Dgemm(false, true, m, n, k, 0, a64, k, b64, k, 0, c64, n) }, 0, 0},
		{"Ssyrk", func() { e.Ssyrk(false, n, k, 1, b32, k, 0, c32, n) }, n * n * k, 0},
		{"Dsyrk", func() { e.Dsyrk(false, n, k, 1, b64, k, 0, c64, n) }, 0, n * n * k},
		{"SsyrkAcc", func() { e.SsyrkAcc(n, k, 1, b32, n, c64, n) }, n * n * k, 0},
	} {
		f32, f64 := Flops()
		test.run()
		after32, after64 := Flops()
		if after32-f32 != test.f32 || after64-f64 != test.f64 {
			t.Errorf("%s: %d in float32 and %d in float64, want %d and %d", test.name, after32-f32, after64-f64, test.f32, test.f64)
		}
	}
}
