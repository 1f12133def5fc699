//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package checkpoint

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// mappedData is a file mapped for reading.
type mappedData struct{ b []byte }

// openData maps f, of the given size, and closes it; a mapping needs no open file.
func openData(f *os.File, size int64) (fileData, error) {
	defer f.Close()
	if size == 0 || size > math.MaxInt {
		return nil, badSource("", "", fmt.Sprintf("%d bytes", size), "a file that can be mapped into memory")
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map into memory: %w", err)
	}
	return &mappedData{b: b}, nil
}

func (d *mappedData) view(off, n int64, _ *[]byte) ([]byte, error) {
	if d.b == nil {
		return nil, os.ErrClosed
	}
	return d.b[off : off+n : off+n], nil
}

// faultBytes is the most that one page fault maps: Linux maps all of the naturally aligned block of page cache that the page
// belongs to, the largest of which is a huge page.
const faultBytes = 2 << 20

// drop rounds outward to whole blocks, or the pages that came along with the first and the last would stay, and add up over
// the tensors of a file. Dropping a neighbour's page costs a fault, never data.
func (d *mappedData) drop(off, n int64) {
	if d.b == nil || n == 0 {
		return
	}
	lo := off / faultBytes * faultBytes
	hi := min((off+n+faultBytes-1)/faultBytes*faultBytes, int64(len(d.b)))
	// A system that does not take the advice keeps the pages longer; nothing else depends on it.
	_ = unix.Madvise(d.b[lo:hi], unix.MADV_DONTNEED)
}

func (d *mappedData) close() error {
	if d.b == nil {
		return nil
	}
	b := d.b
	d.b = nil
	return unix.Munmap(b)
}
