// Package vec holds elementwise and reducing kernels over float32 vectors: the
// exponentials of softmax and SiLU, and what a normalisation needs.
package vec

import "math"

// Exp sets dst[i] = exp(src[i]). The slices have equal length and may be the
// same one. Results above the largest float32 are +Inf, exp(-Inf) is 0, NaN
// stays NaN.
func Exp(dst, src []float32) {
	check(len(dst), len(src))
	for i, x := range src {
		dst[i] = float32(math.Exp(float64(x)))
	}
}

// ExpSum sets dst[i] = exp(src[i] - shift) and returns the sum of dst.
func ExpSum(dst, src []float32, shift float32) float32 {
	check(len(dst), len(src))
	var s float32
	for i, x := range src {
		dst[i] = float32(math.Exp(float64(x - shift)))
		s += dst[i]
	}
	return s
}

// Softmax replaces row by exp(row - max(row)) divided by its sum. A row whose
// elements are all -Inf (every position masked) becomes all zero.
func Softmax(row []float32) {
	m := Max(row)
	if math.IsInf(float64(m), -1) {
		for i, v := range row {
			if v == v {
				row[i] = 0
			}
		}
		return
	}
	Scale(1/ExpSum(row, row, m), row)
}

// SiLUMul sets dst = gate * sigmoid(gate) * up elementwise.
func SiLUMul(dst, gate, up []float32) {
	check(len(dst), len(gate))
	check(len(dst), len(up))
	for i, g := range gate {
		dst[i] = float32(float64(g) / (1 + math.Exp(-float64(g))) * float64(up[i]))
	}
}

// Dot returns the sum of x[i]*y[i].
func Dot(x, y []float32) float32 {
	check(len(x), len(y))
	var s float32
	for i, v := range x {
		s += v * y[i]
	}
	return s
}

// DotF64 returns the sum of x[i]*y[i] accumulated in float64.
func DotF64(x, y []float32) float64 {
	check(len(x), len(y))
	var s float64
	for i, v := range x {
		s += float64(v) * float64(y[i])
	}
	return s
}

// SumSquares returns the sum of x[i]*x[i].
func SumSquares(x []float32) float32 { return Dot(x, x) }

// Axpy sets dst[i] += a*x[i].
func Axpy(a float32, x, dst []float32) {
	check(len(dst), len(x))
	for i, v := range x {
		dst[i] += a * v
	}
}

// Scale sets dst[i] *= a.
func Scale(a float32, dst []float32) {
	for i := range dst {
		dst[i] *= a
	}
}

// ScaleMul sets dst[i] = a*x[i]*w[i]: the last step of an RMSNorm, with a the
// reciprocal root mean square of x and w the weights.
func ScaleMul(dst, x []float32, a float32, w []float32) {
	check(len(dst), len(x))
	check(len(dst), len(w))
	for i, v := range x {
		dst[i] = v * a * w[i]
	}
}

// Max returns the largest element of x, ignoring NaN, or -Inf if there is none.
func Max(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

// WidenBF16 converts bfloat16 bits to float32.
func WidenBF16(dst []float32, src []uint16) {
	check(len(dst), len(src))
	for i, v := range src {
		dst[i] = math.Float32frombits(uint32(v) << 16)
	}
}

func check(n, m int) {
	if n != m {
		panic("vec: slices of different length")
	}
}
