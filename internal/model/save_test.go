package model

import (
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
)

// TestSave: a network that saves memory computes the same, and lets every weight's pages go after each product with it.
func TestSave(t *testing.T) {
	net := openSource(t, testmodel.New(testmodel.Tiny))
	ids := make([][]int, 5)
	for s := range ids {
		for i := range 20 {
			ids[s] = append(ids[s], (7*s+3*i)%net.Vocab)
		}
	}
	e := blas.New(2)
	forward := func() []float32 {
		batch := NewBatch(ids)
		x, err := net.Forward(e, &batch)
		if err != nil {
			t.Fatal(err)
		}
		runs := 0
		batch.groups(func(lo, hi int) { runs++ })
		if want := map[int]int{0: 1, 40: 3}[net.inFlight]; runs != want {
			t.Errorf("%d runs of sequences with %d tokens in flight, want %d", runs, net.inFlight, want)
		}
		return x
	}
	want := forward()
	for _, release := range []bool{true, false} {
		if err := net.Save(40, release); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(forward(), want) {
			t.Errorf("release %v: another result", release)
		}
		block, err := net.Block(1)
		if err != nil {
			t.Fatal(err)
		}
		a := block.Attention.(*GQA)
		x, y := make([]float32, 4096), make([]float32, 4096)
		for i, w := range []*Weight{&net.embed, &net.head, &a.Q, &a.K, &a.V, &a.O, &block.MLP.Gate, &block.MLP.Up, &block.MLP.Down} {
			if (w.release != nil) != release {
				t.Fatalf("weight %d: releases %v, want %v", i, !release, release)
			}
			if !release {
				continue
			}
			released := 0
			real := w.release
			w.release = func() { released++; real() }
			w.Apply(e, 2, x, w.In, 0, y, w.Out)
			w.ApplyT(e, 2, y, w.Out, 0, x, w.In)
			if w.release = real; released != 2 {
				t.Errorf("weight %d: released %d times in two products", i, released)
			}
		}
		block.Close()
	}
}
