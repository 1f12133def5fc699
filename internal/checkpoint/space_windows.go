package checkpoint

import (
	"math"

	"golang.org/x/sys/windows"
)

func freeSpace(dir string) (free int64, ok bool) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, false
	}
	var mine uint64
	if err := windows.GetDiskFreeSpaceEx(path, &mine, nil, nil); err != nil {
		return 0, false
	}
	return int64(min(mine, math.MaxInt64)), true
}
