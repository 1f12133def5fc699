package blas

import "unsafe"

// zerosHuge is the size in bytes from which [Zeros] asks for huge pages.
const zerosHuge = 8 << 20

// Zeros returns n zeros, a large number of them on huge pages where the system
// has some: what is fresh from the system costs a fault for each page, which took
// an eighth of the time of a conversion.
func Zeros[T float32 | float64](n int) []T {
	s := make([]T, n) // fresh memory is zero, and is not touched by this
	if size := n * int(unsafe.Sizeof(T(0))); size >= zerosHuge {
		adviseHuge(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), size))
	}
	return s
}
