package checkpoint

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// fileData is the content of one open file: memory-mapped where the system can, read piece by piece elsewhere.
type fileData interface {
	// view returns n bytes from offset off, in place where the file is mapped and in *scratch elsewhere, which it grows.
	// The bytes are good until the next call with the same scratch.
	view(off, n int64, scratch *[]byte) ([]byte, error)
	// drop lets the system take back the memory that holds n bytes from offset off.
	drop(off, n int64)
	close() error
}

// chunkBytes is the unit of streaming: small enough for the second-level cache, large enough to make calls cheap. It is
// a multiple of every element's size.
const chunkBytes = 256 << 10

var scratchPool = sync.Pool{New: func() any { return new([]byte) }}

// eachChunk calls f with the n bytes from offset off, in pieces of chunkBytes; at counts from off.
func eachChunk(d fileData, off, n int64, f func(at int64, b []byte) error) error {
	scratch := scratchPool.Get().(*[]byte)
	defer scratchPool.Put(scratch)
	return guardFaults(func() error {
		for at := int64(0); at < n; at += chunkBytes {
			b, err := d.view(off+at, min(chunkBytes, n-at), scratch)
			if err != nil {
				return err
			}
			if err := f(at, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// guardFaults runs f and turns a memory fault, which is how a mapped file reports that it was truncated or that its disk
// failed, into an error.
func guardFaults(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if fault, ok := r.(interface {
			runtime.Error
			Addr() uintptr
		}); ok {
			err = &Error{Kind: BadSource, Got: "a page of the file that cannot be read", Hint: "the file was changed or cut short while it was open, or its disk fails", Err: fault}
			return
		}
		panic(r)
	}()
	return f()
}

// readAtData reads a file piece by piece.
type readAtData struct{ f *os.File }

func (d readAtData) view(off, n int64, scratch *[]byte) ([]byte, error) {
	if int64(cap(*scratch)) < n {
		*scratch = make([]byte, n)
	}
	b := (*scratch)[:n]
	if _, err := d.f.ReadAt(b, off); err != nil {
		return nil, &Error{Kind: BadSource, Got: fmt.Sprintf("%d bytes at offset %d that cannot be read", n, off), Err: err}
	}
	return b, nil
}

func (readAtData) drop(int64, int64) {}

func (d readAtData) close() error { return d.f.Close() }
