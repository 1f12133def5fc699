package cmd

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// Main runs the program on the process's arguments, streams and signals, and returns its exit code.
func Main() int {
	implementation := blas.New(0).Gonum()
	blas64.Use(implementation)
	blas32.Use(implementation)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once, which loses nothing that the journal holds
	return Execute(ctx, os.Args[1:], Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}
