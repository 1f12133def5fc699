//go:build !linux

package blas

func mapHuge(int) []byte { return nil }

func unmapHuge([]byte) {}

// adviseHuge does nothing.
func adviseHuge([]byte) {}
