package hugepage

import (
	"runtime"
	"testing"
	"unsafe"
)

// TestMap: memory of any size is whole, zero, aligned and one's own.
func TestMap(t *testing.T) {
	if Map(1<<20-1) != nil {
		t.Error("a huge page for less than half of one")
	}
	var all [][]byte
	for _, n := range []int{1 << 20, 1<<21 - 1, 1 << 21, 1<<21 + 1, 9 << 20} {
		b := Map(n)
		if b == nil {
			if runtime.GOOS == "linux" {
				t.Fatalf("no memory of %d bytes", n)
			}
			continue
		}
		if len(b) < n || len(b) >= n+1<<21 || uintptr(unsafe.Pointer(&b[0]))%(1<<21) != 0 {
			t.Errorf("%d bytes: %d at %p", n, len(b), &b[0])
		}
		for i, v := range b {
			if v != 0 {
				t.Fatalf("%d bytes: %d at %d", n, v, i)
			}
			b[i] = byte(n)
		}
		all = append(all, b)
	}
	for _, b := range all {
		for i, v := range b {
			if v != b[0] {
				t.Fatalf("%d at %d, for %d", v, i, b[0])
			}
		}
		Unmap(b)
	}
}
