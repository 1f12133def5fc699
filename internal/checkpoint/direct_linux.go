package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// openDirect opens f, a file that is open for writing, once more for writing past the page cache, or returns nil where its
// file system does not say that it can.
func openDirect(f *os.File) *os.File {
	var s unix.Statx_t
	if unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &s) != nil || s.Mask&unix.STATX_DIOALIGN == 0 {
		return nil
	}
	for _, a := range []uint32{s.Dio_mem_align, s.Dio_offset_align} {
		if a == 0 || directAlign%a != 0 {
			return nil
		}
	}
	d, err := os.OpenFile(f.Name(), os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	return d
}
