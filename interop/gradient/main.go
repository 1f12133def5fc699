// Command gradient writes a random MLA attention, its inputs and the gradient that this module computes by hand, for
// comparison with automatic differentiation:
//
//	gradient DIR
//
// The loss is the inner product of the attention's output with a fixed target. Arrays are float32 .npy files, flat;
// shapes.json gives their shapes and the attention's dimensions.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/sbinet/npyio"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gradient DIR")
		os.Exit(64)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "gradient: error: %v\n", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	const hidden = 24
	a := &model.MLA{Heads: 3, NoPEDim: 8, RopeDim: 6, VDim: 10, Rank: 7, Frequencies: []float64{1, 0.3, 0.02}}
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		return x
	}
	weight := func(out, in int) model.Weight { return model.NewWeight(out, in, random(out*in)) }
	a.Q = weight(a.Heads*(a.NoPEDim+a.RopeDim), hidden)
	a.KVDown = weight(a.Rank+a.RopeDim, hidden)
	a.KVUp = weight(a.Heads*(a.NoPEDim+a.VDim), a.Rank)
	a.O = weight(hidden, a.Heads*a.VDim)
	a.OBias = random(hidden)
	lengths := []int{5, 150} // the second has two blocks of queries
	var sequences [][]int
	for _, n := range lengths {
		sequences = append(sequences, make([]int, n))
	}
	batch := model.NewBatch(sequences)
	input, target := random(batch.Tokens()*hidden), random(batch.Tokens()*hidden)
	for i := range input {
		input[i] *= 0.2 // softmax that is neither flat nor a single token
	}

	g := model.NewMLAGradient(a)
	byInput := make([]float32, len(input))
	a.Begin(blas.New(0), &batch, input).Backward(target, g, byInput)

	shapes := map[string][]int{}
	write := func(name string, data []float32, shape ...int) error {
		shapes[name] = shape
		f, err := os.Create(filepath.Join(dir, name+".npy"))
		if err != nil {
			return err
		}
		if err := npyio.Write(f, data); err != nil {
			f.Close()
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		return f.Close()
	}
	for _, w := range []struct {
		name         string
		values, grad []float32
		shape        []int
	}{
		{"q", a.Q.F32, g.Q, []int{a.Q.Out, a.Q.In}},
		{"kv_down", a.KVDown.F32, g.KVDown, []int{a.KVDown.Out, a.KVDown.In}},
		{"kv_up", a.KVUp.F32, g.KVUp, []int{a.KVUp.Out, a.KVUp.In}},
		{"o", a.O.F32, g.O, []int{a.O.Out, a.O.In}},
		{"o_bias", a.OBias, g.OBias, []int{hidden}},
		{"input", input, byInput, []int{batch.Tokens(), hidden}},
	} {
		if err := write(w.name, w.values, w.shape...); err != nil {
			return err
		}
		if err := write(w.name+".grad", w.grad, w.shape...); err != nil {
			return err
		}
	}
	if err := write("target", target, batch.Tokens(), hidden); err != nil {
		return err
	}
	text, err := json.Marshal(map[string]any{
		"shapes": shapes, "lengths": lengths, "frequencies": a.Frequencies,
		"heads": a.Heads, "nope": a.NoPEDim, "rope": a.RopeDim, "v": a.VDim, "rank": a.Rank,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "shapes.json"), text, 0o644)
}
