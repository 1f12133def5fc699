//go:build noasm || !(amd64 || arm64)

package blas

import "github.com/mlaconvert/mlaconvert/internal/blas/isa"

func newSuite(isa.Level) *suite { return portableSuite() }
