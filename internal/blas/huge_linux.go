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

// adviseHuge asks for huge pages under the memory of b, as far as it fills some.
// Where they are had already it does nothing.
func adviseHuge(b []byte) {
	skip := int(-uintptr(unsafe.Pointer(&b[0])) % hugePage)
	if n := (len(b) - skip) / hugePage * hugePage; n > 0 {
		_ = unix.Madvise(b[skip:skip+n], unix.MADV_HUGEPAGE)
	}
}
