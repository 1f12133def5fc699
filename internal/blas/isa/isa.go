// Package isa chooses the vector extension that the assembly kernels use.
package isa

import (
	"fmt"
	"os"
	"sync"
)

// Level is a vector extension for which kernels exist.
type Level int

const (
	Portable Level = iota // Go without assembly
	NEON                  // arm64
	AVX2                  // amd64, with FMA
	AVX512                // amd64, F, DQ, BW and VL
)

// Variable is the environment variable that selects a level lower than the best
// one of the machine, by name: for tests and bug reports.
const Variable = "MLACONVERT_KERNEL"

var names = [...]string{Portable: "portable", NEON: "neon", AVX2: "avx2", AVX512: "avx512"}

func (l Level) String() string { return names[l] }

// Supported returns the levels that this build has kernels for and this machine
// can run, from Portable to the best one.
func Supported() []Level { return append([]Level{Portable}, detect()...) }

var active = sync.OnceValues(func() (Level, error) {
	return choose(os.Getenv(Variable), Supported())
})

// Active returns the level in use: the best one supported, or the one that the
// environment names.
func Active() Level {
	l, _ := active()
	return l
}

// Err reports an environment variable that names no level or one that this
// machine or build does not support. Active is then the best level.
func Err() error {
	_, err := active()
	return err
}

func choose(name string, supported []Level) (Level, error) {
	best := supported[len(supported)-1]
	if name == "" {
		return best, nil
	}
	for _, l := range supported {
		if l.String() == name {
			return l, nil
		}
	}
	return best, fmt.Errorf("%s=%q: want one of %v", Variable, name, supported)
}
