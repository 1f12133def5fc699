package model

import (
	"unsafe"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/vec"
)

// Weight is a projection matrix [Out, In], in float32 or in bfloat16 bits (one of the two slices is set).
type Weight struct {
	Out, In int
	F32     []float32
	BF16    []uint16
	// release, if set, gives the pages of a mapped weight back; it is called after every product (see [Network.Save]).
	release func()
}

// NewWeight wraps float32 data of out x in elements.
func NewWeight(out, in int, data []float32) Weight {
	if len(data) != out*in {
		panic("model: weight data length")
	}
	return Weight{Out: out, In: in, F32: data}
}

// loadWeight maps a checkpoint tensor: bfloat16 and float32 are used where they lie, float16 is widened into memory.
func loadWeight(t *checkpoint.Tensor) (Weight, error) {
	w := Weight{Out: t.Shape[0], In: t.Shape[1]}
	if err := t.CheckFinite(); err != nil {
		return w, err
	}
	raw := t.Bytes()
	n := w.Out * w.In
	switch {
	case n == 0:
	case t.DType == checkpoint.BF16 && uintptr(unsafe.Pointer(&raw[0]))%2 == 0 && littleEndian:
		w.BF16 = unsafe.Slice((*uint16)(unsafe.Pointer(&raw[0])), n)
		return w, nil
	case t.DType == checkpoint.F32 && uintptr(unsafe.Pointer(&raw[0]))%4 == 0 && littleEndian:
		w.F32 = unsafe.Slice((*float32)(unsafe.Pointer(&raw[0])), n)
		return w, nil
	}
	var err error
	w.F32, err = t.Float32(nil)
	return w, err
}

var littleEndian = func() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 1
}()

// used follows every use of all of the weight.
func (w *Weight) used() {
	if w.release != nil {
		w.release()
	}
}

// Apply computes y = x W^T + beta y for n rows x [n, In] with row stride ldx; y is [n, Out] with row stride ldy.
func (w *Weight) Apply(e *blas.Engine, n int, x []float32, ldx int, beta float32, y []float32, ldy int) {
	defer w.used()
	if w.BF16 != nil {
		e.SgemmBF16(true, n, w.Out, w.In, 1, x, ldx, w.BF16, w.In, beta, y, ldy)
		return
	}
	e.Sgemm(false, true, n, w.Out, w.In, 1, x, ldx, w.F32, w.In, beta, y, ldy)
}

// ApplyT computes x = y W + beta x, the transpose of [Weight.Apply], for n rows.
func (w *Weight) ApplyT(e *blas.Engine, n int, y []float32, ldy int, beta float32, x []float32, ldx int) {
	defer w.used()
	if w.BF16 != nil {
		e.SgemmBF16(false, n, w.In, w.Out, 1, y, ldy, w.BF16, w.In, beta, x, ldx)
		return
	}
	e.Sgemm(false, false, n, w.In, w.Out, 1, y, ldy, w.F32, w.In, beta, x, ldx)
}

// Row widens row i into dst.
func (w *Weight) Row(i int, dst []float32) {
	if w.BF16 != nil {
		vec.WidenBF16(dst, w.BF16[i*w.In:(i+1)*w.In])
		return
	}
	copy(dst, w.F32[i*w.In:(i+1)*w.In])
}
