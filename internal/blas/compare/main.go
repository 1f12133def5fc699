// Command compare times the products of package blas. compare.py starts it and
// asks for one product after another, so that both sides are measured in turn
// in one run.
//
// Each line of the standard input names a product and its sizes,
//
//	sgemm|dgemm|bgemm nn|nt|tn|tt m n k repeats
//	ssyrk|dsyrk|asyrk n|t n k repeats
//
// where bgemm is the product with a bfloat16 B and asyrk is SsyrkAcc. The answer
// is the seconds of each repeat: of the clock or, with -cpu, of the processor,
// which is what can be measured on a busy machine with GOMAXPROCS=1.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

func main() {
	cpu := flag.Bool("cpu", false, "measure processor time")
	flag.Parse()
	clock := func() time.Duration { return time.Duration(time.Now().UnixNano()) }
	if *cpu {
		clock = processorTime
	}
	e := blas.New(runtime.GOMAXPROCS(0))
	fmt.Println(blas.Features(), e.Threads())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var name, layout string
		f, err := parse(e, in.Text(), &name, &layout)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		// Short products are timed several at once: the clock ticks in microseconds.
		const least = 200 * time.Microsecond
		start := clock()
		f.run()
		inner := 1 + int(least/(clock()-start+time.Microsecond))
		var times []string
		for range f.repeats {
			start := clock()
			for range inner {
				f.run()
			}
			times = append(times, fmt.Sprintf("%.9f", (clock()-start).Seconds()/float64(inner)))
		}
		fmt.Println(strings.Join(times, " "))
	}
}

func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type job struct {
	repeats int
	run     func()
}

func parse(e *blas.Engine, line string, name, layout *string) (job, error) {
	var m, n, k, repeats int
	if strings.Contains(line, "gemm") {
		if _, err := fmt.Sscan(line, name, layout, &m, &n, &k, &repeats); err != nil {
			return job{}, fmt.Errorf("%q: %w", line, err)
		}
	} else {
		if _, err := fmt.Sscan(line, name, layout, &n, &k, &repeats); err != nil {
			return job{}, fmt.Errorf("%q: %w", line, err)
		}
		m = n
	}
	transA, transB := (*layout)[0] == 't', len(*layout) > 1 && (*layout)[1] == 't'
	lda, ldb := k, n
	if transA {
		lda = m
	}
	if transB {
		ldb = k
	}
	switch *name {
	case "sgemm":
		a, b, c := fill[float32](m*k), fill[float32](n*k), make([]float32, m*n)
		return job{repeats, func() { e.Sgemm(transA, transB, m, n, k, 1, a, lda, b, ldb, 0, c, n) }}, nil
	case "dgemm":
		a, b, c := fill[float64](m*k), fill[float64](n*k), make([]float64, m*n)
		return job{repeats, func() { e.Dgemm(transA, transB, m, n, k, 1, a, lda, b, ldb, 0, c, n) }}, nil
	case "bgemm":
		a, b, c := fill[float32](m*k), make([]uint16, n*k), make([]float32, m*n)
		for i := range b {
			b[i] = 0x3f80 | uint16(rand.Uint32()&0x807f)
		}
		return job{repeats, func() { e.SgemmBF16(transB, m, n, k, 1, a, lda, b, ldb, 0, c, n) }}, nil
	case "ssyrk":
		a, c := fill[float32](m*k), make([]float32, n*n)
		return job{repeats, func() { e.Ssyrk(transA, n, k, 1, a, lda, 0, c, n) }}, nil
	case "dsyrk":
		a, c := fill[float64](m*k), make([]float64, n*n)
		return job{repeats, func() { e.Dsyrk(transA, n, k, 1, a, lda, 0, c, n) }}, nil
	case "asyrk":
		a, c := fill[float32](m*k), make([]float64, n*n)
		return job{repeats, func() { e.SsyrkAcc(n, k, 1, a, n, c, n) }}, nil
	}
	return job{}, fmt.Errorf("%q: unknown product", line)
}

func fill[T float32 | float64](n int) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = T(rand.Float64() - 0.5)
	}
	return s
}
