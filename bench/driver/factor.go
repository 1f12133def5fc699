package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/svd"
)

func timeFactor(e *blas.Engine, now clock, kind string, args []string) (string, error) {
	var file string
	var rows, cols, rank int
	var tol float64
	var err error
	if kind == "truncate" {
		err = scan(args, &file, &rows, &cols, &rank, &tol)
	} else {
		err = scan(args, &file, &rows, &cols)
	}
	if err != nil {
		return "", err
	}
	a, err := readMatrix(file, rows, cols)
	if err != nil {
		return "", err
	}
	o := svd.Options{Engine: e, Tol: tol}
	start := now()
	if kind == "truncate" {
		f, err := svd.Truncate(a, rank, o)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%.6f %.17g %.17g %d", now.since(start), f.Discarded, f.Total, f.Iterations), nil
	}
	if _, err := svd.EigSym(a, o); err != nil {
		return "", err
	}
	return fmt.Sprintf("%.6f", now.since(start)), nil
}

func readMatrix(file string, rows, cols int) (svd.Matrix, error) {
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
