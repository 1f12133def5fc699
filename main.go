// Command mlaconvert turns an MHA or GQA checkpoint into a Multi-head Latent Attention checkpoint.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"

	"github.com/mlaconvert/mlaconvert/cmd"
	"github.com/mlaconvert/mlaconvert/internal/blas"
)

func main() {
	implementation := blas.New(0).Gonum()
	blas64.Use(implementation)
	blas32.Use(implementation)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once, which loses nothing that the journal holds
	os.Exit(cmd.Execute(ctx, os.Args[1:], cmd.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
