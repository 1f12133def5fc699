//go:build !noasm

package isa

import "golang.org/x/sys/cpu"

func detect() []Level {
	if cpu.ARM64.HasASIMD {
		return []Level{NEON}
	}
	return nil
}
