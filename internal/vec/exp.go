package vec

import "math"

// The exponential is 2^n * exp(r) with n = round(x/ln 2) and r = x - n*ln 2, so
// that |r| <= ln(2)/2 (Cody and Waite 1980, chapter 6), and
//
//	exp(r) = 1 + (r + r^2 * q(r))
//
// with q the minimax polynomial of degree 4 for the relative error, 3.1e-9
// (Remez exchange). n is found by adding a number whose last place has the value
// one, which leaves n in the low bits of the sum.

// constants are the vectors that the kernels use, each repeated over 16 lanes.
// The order is known to the generators.
type constants struct {
	low, high   [block]float32 // exp is 0 below, +Inf above
	log2e       [block]float32
	magic       [block]float32 // 1.5 * 2^23
	negLn2Upper [block]float32 // few bits, so that n times it is exact
	negLn2Lower [block]float32
	q4          [block]float32
	q3          [block]float32
	q2          [block]float32
	q1          [block]float32
	q0          [block]float32
	one         [block]float32
	bias        [block]float32 // the integer 127
	sign        [block]float32 // the sign bit
}

var expConstants = constants{
	low:         repeat(-104),
	high:        repeat(89),
	log2e:       repeat(math.Log2E),
	magic:       repeat(1.5 * (1 << 23)),
	negLn2Upper: repeat(-0.693359375),
	negLn2Lower: repeat(0.693359375 - math.Ln2),
	q4:          repeat(0.0013814540176801306354),
	q3:          repeat(0.0083687451089425906506),
	q2:          repeat(0.041668390783547913136),
	q1:          repeat(0.16666520399042530069),
	q0:          repeat(0.49999993432129290236),
	one:         repeat(1),
	bias:        repeat(math.Float32frombits(127)),
	sign:        repeat(math.Float32frombits(1 << 31)),
}

func repeat(v float32) (a [block]float32) {
	for i := range a {
		a[i] = v
	}
	return a
}
