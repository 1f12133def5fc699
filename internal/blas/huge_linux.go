package blas

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20

// mapHuge maps n bytes, rounded up to huge pages, or returns nil if n fills less
// than half of one or the system refuses.
func mapHuge(n int) []byte {
	if n < hugePage/2 {
		return nil
	}
	n = roundUp(n, hugePage)
	b, err := unix.MmapPtr(-1, 0, nil, uintptr(n+hugePage), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	// Give back what lies outside the boundaries of huge pages. Untouched, it
	// costs nothing but addresses, nor do small pages cost more than time, so
	// that errors do no harm here.
	skip := -uintptr(b) % hugePage
	start := unsafe.Add(b, skip)
	if skip > 0 {
		_ = unix.MunmapPtr(b, skip)
	}
	_ = unix.MunmapPtr(unsafe.Add(start, n), hugePage-skip)
	mapped := unsafe.Slice((*byte)(start), n)
	_ = unix.Madvise(mapped, unix.MADV_HUGEPAGE)
	return mapped
}

// unmapHuge releases what mapHuge returned.
func unmapHuge(b []byte) { _ = unix.MunmapPtr(unsafe.Pointer(&b[0]), uintptr(len(b))) }
