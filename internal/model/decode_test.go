package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
)

// TestDecoder: decoding token by token from the cache gives the logits of the forward pass over the whole sequence.
func TestDecoder(t *testing.T) {
	for _, dtype := range []string{"F32", "BF16", "F16"} {
		shape := testmodel.Tiny
		shape.DType = dtype
		net := openSource(t, testmodel.New(shape))
		const sequences, length = 3, 17
		r := rand.New(rand.NewPCG(1, 1))
		ids := make([][]int, sequences)
		for s := range ids {
			for range length {
				ids[s] = append(ids[s], r.IntN(net.Vocab))
			}
		}
		batch := NewBatch(ids)
		e := blas.New(2)
		x, err := net.Forward(e, &batch)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float32, batch.Tokens()*net.Vocab)
		net.Logits(e, batch.Tokens(), x, func(lo, m int, part []float32) { copy(want[lo*net.Vocab:], part) })

		d, err := NewDecoder(e, net, sequences, length)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for pos := range length {
			column := make([]int, sequences)
			for s := range column {
				column[s] = ids[s][pos]
			}
			got, err := d.Step(column)
			if err != nil {
				t.Fatal(err)
			}
			for s := range column {
				for j, v := range got[s*net.Vocab : (s+1)*net.Vocab] {
					w := want[(s*length+pos)*net.Vocab+j]
					if math.Abs(float64(v-w)) > 2e-5 {
						t.Fatalf("%s, position %d, sequence %d, token %d: logit %g, forward pass %g", dtype, pos, s, j, v, w)
					}
				}
			}
		}
		if _, err := d.Step(make([]int, sequences)); err == nil {
			t.Error("decoded past the cache")
		}
	}
}

// TestDraw: frequencies follow the softmax.
func TestDraw(t *testing.T) {
	logits := []float32{0, 1, float32(math.Inf(-1)), -1}
	r := rand.New(rand.NewPCG(2, 2))
	const n = 200000
	counts := make([]float64, len(logits))
	for range n {
		counts[draw(r, slices.Clone(logits))]++
	}
	z := 1 + math.E + 1/math.E
	for i, want := range []float64{1 / z, math.E / z, 0, 1 / math.E / z} {
		if d := math.Abs(counts[i]/n - want); d > 5*math.Sqrt(want/n) {
			t.Errorf("token %d: frequency %g, want %g", i, counts[i]/n, want)
		}
	}
}
