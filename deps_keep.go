//go:build depskeep

package main

import (
	_ "github.com/dlclark/regexp2"
	_ "github.com/nlpodyssey/safetensors"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/sbinet/npyio"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/spf13/cobra"
	_ "golang.org/x/sys/cpu"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "golang.org/x/text/unicode/norm"
	_ "gonum.org/v1/gonum/mat"
	_ "gonum.org/v1/gonum/blas/gonum"
)
