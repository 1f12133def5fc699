//go:build unix

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is what the process has had of the processor.
var processorTime clock = func() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
