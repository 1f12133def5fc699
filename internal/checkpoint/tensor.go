package checkpoint

import (
	"errors"
	"fmt"
	"strconv"
)

// Tensor is one tensor of an open [Source]. Its fields must not be changed. Its methods may be used from many
// goroutines at once, as long as the source is open.
type Tensor struct {
	Name  string
	DType DType
	Shape []int  // row-major; empty for a scalar
	File  string // the file that holds it, for messages

	data      fileData
	off, size int64 // bytes of the file
}

// Elements returns the number of elements, 1 for a scalar.
func (t *Tensor) Elements() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Size returns the number of bytes.
func (t *Tensor) Size() int64 { return t.size }

// Bytes returns the little-endian bytes of the tensor as they lie in the mapped file, not a copy: they must not be
// written to nor used after the source is closed, and touching them is a memory fault if the file has been cut short
// meanwhile; the other methods return an error then. On a system without memory mapping the bytes are read anew at
// each call, and are nil if that fails.
func (t *Tensor) Bytes() []byte {
	b, err := t.data.view(t.off, t.size, new([]byte))
	if err != nil {
		return nil
	}
	return b
}

// Float32 widens the whole tensor into dst, which it grows if it is too small, and returns the filled slice. A NaN or an
// infinity is an error naming file, tensor and index; a dtype that is no float is an error of Kind Unsupported.
func (t *Tensor) Float32(dst []float32) ([]float32, error) {
	return t.elements(0, t.Elements(), dst)
}

// Rows widens rows lo to hi-1, along the first axis, into dst as Float32 does. A row of a 1-dimensional tensor is one
// element. Rows outside the tensor are an error.
func (t *Tensor) Rows(lo, hi int, dst []float32) ([]float32, error) {
	if len(t.Shape) == 0 {
		return nil, t.errorf(BadSource, "a scalar", "a tensor with rows")
	}
	if lo < 0 || hi < lo || hi > t.Shape[0] {
		return nil, t.errorf(BadSource, fmt.Sprintf("%d rows", t.Shape[0]), fmt.Sprintf("rows %d to %d", lo, hi))
	}
	width := 1
	for _, d := range t.Shape[1:] {
		width *= d
	}
	return t.elements(lo*width, hi*width, dst)
}

func (t *Tensor) elements(lo, hi int, dst []float32) ([]float32, error) {
	if err := t.wantFloat(); err != nil {
		return nil, err
	}
	n := hi - lo
	if cap(dst) < n {
		dst = make([]float32, n)
	}
	dst = dst[:n]
	size := t.DType.Size()
	err := eachChunk(t.data, t.off+int64(lo)*int64(size), int64(n)*int64(size), func(at int64, b []byte) error {
		first := int(at) / size
		if i := firstNonFinite(t.DType, b); i >= 0 {
			return t.nonFinite(lo+first+i, elementAt(t.DType, b, i))
		}
		widen(t.DType, dst[first:first+len(b)/size], b)
		return nil
	})
	if err != nil {
		return nil, t.where(err)
	}
	return dst, nil
}

// CheckFinite reads the tensor once, in bounded memory, and returns an error like Float32's if an element is a NaN or an
// infinity. It releases the pages as it goes.
func (t *Tensor) CheckFinite() error {
	return t.stream(func(int64, []byte) error { return nil })
}

// streamWindow is how much of a tensor stays mapped behind stream.
const streamWindow = 2 << 20

// stream calls f with the finite bytes of the tensor, chunk by chunk, and releases them behind it; at is the offset of b in
// the tensor.
func (t *Tensor) stream(f func(at int64, b []byte) error) error {
	if err := t.wantFloat(); err != nil {
		return err
	}
	defer t.Release()
	var released int64
	err := eachChunk(t.data, t.off, t.size, func(at int64, b []byte) error {
		if i := firstNonFinite(t.DType, b); i >= 0 {
			return t.nonFinite(int(at)/t.DType.Size()+i, elementAt(t.DType, b, i))
		}
		if err := f(at, b); err != nil {
			return err
		}
		if end := at + int64(len(b)); end-released >= streamWindow {
			t.data.drop(t.off+released, end-released)
			released = end
		}
		return nil
	})
	return t.where(err)
}

// Release lets the system take back the memory that holds the tensor, which counts as resident while it is mapped and
// has been touched. The tensor stays usable: reading it again reads the file again.
func (t *Tensor) Release() { t.data.drop(t.off, t.size) }

func (t *Tensor) wantFloat() error {
	if !t.DType.IsFloat() {
		return t.errorf(Unsupported, "dtype "+t.DType.String(), "F32, F16 or BF16")
	}
	return nil
}

func (t *Tensor) errorf(kind Kind, got, want string) *Error {
	return &Error{Kind: kind, File: t.File, Tensor: t.Name, Got: got, Want: want}
}

// where gives an error from reading t the names of its file and tensor.
func (t *Tensor) where(err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Kind: BadSource, File: t.File, Tensor: t.Name, Got: "data that cannot be read", Err: err}
	}
	if e.File == "" {
		e.File, e.Tensor = t.File, t.Name
	}
	return err
}

func (t *Tensor) nonFinite(index int, value float32) *Error {
	return t.errorf(BadSource, fmt.Sprintf("%s at %s", strconv.FormatFloat(float64(value), 'g', -1, 32), position(index, t.Shape)), "finite values")
}

// position writes the place of an element as index 7, or as row 1, column 3 of a matrix.
func position(index int, shape []int) string {
	if len(shape) == 2 && shape[1] > 0 {
		return fmt.Sprintf("index %d (row %d, column %d)", index, index/shape[1], index%shape[1])
	}
	return fmt.Sprintf("index %d", index)
}

// elementAt widens element i of b.
func elementAt(d DType, b []byte, i int) float32 {
	var x [1]float32
	widen(d, x[:], b[i*d.Size():])
	return x[0]
}
