package vec

import (
	"math"
	"unsafe"
)

// The portable kernels: the fallback, and the definition of what the assembly
// computes. An explicit conversion of a product keeps the compiler from fusing
// it where the assembly does not.

// fma returns x*y + z rounded once. The product is exact in float64. Rounding the
// sum there first does harm only if that makes it the midpoint of two float32,
// and is then mended.
func fma(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z)
	s := p + c
	const half, normal = 1 << 28, 0x1p-126 // of the 29 bits that float32 lacks
	if math.Float64bits(s)&(2*half-1) != half && math.Abs(s) >= normal {
		return float32(s)
	}
	return fmaToOdd(p, c, s)
}

// fmaToOdd returns p + c, of which s is the rounded sum, rounded to float32. It
// first rounds to odd, which does not disturb the second rounding (Boldo and
// Melquiond 2008, theorem 2).
func fmaToOdd(p, c, s float64) float32 {
	// What the sum lost (Knuth, TwoSum).
	t := s - p
	lost := (p - (s - t)) + (c - t)
	if lost < 0 || lost > 0 { // neither exact nor NaN, as with infinite operands
		if b := math.Float64bits(s); b&1 == 0 {
			if (lost > 0) == (s > 0) {
				b++
			} else {
				b--
			}
			s = math.Float64frombits(b)
		}
	}
	return float32(s)
}

func expOne(x float32) float32 {
	c := &expConstants
	if x < c.low[0] {
		x = c.low[0]
	}
	if x > c.high[0] {
		x = c.high[0]
	}
	t := fma(x, c.log2e[0], c.magic[0])
	n := t - c.magic[0]
	r := fma(n, c.negLn2Upper[0], x)
	r = fma(n, c.negLn2Lower[0], r)
	p := c.q4[0]
	for _, q := range [...]float32{c.q3[0], c.q2[0], c.q1[0], c.q0[0]} {
		p = fma(p, r, q)
	}
	p = fma(p, float32(r*r), r)
	p += 1
	// Two factors, because 2^n alone may be out of range: the first product is
	// exact, the second rounds a subnormal result once.
	i := int32(math.Float32bits(t) - math.Float32bits(c.magic[0]))
	half := i >> 1
	return float32(p*power(half)) * power(i-half)
}

// power returns 2^n.
func power(n int32) float32 { return math.Float32frombits(uint32(n+127) << 23) }

func sliceOf[T any](p *T, blocks, size int) []T { return unsafe.Slice(p, blocks*size) }

func expPortable(blocks int, dst, src *float32) {
	d := sliceOf(dst, blocks, block)
	for i, x := range sliceOf(src, blocks, block) {
		d[i] = expOne(x)
	}
}

func expSumPortable(blocks int, dst, src *float32, shift float32, sum *[block]float32) {
	d := sliceOf(dst, blocks, block)
	for i, x := range sliceOf(src, blocks, block) {
		d[i] = expOne(x - shift)
		sum[i%block] += d[i]
	}
}

func siluMulPortable(blocks int, dst, gate, up *float32) {
	d, u := sliceOf(dst, blocks, block), sliceOf(up, blocks, block)
	for i, g := range sliceOf(gate, blocks, block) {
		// exp of a negative number does not overflow:
		// sigmoid(g) = 1/(1+exp(-g)) = exp(g)/(1+exp(g)).
		negative := math.Float32bits(g)>>31 != 0
		e := expOne(math.Float32frombits(math.Float32bits(g) | 1<<31))
		num := g
		if negative {
			num = g * e
		}
		d[i] = float32(num/(1+e)) * u[i]
	}
}

func dotPortable(blocks int, x, y *float32, sum *[dotLanes]float32) {
	b := sliceOf(y, blocks, dotLanes)
	for i, v := range sliceOf(x, blocks, dotLanes) {
		sum[i%dotLanes] = fma(v, b[i], sum[i%dotLanes])
	}
}

func dotF64Portable(blocks int, x, y *float32, sum *[block]float64) {
	b := sliceOf(y, blocks, block)
	for i, v := range sliceOf(x, blocks, block) {
		sum[i%block] += float64(v) * float64(b[i]) // exact products: fusing changes nothing
	}
}

func axpyPortable(blocks int, a float32, x, dst *float32) {
	d := sliceOf(dst, blocks, block)
	for i, v := range sliceOf(x, blocks, block) {
		d[i] = fma(a, v, d[i])
	}
}

func scalePortable(blocks int, a float32, dst *float32) {
	d := sliceOf(dst, blocks, block)
	for i := range d {
		d[i] *= a
	}
}

func scaleMulPortable(blocks int, dst, x *float32, a float32, w *float32) {
	d, s := sliceOf(dst, blocks, block), sliceOf(w, blocks, block)
	for i, v := range sliceOf(x, blocks, block) {
		d[i] = float32(a*v) * s[i]
	}
}

func maxPortable(blocks int, x *float32, lanes *[block]float32) {
	for i, v := range sliceOf(x, blocks, block) {
		if v > lanes[i%block] {
			lanes[i%block] = v
		}
	}
}

func widenPortable(blocks int, dst *float32, src *uint16) {
	d := sliceOf(dst, blocks, block)
	for i, v := range sliceOf(src, blocks, block) {
		d[i] = math.Float32frombits(uint32(v) << 16)
	}
}

func narrowPortable(blocks int, dst *uint16, src *float32) (special bool) {
	d, carry := sliceOf(dst, blocks, block), uint32(0)
	for i, v := range sliceOf(src, blocks, block) {
		u := math.Float32bits(v)
		carry |= u&infinity + 1<<23 // into the sign, from an exponent of all ones
		d[i] = RoundBF16(u)
	}
	return carry>>31 != 0
}

const infinity = 0x7f800000 // the bits of a float32
