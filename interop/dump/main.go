// Command dump writes the logits of this module's own forward pass, for comparison with other engines:
//
//	dump DIR ids.npy logits.npy
//
// DIR is a source checkpoint or a converted one; ids.npy holds int32 token ids [sequences, length]. The output is
// float32, flat in the order [sequences, length, vocab].
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/sbinet/npyio"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: dump DIR ids.npy logits.npy")
		os.Exit(64)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintf(os.Stderr, "dump: error: %v\n", err)
		os.Exit(1)
	}
}

func run(dir, idsFile, logitsFile string) (err error) {
	sequences, err := readIDs(idsFile)
	if err != nil {
		return fmt.Errorf("%s: %w", idsFile, err)
	}
	src, err := checkpoint.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	net, err := open(src)
	if err != nil {
		return err
	}
	batch := model.NewBatch(sequences)
	engine := blas.New(0)
	x, err := net.Forward(engine, &batch)
	if err != nil {
		return err
	}
	all := make([]float32, batch.Tokens()*net.Vocab)
	net.Logits(engine, batch.Tokens(), x, func(lo, _ int, logits []float32) {
		copy(all[lo*net.Vocab:], logits)
	})
	return writeLogits(logitsFile, all)
}

// open prepares the network of a converted checkpoint or, where the configuration is none of those, of a source.
func open(src *checkpoint.Source) (*model.Network, error) {
	converted, mlaErr := arch.ParseMLA(src.Config())
	if mlaErr == nil {
		return model.OpenMLA(src, converted)
	}
	source, err := arch.Parse(src.Config())
	if err != nil {
		return nil, errors.Join(mlaErr, err)
	}
	return model.OpenSource(src, source)
}

func readIDs(name string) ([][]int, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := npyio.NewReader(f)
	if err != nil {
		return nil, err
	}
	shape := r.Header.Descr.Shape
	if len(shape) != 2 || r.Header.Descr.Fortran {
		return nil, fmt.Errorf("found shape %v, expected [sequences, length] in C order", shape)
	}
	var flat []int32
	if err := r.Read(&flat); err != nil {
		return nil, err
	}
	sequences := make([][]int, shape[0])
	for i := range sequences {
		for _, id := range flat[i*shape[1] : (i+1)*shape[1]] {
			sequences[i] = append(sequences[i], int(id))
		}
	}
	return sequences, nil
}

func writeLogits(name string, logits []float32) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(npyio.Write(f, logits), f.Close())
}
