//go:build darwin || dragonfly || freebsd || linux

package checkpoint

import "golang.org/x/sys/unix"

// freeSpace returns the bytes that may be written to the file system of a folder; ok is false if that is unknown.
func freeSpace(dir string) (free int64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
