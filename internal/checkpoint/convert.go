package checkpoint

import (
	"encoding/binary"
	"math"
)

// The conversions below take little-endian bytes on the side of the file. They convert every element of the float32
// slice and panic if the byte slice is shorter than that. Narrowing rounds to nearest, ties to even; what is too large
// becomes an infinity; a NaN stays a NaN with its sign and as many leading bits of its payload as fit.

// BF16ToFloat32 widens len(dst) bfloat16 values. It is exact.
func BF16ToFloat32(dst []float32, src []byte) {
	src = src[:2*len(dst)]
	for len(dst) >= 4 && len(src) >= 8 {
		v := binary.LittleEndian.Uint64(src)
		dst[0] = math.Float32frombits(uint32(v) << 16)
		dst[1] = math.Float32frombits(uint32(v) & 0xffff0000)
		dst[2] = math.Float32frombits(uint32(v>>32) << 16)
		dst[3] = math.Float32frombits(uint32(v>>32) & 0xffff0000)
		dst, src = dst[4:], src[8:]
	}
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
	}
}

// Float32ToBF16 narrows len(src) values to bfloat16.
func Float32ToBF16(dst []byte, src []float32) {
	dst = dst[:2*len(src)]
	for len(src) >= 4 && len(dst) >= 8 {
		v := uint64(bf16Bits(src[0])) | uint64(bf16Bits(src[1]))<<16 | uint64(bf16Bits(src[2]))<<32 | uint64(bf16Bits(src[3]))<<48
		binary.LittleEndian.PutUint64(dst, v)
		src, dst = src[4:], dst[8:]
	}
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], bf16Bits(x))
	}
}

func bf16Bits(x float32) uint16 {
	u := math.Float32bits(x)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16) | 0x0040 // quiet, so that dropping the low payload cannot turn a NaN into an infinity
	}
	// Adding just under half of the last kept place, or exactly half when that place is odd, carries where rounding goes up.
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// F16ToFloat32 widens len(dst) IEEE binary16 values. It is exact.
func F16ToFloat32(dst []float32, src []byte) {
	src = src[:2*len(dst)]
	for i := range dst {
		dst[i] = f16Float(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func f16Float(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	mag := uint32(h&0x7fff) << 13 // exponent and mantissa in the places of a float32, the exponent still biased by 15
	switch {
	case mag < 0x0400<<13: // zero or subnormal, h * 2^-24: put the mantissa under the implicit one of 2^-14 and take that off
		x := math.Float32frombits(113<<23|mag) - math.Float32frombits(113<<23)
		return math.Float32frombits(math.Float32bits(x) | sign)
	case mag >= 0x7c00<<13: // infinity or NaN
		return math.Float32frombits(mag | 0xff<<23 | sign)
	}
	return math.Float32frombits((mag + (127-15)<<23) | sign)
}

// Float32ToF16 narrows len(src) values to IEEE binary16.
func Float32ToF16(dst []byte, src []float32) {
	dst = dst[:2*len(src)]
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], f16Bits(x))
	}
}

func f16Bits(x float32) uint16 {
	u := math.Float32bits(x)
	sign := uint16(u >> 16 & 0x8000)
	mag := u & 0x7fffffff
	switch {
	case mag > 0x7f800000:
		return sign | 0x7e00 | uint16(mag>>13&0x03ff)
	case mag >= (127+16)<<23: // 2^16 and above, infinity included
		return sign | 0x7c00
	case mag < (127-14)<<23: // subnormal or zero: adding 1/2 lets the FPU round at 2^-24, the last place of the result
		return sign | uint16(math.Float32bits(math.Float32frombits(mag)+0.5)-math.Float32bits(0.5))
	}
	// As in bf16Bits; a carry out of the largest exponent gives the infinity.
	mag -= (127 - 15) << 23
	return sign | uint16((mag+0x0fff+mag>>13&1)>>13)
}

// F32ToFloat32 reads len(dst) float32 values.
func F32ToFloat32(dst []float32, src []byte) {
	src = src[:4*len(dst)]
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

// Float32ToF32 writes len(src) float32 values.
func Float32ToF32(dst []byte, src []float32) {
	dst = dst[:4*len(src)]
	for i, x := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
}

// widen converts len(dst) values of type d, which is F32, F16 or BF16.
func widen(d DType, dst []float32, src []byte) {
	switch d {
	case F32:
		F32ToFloat32(dst, src)
	case F16:
		F16ToFloat32(dst, src)
	case BF16:
		BF16ToFloat32(dst, src)
	default:
		panic("checkpoint: widen from " + d.String())
	}
}

// narrow converts len(src) values to type d, which is F32, F16 or BF16.
func narrow(d DType, dst []byte, src []float32) {
	switch d {
	case F32:
		Float32ToF32(dst, src)
	case F16:
		Float32ToF16(dst, src)
	case BF16:
		Float32ToBF16(dst, src)
	default:
		panic("checkpoint: narrow to " + d.String())
	}
}

// firstNonFinite returns the index of the first NaN or infinity among the elements of type d in b, or -1.
//
// A value is not finite when its exponent is all ones. Adding one to the lowest exponent bit then carries into the
// cleared sign bit, in all the elements of a 64-bit word at once, and never across elements.
func firstNonFinite(d DType, b []byte) int {
	var exponent, one, sign uint64
	size := d.Size()
	switch d {
	case F32:
		exponent, one, sign = 0x7f800000_7f800000, 0x00800000_00800000, 0x80000000_80000000
	case F16:
		exponent, one, sign = 0x7c00_7c00_7c00_7c00, 0x0400_0400_0400_0400, 0x8000_8000_8000_8000
	case BF16:
		exponent, one, sign = 0x7f80_7f80_7f80_7f80, 0x0080_0080_0080_0080, 0x8000_8000_8000_8000
	default:
		panic("checkpoint: finite check of " + d.String())
	}
	n, i := len(b)/size*size, 0
	for ; i+32 <= n; i += 32 {
		w := b[i : i+32 : i+32]
		v0 := binary.LittleEndian.Uint64(w)&exponent + one
		v1 := binary.LittleEndian.Uint64(w[8:])&exponent + one
		v2 := binary.LittleEndian.Uint64(w[16:])&exponent + one
		v3 := binary.LittleEndian.Uint64(w[24:])&exponent + one
		if (v0|v1|v2|v3)&sign != 0 {
			break
		}
	}
	for ; i < n; i += size {
		var v uint64
		for j := range size {
			v |= uint64(b[i+j]) << (8 * j)
		}
		if v&exponent == exponent>>(64-8*size) {
			return i / size
		}
	}
	return -1
}
