//go:build !linux

package hugepage

// Map returns nil: there is no way to ask for huge pages here.
func Map(int) []byte { return nil }

// Unmap releases what Map returned.
func Unmap([]byte) {}
