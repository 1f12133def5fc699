package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// timeProduct answers with the seconds of each repeat. Short products are timed several at once: the clock of the processor
// ticks in microseconds.
func timeProduct(e *blas.Engine, now clock, kind string, args []string) (string, error) {
	run, repeats, err := product(e, kind, args)
	if err != nil {
		return "", err
	}
	const least = 200 * time.Microsecond
	start := now()
	run()
	inner := 1 + int(least/(now()-start+time.Microsecond))
	var times []string
	for range repeats {
		start := now()
		for range inner {
			run()
		}
		times = append(times, fmt.Sprintf("%.9f", now.since(start)/float64(inner)))
	}
	return strings.Join(times, " "), nil
}

func product(e *blas.Engine, kind string, args []string) (run func(), repeats int, err error) {
	var layout string
	var m, n, k int
	if strings.HasSuffix(kind, "gemm") {
		err = scan(args, &layout, &m, &n, &k, &repeats)
	} else {
		err = scan(args, &layout, &n, &k, &repeats)
		m = n
	}
	if err != nil {
		return nil, 0, err
	}
	transA, transB := layout[0] == 't', len(layout) > 1 && layout[1] == 't'
	lda, ldb := k, n
	if transA {
		lda = m
	}
	if transB {
		ldb = k
	}
	switch kind {
	case "sgemm":
		a, b, c := fill[float32](m*k), fill[float32](n*k), make([]float32, m*n)
		run = func() { e.Sgemm(transA, transB, m, n, k, 1, a, lda, b, ldb, 0, c, n) }
	case "dgemm":
		a, b, c := fill[float64](m*k), fill[float64](n*k), make([]float64, m*n)
		run = func() { e.Dgemm(transA, transB, m, n, k, 1, a, lda, b, ldb, 0, c, n) }
	case "bgemm":
		a, b, c := fill[float32](m*k), make([]uint16, n*k), make([]float32, m*n)
		for i := range b {
			b[i] = 0x3f80 | uint16(rand.Uint32()&0x807f)
		}
		run = func() { e.SgemmBF16(transB, m, n, k, 1, a, lda, b, ldb, 0, c, n) }
	case "ssyrk":
		a, c := fill[float32](m*k), make([]float32, n*n)
		run = func() { e.Ssyrk(transA, n, k, 1, a, lda, 0, c, n) }
	case "dsyrk":
		a, c := fill[float64](m*k), make([]float64, n*n)
		run = func() { e.Dsyrk(transA, n, k, 1, a, lda, 0, c, n) }
	case "asyrk":
		a, c := fill[float32](m*k), make([]float64, n*n)
		run = func() { e.SsyrkAcc(n, k, 1, a, n, c, n) }
	}
	return run, repeats, nil
}

func fill[T float32 | float64](n int) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = T(rand.Float64() - 0.5)
	}
	return s
}
