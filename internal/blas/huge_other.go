//go:build !linux

package blas

func mapHuge(int) []byte { return nil }

func unmapHuge([]byte) {}
