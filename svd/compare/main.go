// Command compare times the factorizations of package svd. compare.py starts
// it and asks for one after another, so that both sides are measured in turn in
// one run.
//
// Each line of the standard input is one of
//
//	truncate FILE rows cols rank tol    FILE holds rows*cols float64, little-endian
//	eigsym FILE n n
//
// and the answer the seconds it took, of the clock or, with -cpu, of the
// processor, which is what can be measured on a busy machine with GOMAXPROCS=1. For
// truncate the discarded and the total energy and the number of blocks follow.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
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
		answer, err := run(e, in.Text(), clock)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(answer)
	}
}

func run(e *blas.Engine, line string, clock func() time.Duration) (string, error) {
	var job, file string
	var rows, cols, rank int
	var tol float64
	if n, err := fmt.Sscan(line, &job, &file, &rows, &cols, &rank, &tol); n < 4 {
		return "", fmt.Errorf("%q: %w", line, err)
	}
	a, err := read(file, rows, cols)
	if err != nil {
		return "", err
	}
	opt := svd.Options{Engine: e, Tol: tol}
	start := clock()
	switch job {
	case "truncate":
		f, err := svd.Truncate(a, rank, opt)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%.6f %.17g %.17g %d", (clock() - start).Seconds(), f.Discarded, f.Total, f.Iterations), nil
	case "eigsym":
		if _, err := svd.EigSym(a, opt); err != nil {
			return "", err
		}
		return fmt.Sprintf("%.6f", (clock() - start).Seconds()), nil
	}
	return "", fmt.Errorf("%q: no such job", line)
}

func read(file string, rows, cols int) (svd.Matrix, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return svd.Matrix{}, err
	}
	if len(raw) != 8*rows*cols {
		return svd.Matrix{}, fmt.Errorf("%s: %d bytes, expected %d x %d float64", file, len(raw), rows, cols)
	}
	a := svd.NewMatrix(rows, cols)
	for i := range a.Data {
		a.Data[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return a, nil
}

func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
