package checkpoint

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

const removeOpen = false

func lockFile(f *os.File) error {
	// The lock is on a byte far behind the content: Windows locks keep others from reading what they cover.
	at := &windows.Overlapped{OffsetHigh: 0x7fffffff}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

func allocated(info os.FileInfo) int64 { return info.Size() }

func syncDir(string) error { return nil }

func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}
