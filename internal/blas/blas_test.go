package blas

import "testing"

func TestGemmSmall(t *testing.T) {
	// [1 2; 3 4] * [5 6; 7 8]
	c := make([]float32, 4)
	New(2).Sgemm(false, false, 2, 2, 2, 1, []float32{1, 2, 3, 4}, 2, []float32{5, 6, 7, 8}, 2, 0, c, 2)
	for i, w := range []float32{19, 22, 43, 50} {
		if c[i] != w {
			t.Fatalf("c[%d] = %v, want %v", i, c[i], w)
		}
	}
}
