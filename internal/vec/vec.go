// Package vec holds elementwise and reducing kernels over float32 vectors: the
// exponentials of softmax and SiLU, and what a normalisation needs.
//
// The kernels of all machines compute the same bits: they perform the same
// operations in the same order, products and sums fused where portable.go calls
// fma, and reductions spread elements over a fixed number of lanes. Only the
// payloads of NaN may differ.
//
// Slices that one function takes must have equal lengths; it panics if they do
// not. A destination may be the same slice as a source, but must not overlap it
// otherwise.
package vec

import (
	"math"

	"github.com/mlaconvert/mlaconvert/internal/blas/isa"
)

//go:generate go -C ../blas/gen/amd64 run . -out ../../../vec/asm_amd64.s -stubs ../../../vec/asm_amd64.go -pkg vec
//go:generate go -C ../blas/gen/arm64 run . -pkg vec -out ../../../vec/asm_arm64.s -stubs ../../../vec/asm_arm64.go

// level selects the kernels; tests change it.
var level = isa.Active()

// block is the number of elements that the elementwise kernels take at a time,
// and of lanes that the sum of ExpSum is spread over.
const block = 16

// dotLanes is the number of lanes that a dot product is spread over: enough to
// hide the latency of addition.
const dotLanes = 64

var negInf = float32(math.Inf(-1))

func check(n, m int) {
	if n != m {
		panic("vec: slices of different length")
	}
}

// Exp sets dst[i] = exp(src[i]), to within 1.01 ulp where the result is normal and
// 0.76 ulp (of the least positive float32) where it is subnormal: the largest
// errors over all float32. Results beyond the largest float32 are +Inf; exp(-Inf)
// is 0; NaN stays NaN.
func Exp(dst, src []float32) {
	check(len(dst), len(src))
	n := len(src) / block
	if n > 0 {
		expBlocks(n, &dst[0], &src[0])
	}
	if rest := src[n*block:]; len(rest) > 0 {
		var x [block]float32
		copy(x[:], rest)
		expBlocks(1, &x[0], &x[0])
		copy(dst[n*block:], x[:])
	}
}

// ExpSum sets dst[i] = exp(src[i] - shift), with the error of Exp on the rounded
// difference, and returns the sum of dst. The sum runs over 16 lanes, so that its
// error is at most (len(src)/16 + 5) units of roundoff.
func ExpSum(dst, src []float32, shift float32) float32 {
	check(len(dst), len(src))
	var sum [block]float32
	n := len(src) / block
	if n > 0 {
		expSumBlocks(n, &dst[0], &src[0], shift, &sum)
	}
	if rest := src[n*block:]; len(rest) > 0 {
		var x, tail [block]float32
		copy(x[:], rest)
		expSumBlocks(1, &x[0], &x[0], shift, &tail)
		for i := range rest {
			sum[i] += tail[i]
		}
		copy(dst[n*block:], x[:])
	}
	return fold(sum[:])
}

// fold adds lanes as a tree of halves. It uses s as scratch.
func fold(s []float32) float32 {
	for half := len(s) / 2; half > 0; half /= 2 {
		for i := range half {
			s[i] += s[i+half]
		}
	}
	return s[0]
}

// Softmax replaces row by exp(row - max(row)) divided by its sum. A row that is
// -Inf throughout (all positions masked) becomes zero throughout; a row with NaN
// or +Inf becomes NaN throughout.
func Softmax(row []float32) {
	m := Max(row)
	if m == negInf {
		for _, v := range row {
			if v != v {
				m = v // not all masked: NaN for all
			}
		}
		if m == negInf {
			clear(row)
			return
		}
	}
	Scale(1/ExpSum(row, row, m), row)
}

// SiLUMul sets dst = gate * sigmoid(gate) * up, to within 4 ulp where neither the
// result nor exp(-|gate|) is subnormal, which is so for |gate| < 87. The error
// of gate * sigmoid(gate) is never above 1e-43 more than that. A gate of -Inf
// gives NaN.
func SiLUMul(dst, gate, up []float32) {
	check(len(dst), len(gate))
	check(len(dst), len(up))
	n := len(dst) / block
	if n > 0 {
		siluMulBlocks(n, &dst[0], &gate[0], &up[0])
	}
	if done := n * block; done < len(dst) {
		var g, u [block]float32
		copy(g[:], gate[done:])
		copy(u[:], up[done:])
		siluMulBlocks(1, &g[0], &g[0], &u[0])
		copy(dst[done:], g[:])
	}
}

// Dot returns the sum of x[i]*y[i], fused, over 64 lanes: its error is at most
// (len(x)/64 + 7) units of roundoff of the sum of |x[i]*y[i]|.
func Dot(x, y []float32) float32 {
	check(len(x), len(y))
	var sum [dotLanes]float32
	n := len(x) / dotLanes
	if n > 0 {
		dotBlocks(n, &x[0], &y[0], &sum)
	}
	if done := n * dotLanes; done < len(x) {
		var a, b [dotLanes]float32
		copy(a[:], x[done:])
		copy(b[:], y[done:])
		dotBlocks(1, &a[0], &b[0], &sum)
	}
	return fold(sum[:])
}

// SumSquares returns the sum of x[i]*x[i], as Dot does.
func SumSquares(x []float32) float32 { return Dot(x, x) }

// DotF64 returns the sum of x[i]*y[i] computed in float64, in which the products
// are exact.
func DotF64(x, y []float32) float64 {
	check(len(x), len(y))
	var s [block]float64
	n := len(x) / block
	if n > 0 {
		dotF64Blocks(n, &x[0], &y[0], &s)
	}
	if done := n * block; done < len(x) {
		var a, b [block]float32
		copy(a[:], x[done:])
		copy(b[:], y[done:])
		dotF64Blocks(1, &a[0], &b[0], &s)
	}
	for half := block / 2; half > 0; half /= 2 {
		for i := range half {
			s[i] += s[i+half]
		}
	}
	return s[0]
}

// Axpy sets dst[i] += a*x[i], fused.
func Axpy(a float32, x, dst []float32) {
	check(len(dst), len(x))
	n := len(x) / block
	if n > 0 {
		axpyBlocks(n, a, &x[0], &dst[0])
	}
	if done := n * block; done < len(x) {
		var s, d [block]float32
		copy(s[:], x[done:])
		copy(d[:], dst[done:])
		axpyBlocks(1, a, &s[0], &d[0])
		copy(dst[done:], d[:])
	}
}

// Scale sets dst[i] *= a.
func Scale(a float32, dst []float32) {
	n := len(dst) / block
	if n > 0 {
		scaleBlocks(n, a, &dst[0])
	}
	for i := n * block; i < len(dst); i++ {
		dst[i] *= a
	}
}

// ScaleMul sets dst[i] = (a*x[i])*w[i]: the last step of an RMSNorm, with a the
// reciprocal root mean square of x and w the weights.
func ScaleMul(dst, x []float32, a float32, w []float32) {
	check(len(dst), len(x))
	check(len(dst), len(w))
	n := len(x) / block
	if n > 0 {
		scaleMulBlocks(n, &dst[0], &x[0], a, &w[0])
	}
	for i := n * block; i < len(x); i++ {
		dst[i] = a * x[i] * w[i]
	}
}

// Max returns the largest element of x, ignoring NaN, or -Inf if there is none.
// It does not return a negative zero.
func Max(x []float32) float32 {
	n := len(x) / block
	m := negInf
	if n > 0 {
		var lanes [block]float32
		for i := range lanes {
			lanes[i] = negInf
		}
		maxBlocks(n, &x[0], &lanes)
		for _, v := range lanes {
			m = max(m, v)
		}
	}
	for _, v := range x[n*block:] {
		if v > m {
			m = v
		}
	}
	return m + 0
}

// WidenBF16 converts bfloat16 bits to float32.
func WidenBF16(dst []float32, src []uint16) {
	check(len(dst), len(src))
	n := len(src) / block
	if n > 0 {
		widenBlocks(n, &dst[0], &src[0])
	}
	for i := n * block; i < len(src); i++ {
		dst[i] = math.Float32frombits(uint32(src[i]) << 16)
	}
}

// RoundBF16 rounds the bits of a float32 that is no NaN to the nearest bfloat16's: adding just under half of the last kept place,
// or exactly half where that place is odd, carries where rounding goes up.
func RoundBF16(u uint32) uint16 { return uint16((u + 0x7fff + u>>16&1) >> 16) }

// NarrowBF16 rounds to the nearest bfloat16 bits, to even where two are as near, and reports whether all of src are finite.
// If not, what is in dst means nothing.
func NarrowBF16(dst []uint16, src []float32) (finite bool) {
	check(len(dst), len(src))
	n := len(src) / block
	finite = n == 0 || !narrowBlocks(n, &dst[0], &src[0])
	for i := n * block; i < len(src); i++ {
		u := math.Float32bits(src[i])
		finite = finite && u&infinity != infinity
		dst[i] = RoundBF16(u)
	}
	return finite
}
