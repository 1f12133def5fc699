package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/tokens"
)

// timeNetwork runs a source model. Opening it is not timed; reading its weights is, as they are mapped.
func timeNetwork(e *blas.Engine, now clock, kind string, args []string) (string, error) {
	var dir, file string
	var sequences, length int
	var seed uint64
	to := []any{&dir, &file, &sequences, &length}
	if kind == "sample" {
		to = append(to, &seed)
	}
	if err := scan(args, to...); err != nil {
		return "", err
	}
	src, err := checkpoint.Open(dir)
	if err != nil {
		return "", err
	}
	defer src.Close()
	parsed, err := arch.Parse(src.Config())
	if err != nil {
		return "", err
	}
	net, err := model.OpenSource(src, parsed)
	if err != nil {
		return "", err
	}
	if kind == "sample" {
		return timeSampling(e, now, net, file, sequences, length, seed)
	}
	ids, err := readIDs(file, sequences, length)
	if err != nil {
		return "", err
	}
	batch := model.NewBatch(ids)
	start := now()
	x, err := net.Forward(e, &batch)
	if err != nil || kind == "forward" {
		return fmt.Sprintf("%.6f", now.since(start)), err
	}
	squares := 0.0
	net.Logits(e, batch.Tokens(), x, func(lo, m int, logits []float32) {
		if lo == 0 { // the first slice will do for a comparison, and all would be timed
			for _, v := range logits[:net.Vocab] {
				squares += float64(v) * float64(v) / float64(net.Vocab)
			}
		}
	})
	return fmt.Sprintf("%.6f %.9g", now.since(start), squares), nil
}

func timeSampling(e *blas.Engine, now clock, net *model.Network, file string, sequences, length int, seed uint64) (string, error) {
	first, _ := tokens.Start(&net.Shape)
	start := now()
	ids, err := model.Sample(e, net, model.SampleOptions{Sequences: sequences, Length: length, Start: first, Seed: seed})
	if err != nil {
		return "", err
	}
	seconds := now.since(start)
	var raw []byte
	for _, s := range ids {
		for _, id := range s {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(id))
		}
	}
	return fmt.Sprintf("%.6f", seconds), os.WriteFile(file, raw, 0o644)
}

func readIDs(file string, sequences, length int) ([][]int, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if len(raw) != 4*sequences*length {
		return nil, fmt.Errorf("%s: %d bytes, expected %d x %d int32", file, len(raw), sequences, length)
	}
	ids := make([][]int, sequences)
	for s := range ids {
		ids[s] = make([]int, length)
		for i := range ids[s] {
			ids[s][i] = int(binary.LittleEndian.Uint32(raw[4*(s*length+i):]))
		}
	}
	return ids, nil
}
