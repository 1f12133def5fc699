package gguf

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	magic     = "GGUF"
	version   = 3
	alignment = 32
	// maxName is ggml's GGML_MAX_NAME with the zero byte taken off; a longer tensor name is refused when loading.
	maxName = 63
	maxDims = 4
)

// Tensor is an entry of the directory. Shape is row-major, the row's length last; the file turns it round.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int
	// Values calls yield with all elements in order, some whole rows at a time. It is called once.
	Values func(yield func(rows []float32) error) error
}

func (t *Tensor) row() int { return t.Shape[len(t.Shape)-1] }

func (t *Tensor) elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// Bytes returns the size of the tensor's data.
func (t *Tensor) Bytes() int64 {
	return t.elements() / int64(t.row()) * t.Type.RowBytes(t.row())
}

// Layout is a planned file.
type Layout struct {
	// Size is that of the whole file in bytes.
	Size    int64
	head    []byte
	tensors []Tensor
}

// Plan lays out a file. Tensors lie in the given order. A key or name that comes twice, or a shape or name that the format
// cannot hold, is a mistake of the caller and panics.
func Plan(metadata []KV, tensors []Tensor) *Layout {
	l := &Layout{tensors: tensors}
	seen := make(map[string]bool)
	once := func(name string) {
		if seen[name] {
			panic(fmt.Sprintf("gguf: %q twice", name))
		}
		seen[name] = true
	}
	b := binary.LittleEndian.AppendUint32([]byte(magic), version)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(metadata)))
	for _, kv := range metadata {
		once("key " + kv.Key)
		b = appendKV(b, kv)
	}
	var at int64
	for i := range tensors {
		t := &tensors[i]
		once("tensor " + t.Name)
		if len(t.Name) > maxName || len(t.Shape) == 0 || len(t.Shape) > maxDims || t.elements() <= 0 {
			panic(fmt.Sprintf("gguf: tensor %q with shape %v", t.Name, t.Shape))
		}
		b = appendString(b, t.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Shape)))
		for j := range t.Shape {
			b = binary.LittleEndian.AppendUint64(b, uint64(t.Shape[len(t.Shape)-1-j]))
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Type))
		b = binary.LittleEndian.AppendUint64(b, uint64(at))
		at = align(at + t.Bytes())
	}
	l.head = append(b, make([]byte, align(int64(len(b)))-int64(len(b)))...)
	l.Size = int64(len(l.head)) + at
	return l
}

func align(n int64) int64 { return (n + alignment - 1) / alignment * alignment }

// RangeError is a value that the type of a tensor cannot hold.
type RangeError struct {
	Tensor string
	Type   Type
	Index  int64 // of the element, or of the first of its block
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("%s: a value beyond the range of %s at index %d", e.Tensor, e.Type, e.Index)
}

// Write writes the file to w. done is called after each tensor with the bytes written so far. What does not fit a tensor's
// type is a [RangeError]; other errors are those of w, of a tensor's Values or of done. Values that do not give the elements
// of their tensor are a mistake of the caller and panic.
func (l *Layout) Write(w io.Writer, done func(written int64) error) error {
	if _, err := w.Write(l.head); err != nil {
		return err
	}
	at := int64(len(l.head))
	var buf []byte
	for i := range l.tensors {
		t := &l.tensors[i]
		var count, bytes int64
		err := t.Values(func(rows []float32) error {
			if len(rows)%t.row() != 0 {
				panic(fmt.Sprintf("gguf: %s: %d values in rows of %d", t.Name, len(rows), t.row()))
			}
			var bad int
			if buf, bad = t.Type.encode(buf[:0], rows); bad >= 0 {
				return &RangeError{t.Name, t.Type, count + int64(bad)}
			}
			count += int64(len(rows))
			bytes += int64(len(buf))
			_, err := w.Write(buf)
			return err
		})
		if err != nil {
			return err
		}
		if count != t.elements() || bytes != t.Bytes() {
			panic(fmt.Sprintf("gguf: %s: %d values in %d bytes, expected %d in %d", t.Name, count, bytes, t.elements(), t.Bytes()))
		}
		if _, err := w.Write(make([]byte, align(bytes)-bytes)); err != nil {
			return err
		}
		at += align(bytes)
		if err := done(at); err != nil {
			return err
		}
	}
	return nil
}
