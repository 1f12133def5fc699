package cmd

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/mlaconvert/mlaconvert/convert"
)

// limitMemory sets up the garbage collector for the plan's prediction, and under a limit in bytes (0 for none). GOGC and
// GOMEMLIMIT in the environment have the last word. The returned function sets back what was.
func limitMemory(limit int64) (restore func()) {
	percent, most := debug.SetGCPercent(-1), debug.SetMemoryLimit(-1)
	debug.SetGCPercent(percent)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(convert.GCPercent)
	}
	if limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	return func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(most)
	}
}

// useProcessors bounds the processors that are used, 0 for all. The returned function sets back what was.
func useProcessors(jobs int) (restore func()) {
	all := runtime.GOMAXPROCS(0)
	if jobs > 0 {
		runtime.GOMAXPROCS(min(jobs, all))
	}
	return func() { runtime.GOMAXPROCS(all) }
}

// availableMemory is what this process could use without swapping, in bytes; 0 where the system does not say.
func availableMemory() int64 {
	available := kilobytes("/proc/meminfo", "MemAvailable:")
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && (available == 0 || n < available) {
			available = n
		}
	}
	return available
}

// peakMemory is the largest resident size that this process has had, in bytes; 0 where the system does not say.
func peakMemory() int64 { return kilobytes("/proc/self/status", "VmHWM:") }

// kilobytes reads a line such as "VmHWM: 1234 kB" of a file in /proc.
func kilobytes(file, field string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}
