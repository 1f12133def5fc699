package hugepage

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const size = 2 << 20

// Map returns n bytes or, up to whole huge pages, more, zero, at a boundary of
// huge pages; or nil if n fills less than half of one or the system refuses.
// It may be that there are only small pages: that costs nothing but time.
func Map(n int) []byte {
	if n < size/2 {
		return nil
	}
	n = (n + size - 1) / size * size
	b, err := unix.MmapPtr(-1, 0, nil, uintptr(n+size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	// Give back what lies outside the boundaries. Untouched, it costs nothing
	// but addresses, so that errors do no harm here.
	skip := -uintptr(b) % size
	start := unsafe.Add(b, skip)
	if skip > 0 {
		_ = unix.MunmapPtr(b, skip)
	}
	_ = unix.MunmapPtr(unsafe.Add(start, n), size-skip)
	mapped := unsafe.Slice((*byte)(start), n)
	_ = unix.Madvise(mapped, unix.MADV_HUGEPAGE)
	return mapped
}

// Unmap releases what Map returned.
func Unmap(b []byte) { _ = unix.MunmapPtr(unsafe.Pointer(&b[0]), uintptr(len(b))) }
