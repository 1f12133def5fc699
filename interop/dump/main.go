// Command dump writes what this module computes and tokenizes by itself, for comparison with other engines:
//
//	dump [FLAG...] DIR ids.npy logits.npy
//
// DIR is a source checkpoint or a converted one; ids.npy holds int32 token ids [sequences, length]. logits.npy is
// float32, flat in the order [sequences, length, vocab].
//
//	--greedy FILE    write the N most probable tokens, one after the other, that continue the first half of each sequence:
//	                 int32, flat in the order [sequences, N]
//	--new N          how many (default 16)
//	--engine NAME    compute a converted checkpoint as this engine does (default transformers)
//	--texts FILE     tokenize the texts of a JSON list, without special tokens around them,
//	--tokens FILE    and write a line {"text", "ids"} for each
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sbinet/npyio"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/engine"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/tokenizer"
)

type options struct {
	dir, ids, logits string
	greedy           string
	tokens           int
	engine           string
	texts, textIDs   string
}

func main() {
	var o options
	flag.StringVar(&o.greedy, "greedy", "", "`FILE` for greedy continuations")
	flag.IntVar(&o.tokens, "new", 16, "tokens of a continuation")
	flag.StringVar(&o.engine, "engine", engine.Default, "the engine to compute as")
	flag.StringVar(&o.texts, "texts", "", "`FILE` with texts to tokenize")
	flag.StringVar(&o.textIDs, "tokens", "", "`FILE` for their ids")
	flag.Parse()
	if flag.NArg() != 3 {
		fmt.Fprintln(os.Stderr, "usage: dump [FLAG...] DIR ids.npy logits.npy")
		os.Exit(64)
	}
	o.dir, o.ids, o.logits = flag.Arg(0), flag.Arg(1), flag.Arg(2)
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "dump: error: %v\n", err)
		os.Exit(1)
	}
}

func run(o options) (err error) {
	sequences, err := readIDs(o.ids)
	if err != nil {
		return fmt.Errorf("%s: %w", o.ids, err)
	}
	src, err := checkpoint.Open(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	net, err := open(src, o.engine)
	if err != nil {
		return err
	}
	kernels := blas.New(0)
	logits, err := forward(kernels, net, sequences)
	if err != nil {
		return err
	}
	if err := write(o.logits, logits); err != nil {
		return err
	}
	if o.greedy != "" {
		ids, err := continueGreedily(kernels, net, sequences, o.tokens)
		if err != nil {
			return err
		}
		if err := write(o.greedy, ids); err != nil {
			return err
		}
	}
	if o.texts != "" {
		return tokenize(filepath.Join(o.dir, "tokenizer.json"), o.texts, o.textIDs)
	}
	return nil
}

// open prepares the network of a converted checkpoint or, where the configuration is none of those, of a source.
func open(src *checkpoint.Source, name string) (*model.Network, error) {
	converted, mlaErr := arch.ParseMLA(src.Config())
	if mlaErr == nil {
		e := engine.Lookup(name)
		if e == nil {
			return nil, fmt.Errorf("engine %q: expected one of %v", name, engine.Names())
		}
		converted.LatentEps = e.Eps(&converted.Shape)
		return model.OpenMLA(src, converted)
	}
	source, err := arch.Parse(src.Config())
	if err != nil {
		return nil, errors.Join(mlaErr, err)
	}
	return model.OpenSource(src, source)
}

// forward returns the logits behind every token, [sequences, length, vocab].
func forward(kernels *blas.Engine, net *model.Network, sequences [][]int) ([]float32, error) {
	batch := model.NewBatch(sequences)
	x, err := net.Forward(kernels, &batch)
	if err != nil {
		return nil, err
	}
	all := make([]float32, batch.Tokens()*net.Vocab)
	net.Logits(kernels, batch.Tokens(), x, func(lo, _ int, logits []float32) {
		copy(all[lo*net.Vocab:], logits)
	})
	return all, nil
}

// continueGreedily returns n tokens for every sequence, [sequences, n]. Without a cache: the whole text is computed anew for
// every token.
func continueGreedily(kernels *blas.Engine, net *model.Network, sequences [][]int, n int) ([]int32, error) {
	texts := make([][]int, len(sequences))
	for i, s := range sequences {
		texts[i] = append([]int{}, s[:len(s)/2]...)
	}
	out := make([]int32, len(texts)*n)
	for step := range n {
		logits, err := forward(kernels, net, texts)
		if err != nil {
			return nil, err
		}
		for i, text := range texts {
			last := logits[((i+1)*len(text)-1)*net.Vocab:][:net.Vocab]
			best := 0
			for t, v := range last {
				if v > last[best] {
					best = t
				}
			}
			texts[i] = append(text, best)
			out[i*n+step] = int32(best)
		}
	}
	return out, nil
}

func tokenize(file, from, to string) error {
	t, err := tokenizer.Load(file)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var texts []string
	if err := json.Unmarshal(b, &texts); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(f)
	for _, text := range texts {
		ids, err := t.Encode(text, false)
		if err == nil {
			err = lines.Encode(map[string]any{"text": text, "ids": append([]int{}, ids...)})
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
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

// write writes a flat array.
func write[T float32 | int32](name string, values []T) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(npyio.Write(f, values), f.Close())
}
