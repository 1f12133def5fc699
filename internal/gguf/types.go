package gguf

import (
	"fmt"
	"math"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// Type is ggml's type of a tensor's elements, numbered as in the file.
type Type uint32

// The types that this package writes. Q8_0 keeps blocks of 32 elements of a row as 8-bit integers and one binary16 scale.
const (
	F32  Type = 0
	F16  Type = 1
	Q8_0 Type = 8
	BF16 Type = 30
)

// QBlock is the number of elements that share a scale in Q8_0; rows are a multiple of it.
const QBlock = 32

const q8Bytes = 2 + QBlock

// String returns ggml's name of the type.
func (t Type) String() string {
	switch t {
	case F32:
		return "F32"
	case F16:
		return "F16"
	case Q8_0:
		return "Q8_0"
	case BF16:
		return "BF16"
	}
	return fmt.Sprintf("Type(%d)", uint32(t))
}

// RowBytes returns the size of a row of n elements. It panics for a type that is none, and for a row that Q8_0 cannot hold.
func (t Type) RowBytes(n int) int64 {
	switch t {
	case F32:
		return 4 * int64(n)
	case F16, BF16:
		return 2 * int64(n)
	case Q8_0:
		if n%QBlock == 0 {
			return int64(n/QBlock) * q8Bytes
		}
	}
	panic(fmt.Sprintf("gguf: a row of %d as %s", n, t))
}

// encode appends x, whole rows of finite values, to dst. It returns the index of the first value, or the first of a block,
// that the type is too narrow for, or -1.
func (t Type) encode(dst []byte, x []float32) ([]byte, int) {
	at := len(dst)
	switch t {
	case F32:
		dst = append(dst, make([]byte, 4*len(x))...)
		checkpoint.Float32ToF32(dst[at:], x)
	case BF16:
		dst = append(dst, make([]byte, 2*len(x))...)
		checkpoint.Float32ToBF16(dst[at:], x)
		for i, v := range x {
			if v > maxBF16 || v < -maxBF16 {
				return dst, i
			}
		}
	case F16:
		dst = append(dst, make([]byte, 2*len(x))...)
		checkpoint.Float32ToF16(dst[at:], x)
		for i, v := range x {
			if v >= overF16 || v <= -overF16 {
				return dst, i
			}
		}
	case Q8_0:
		for i := 0; i < len(x); i += QBlock {
			var ok bool
			if dst, ok = appendQ8(dst, x[i:i+QBlock]); !ok {
				return dst, i
			}
		}
	default:
		panic("gguf: encode as " + t.String())
	}
	return dst, -1
}

const (
	// overF16 and above round to an infinity in binary16: half a last place beyond its largest value, 65504.
	overF16 = 65520
	// maxBF16 and below do not: its largest value is 2^127 * (2 - 2^-7), and half a last place beyond is where it ends.
	maxBF16 = 0x1.fefffep127
	// smallestScale is the least float32 whose inverse is finite.
	smallestScale = 0x1.000002p-128
)

// appendQ8 appends one block as ggml's quantize_row_q8_0_ref makes it: with m the largest magnitude, the scale d = m/127 is
// stored in binary16, and the integers are x/d for d in float32, rounded half away from zero. It returns false if the scale
// is beyond binary16.
func appendQ8(dst []byte, x []float32) ([]byte, bool) {
	var most float32
	for _, v := range x {
		most = max(most, v, -v)
	}
	scale := most / 127
	var inverse float32
	if scale >= smallestScale { // below, the stored scale is zero as well
		inverse = 1 / scale
	}
	var half [2]byte
	checkpoint.Float32ToF16(half[:], []float32{scale})
	dst = append(dst, half[:]...)
	for _, v := range x {
		dst = append(dst, byte(int8(math.Round(float64(v*inverse)))))
	}
	return dst, scale < overF16
}
