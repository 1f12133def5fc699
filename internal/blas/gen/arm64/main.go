// Command arm64 writes the NEON kernels of package blas or vec. Run it through
// go generate in internal/blas and internal/vec.
//
//	arm64 -pkg blas|vec -out FILE.s -stubs FILE.go
//
// Go's assembler knows few vector instructions of arm64; the others are encoded
// here (encode.go) and written as words, with the instruction in a comment.
package main

import (
	"flag"
	"fmt"
	"go/format"
	"os"
)

func main() {
	pkg := flag.String("pkg", "", "package to write for")
	out := flag.String("out", "", "assembly file")
	stubs := flag.String("stubs", "", "file of Go declarations")
	flag.Parse()
	f := newFile(*pkg)
	switch *pkg {
	case "blas":
		blasKernels(f)
	case "vec":
		vecKernels(f)
	default:
		fmt.Fprintf(os.Stderr, "arm64: no kernels for package %q\n", *pkg)
		os.Exit(2)
	}
	decls, err := format.Source(f.stubs.Bytes())
	if err != nil {
		fmt.Fprintln(os.Stderr, "arm64:", err)
		os.Exit(1)
	}
	for path, text := range map[string][]byte{*out: f.asm.Bytes(), *stubs: decls} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "arm64:", err)
			os.Exit(1)
		}
	}
}
