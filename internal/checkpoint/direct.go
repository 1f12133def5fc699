package checkpoint

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"github.com/mlaconvert/mlaconvert/internal/hugepage"
)

// Large tensors are written past the page cache where the system says how: at the disk's rate, for a fraction of the
// processor time, without writers of one file waiting for each other, and with nothing left for the sync that follows. A disk takes
// memory in pieces that are contiguous there. In huge pages that is a whole write, in small ones every 4 KB: a virtual disk (virtio)
// took 2.9 to 3.3 s for 1 GB of these, with a quarter of two processors' time spent outside the machine, and 0.6 s of those.

const (
	// directAlign is the alignment of offsets, lengths and memory that a direct write keeps to.
	directAlign = 4096
	// directBytes is the size of one such write, that of a huge page.
	directBytes = 2 << 20
	// directLeast is the size from which a tensor is worth it.
	directLeast = 4 << 20
)

// directWriter writes a stretch of a file from front to back: whole blocks directly, what it has of the first and the last
// one, which may hold others' bytes too, through the page cache.
type directWriter struct {
	direct, plain *os.File
	at            int64 // where the next byte goes
	mapped        []byte
	buf           []byte
	n             int // bytes in buf, which end at at
}

// newDirectWriter returns a writer from offset at on. The caller must release it.
func newDirectWriter(direct, plain *os.File, at int64) *directWriter {
	d := &directWriter{direct: direct, plain: plain, at: at, mapped: hugepage.Map(directBytes)}
	if d.buf = d.mapped; d.buf == nil {
		b := make([]byte, directBytes+directAlign)
		d.buf = b[-uintptr(unsafe.Pointer(&b[0]))%directAlign:][:directBytes]
	}
	return d
}

func (d *directWriter) write(b []byte) error {
	if head := int(-d.at & (directAlign - 1)); d.n == 0 && head > 0 {
		head = min(head, len(b))
		if _, err := d.plain.WriteAt(b[:head], d.at); err != nil {
			return err
		}
		d.at += int64(head)
		b = b[head:]
	}
	for len(b) > 0 {
		k := copy(d.buf[d.n:], b)
		b, d.n, d.at = b[k:], d.n+k, d.at+int64(k)
		if d.n == directBytes {
			if err := d.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes what is in the buffer.
func (d *directWriter) flush() error {
	b, at := d.buf[:d.n], d.at-int64(d.n)
	d.n = 0
	blocks := len(b) &^ (directAlign - 1)
	if blocks > 0 {
		_, err := d.direct.WriteAt(b[:blocks], at)
		if errors.Is(err, syscall.EINVAL) { // it is pickier than it said
			blocks, err = 0, nil
		}
		if err != nil {
			return err
		}
	}
	if blocks == len(b) {
		return nil
	}
	_, err := d.plain.WriteAt(b[blocks:], at+int64(blocks))
	return err
}

// release gives the buffer back.
func (d *directWriter) release() {
	if d.mapped != nil {
		hugepage.Unmap(d.mapped)
	}
	d.mapped, d.buf = nil, nil
}
