package blas

import "gonum.org/v1/gonum/blas/gonum"

// Gonum is an implementation of gonum's BLAS interfaces in which the routines
// that take most of the time run on an Engine.
type Gonum struct {
	gonum.Implementation
	engine *Engine
}

// Gonum returns an implementation for blas64.Use and blas32.Use that runs on e.
func (e *Engine) Gonum() Gonum { return Gonum{engine: e} }
