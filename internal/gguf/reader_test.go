package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// file is what a reader of its own, written from the format's description, finds in a GGUF file.
type file struct {
	version  uint32
	keys     []string
	metadata map[string]any
	tensors  []found
}

type found struct {
	name   string
	dims   []uint64 // as in the file: the row's length first
	kind   uint32
	offset uint64 // of the data, in the file
}

// read parses a file; it panics where the bytes end early.
func read(b []byte) (*file, error) {
	at := 0
	u32 := func() uint32 { at += 4; return binary.LittleEndian.Uint32(b[at-4:]) }
	u64 := func() uint64 { at += 8; return binary.LittleEndian.Uint64(b[at-8:]) }
	text := func() string { n := int(u64()); at += n; return string(b[at-n : at]) }
	if string(b[:4]) != "GGUF" {
		return nil, fmt.Errorf("magic %q", b[:4])
	}
	at = 4
	f := &file{version: u32(), metadata: map[string]any{}}
	tensors, keys := u64(), u64()
	var value func(kind uint32) any
	value = func(kind uint32) any {
		switch kind {
		case 4:
			return u32()
		case 5:
			return int32(u32())
		case 6:
			return math.Float32frombits(u32())
		case 7:
			at++
			return b[at-1] == 1
		case 8:
			return text()
		case 9:
			element, n := u32(), u64()
			list := []any{}
			for range n {
				list = append(list, value(element))
			}
			return list
		}
		panic(fmt.Sprint("value type ", kind))
	}
	for range keys {
		key := text()
		f.keys = append(f.keys, key)
		f.metadata[key] = value(u32())
	}
	for range tensors {
		t := found{name: text()}
		for range u32() {
			t.dims = append(t.dims, u64())
		}
		t.kind, t.offset = u32(), 0
		t.offset = u64()
		f.tensors = append(f.tensors, t)
	}
	data := uint64((at + 31) / 32 * 32)
	for i := at; i < int(data); i++ {
		if b[i] != 0 {
			return nil, fmt.Errorf("padding byte %d is %d", i, b[i])
		}
	}
	for i := range f.tensors {
		f.tensors[i].offset += data
	}
	return f, nil
}
