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

// TestShortSequences: a sequence of fewer tokens than products sum in one order from goes through attention with others, whatever
// is in flight.
func TestShortSequences(t *testing.T) {
	net := openSource(t, testmodel.New(testmodel.Tiny))
	e := blas.New(2)
	for _, c := range []struct {
		lengths []int
		want    [][2]int // of 512 tokens
	}{
		{[]int{512, 10, 512}, [][2]int{{0, 1}, {1, 3}}},
		{[]int{10, 512, 512, 3}, [][2]int{{0, 2}, {2, 4}}},
		{[]int{512, 5, 5, 5, 512, 16, 1}, [][2]int{{0, 1}, {1, 5}, {5, 7}}},
		{[]int{512, 256, 256, 17, 600, 64}, [][2]int{{0, 1}, {1, 3}, {3, 4}, {4, 5}, {5, 6}}},
		{[]int{7, 3}, [][2]int{{0, 2}}},
	} {
		ids := make([][]int, len(c.lengths))
		for s, n := range c.lengths {
			for i := range n {
				ids[s] = append(ids[s], (7*s+3*i)%net.Vocab)
			}
		}
		batch := NewBatch(ids)
		if got := batch.Runs(512); !slices.Equal(got, c.want) {
			t.Errorf("%v: runs %v, want %v", c.lengths, got, c.want)
		}
		var all [][]float32
		for _, inFlight := range []int{0, 512, 4} {
			if err := net.Save(inFlight, false); err != nil {
				t.Fatal(err)
			}
			x, err := net.Forward(e, &batch)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, x)
		}
		if !slices.Equal(all[0], all[1]) || !slices.Equal(all[0], all[2]) {
			t.Errorf("%v: other results with fewer tokens in flight", c.lengths)
		}
	}
}
