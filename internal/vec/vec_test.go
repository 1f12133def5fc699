package vec

import (
	"math"
	"testing"
)

func TestSoftmaxMasked(t *testing.T) {
	inf := float32(math.Inf(-1))
	row := []float32{inf, 1, inf, 1}
	Softmax(row)
	for i, w := range []float32{0, 0.5, 0, 0.5} {
		if row[i] != w {
			t.Fatalf("row[%d] = %v, want %v", i, row[i], w)
		}
	}
	row = []float32{inf, inf}
	Softmax(row)
	if row[0] != 0 || row[1] != 0 {
		t.Fatalf("fully masked row became %v, want zeros", row)
	}
}
