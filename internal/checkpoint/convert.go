package checkpoint

import (
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// The conversions below take little-endian bytes on the side of the file. They convert every element of the float32
// slice and panic if the byte slice is shorter than that. Narrowing rounds to nearest, ties to even; what is too large
// becomes an infinity; a NaN stays a NaN with its sign and as many leading bits of its payload as fit.

// BF16ToFloat32 widens len(dst) bfloat16 values. It is exact.
func BF16ToFloat32(dst []float32, src []byte) {
	src = src[:2*len(dst)]
	if littleEndian {
		vec.WidenBF16(dst, halvesOf(src))
		return
	}
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
	}
}

// Float32ToBF16 narrows len(src) values to bfloat16.
func Float32ToBF16(dst []byte, src []float32) {
	dst = dst[:2*len(src)]
	if littleEndian && vec.NarrowBF16(halvesOf(dst), src) {
		return
	}
	for i, x := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], bf16Bits(x))
	}
}

const (
	signBit  = 1 << 31
	infinity = 0xff << 23 // of a float32
)

func bf16Bits(x float32) uint16 {
	u := math.Float32bits(x)
	if u&^signBit > infinity {
		return uint16(u>>16) | 0x0040 // quiet, so that dropping the low payload cannot turn a NaN into an infinity
	}
	return vec.RoundBF16(u)
}

// Constants of a binary16 moved into the places of a float32: the exponents it can have, unbiased and biased anew.
const (
	f16Shift     = 23 - 10
	f16Rebias    = (127 - 15) << 23
	f16MinNormal = 0x0400 << f16Shift
	f16Infinity  = 0x7c00 << f16Shift
)

// F16ToFloat32 widens len(dst) IEEE binary16 values. It is exact.
func F16ToFloat32(dst []float32, src []byte) {
	src = src[:2*len(dst)]
	for i := range dst {
		h := uint32(binary.LittleEndian.Uint16(src[2*i:]))
		mag := h & 0x7fff << f16Shift
		if mag-f16MinNormal < f16Infinity-f16MinNormal {
			mag += f16Rebias
		} else {
			mag = f16Special(mag)
		}
		dst[i] = math.Float32frombits(mag | h>>15<<31)
	}
}

// f16Special returns the float32 bits of a magnitude that is zero, subnormal, infinite or NaN.
func f16Special(mag uint32) uint32 {
	if mag >= f16Infinity {
		return mag | infinity
	}
	// mag is m*2^-24 without its implicit one: put the mantissa under that of 2^-14, and take 2^-14 off.
	x := math.Float32frombits(f16MinNormal+f16Rebias|mag) - math.Float32frombits(f16MinNormal+f16Rebias)
	return math.Float32bits(x)
}

// Float32ToF16 narrows len(src) values to IEEE binary16.
func Float32ToF16(dst []byte, src []float32) {
	dst = dst[:2*len(src)]
	for i, x := range src {
		u := math.Float32bits(x)
		mag := u &^ signBit
		if mag-(f16MinNormal+f16Rebias) < f16Infinity-f16MinNormal {
			// As in vec.RoundBF16; a carry out of the largest exponent gives the infinity.
			mag -= f16Rebias
			mag = (mag + 0x0fff + mag>>f16Shift&1) >> f16Shift
		} else {
			mag = f16BitsSpecial(mag)
		}
		binary.LittleEndian.PutUint16(dst[2*i:], uint16(mag|u>>31<<15))
	}
}

// f16BitsSpecial returns the binary16 bits of a magnitude, given as float32 bits, outside the normal range of binary16.
func f16BitsSpecial(mag uint32) uint32 {
	switch {
	case mag > infinity:
		return 0x7e00 | mag>>f16Shift&0x03ff // quiet, as in bf16Bits
	case mag >= f16Infinity+f16Rebias:
		return 0x7c00
	}
	// Subnormal or zero: adding 1/2 makes the FPU round at 2^-24, the last place of the result.
	return math.Float32bits(math.Float32frombits(mag)+0.5) - math.Float32bits(0.5)
}

// littleEndian says that this machine keeps a float32 in memory as a file does.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// bytesOf returns the memory of x.
func bytesOf(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// halvesOf returns the 16-bit elements in b, in this machine's order.
func halvesOf(b []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
}

// F32ToFloat32 reads len(dst) float32 values.
func F32ToFloat32(dst []float32, src []byte) {
	src = src[:4*len(dst)]
	if littleEndian {
		copy(bytesOf(dst), src)
		return
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

// Float32ToF32 writes len(src) float32 values.
func Float32ToF32(dst []byte, src []float32) {
	dst = dst[:4*len(src)]
	if littleEndian {
		copy(dst, bytesOf(src))
		return
	}
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
