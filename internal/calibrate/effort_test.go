package calibrate

import (
	"slices"
	"testing"
)

// TestThetas: bases between those that give the slots the fastest frequencies and all, none of which an engine would refuse; one
// where all are alike.
func TestThetas(t *testing.T) {
	for _, c := range []struct {
		theta        float64
		pairs, slots int
		want         []float64
	}{
		{10000, 32, 32, []float64{10000}}, {10000, 32, 40, []float64{10000}},
		{10000, 32, 1, []float64{10000}}, {10000, 1, 1, []float64{10000}},
		{10000, 32, 16, []float64{100, 215, 464, 1000, 2154, 4642, 10000}},
		{10000, 32, 2, []float64{2, 7, 32, 133, 562, 2371, 10000}},
		{50, 64, 2, []float64{2, 2, 4, 8, 14, 27, 50}},
	} {
		if got := Thetas(c.theta, c.pairs, c.slots); !slices.Equal(got, c.want) {
			t.Errorf("base %g, %d pairs, %d slots: %v, want %v", c.theta, c.pairs, c.slots, got, c.want)
		}
	}
}
