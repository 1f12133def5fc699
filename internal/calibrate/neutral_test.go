package calibrate

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
)

// TestNeutral: with a latent norm in every layer and no bias the network is nearly the one without norms; the norm is no
// constant by itself, so that this is not for nothing; and the number of threads changes nothing.
func TestNeutral(t *testing.T) {
	net, a := network(t, nil)
	sequences := randomSequences(24, 48, a.Vocab)
	o := testOptions(a)
	plain, _ := calibrated(t, net, 2, sequences, o)
	for _, width := range []int{o.Rank + 1, 24, 32, 40} { // the hidden width is 32
		o.Neutral = Neutral{Width: width, Tokens: 900, Steps: 60}
		layers, reports := calibrated(t, net, 2, sequences, o)
		again, _ := calibrated(t, net, 1, sequences, o)
		if !reflect.DeepEqual(layers, again) {
			t.Errorf("width %d: the number of threads changes the weights", width)
		}
		for i, l := range layers {
			r := reports[i].Norm
			if l.OBias != nil || l.KVDownBias != nil || len(l.LatentNorm) != l.Rank || l.Rank > width || l.Rank != r.Content+r.Energy {
				t.Errorf("width %d, layer %d: rank %d, %+v", width, i, l.Rank, r)
			}
			if r.Content > o.Rank || width > o.Rank+1 && r.Content != o.Rank || r.Refit > r.Start {
				t.Errorf("width %d, layer %d: %+v", width, i, r)
			}
			// With a row for every direction only the input norm's epsilon is left.
			if most := map[int]float64{o.Rank + 1: 0.15, 24: 0.05, 32: 1e-5, 40: 1e-5}[width]; !(r.Fluctuation <= most) {
				t.Errorf("width %d, layer %d: fluctuation %g, want at most %g", width, i, r.Fluctuation, most)
			}
		}
		kl := func(layers []*model.MLA) float64 {
			return divergence(t, net, layers, sequences[len(sequences)-o.HoldOut:], 0)
		}
		// Random inputs are as far from a constant direction as they can be; trained ones are not.
		if with, without := kl(layers), kl(plain); !(with < 1.25*without) {
			t.Errorf("width %d: divergence %g with the norm, %g without", width, with, without)
		}
	}
}

// TestCarryBias: on inputs with a constant direction the bias is carried exactly but for the ridges.
func TestCarryBias(t *testing.T) {
	net, a := network(t, nil)
	layers, _ := calibrated(t, net, 1, randomSequences(12, 32, a.Vocab), testOptions(a))
	l := layers[1]
	r := rand.New(rand.NewPCG(2, 2))
	batch := model.NewBatch([][]int{make([]int, 40)})
	d := l.O.Out
	x := make([]float32, 40*d)
	for i := range x {
		x[i] = float32(r.NormFloat64())
		if i%d == 0 {
			x[i] = 3
		}
	}
	for i := range l.OBias {
		l.OBias[i] = float32(r.NormFloat64())
	}
	// A row of the latent that reads the constant.
	row := l.KVDown.F32[:d]
	clear(row)
	row[0] = 1
	want, got := make([]float32, len(x)), make([]float32, len(x))
	e := blas.New(1)
	l.Forward(e, &batch, x, want)
	without := l.Clone()
	without.OBias = nil
	without.Forward(e, &batch, x, got)
	weights := make([]float64, 40)
	for i := range weights {
		weights[i] = 1
	}
	lost := relativeError(got, want, weights)
	run := &run{engine: e, options: Options{Neutral: Neutral{Tokens: 40}}}
	data := &layerData{batch: &batch, convertedIn: x, output: want, target: want, weights: weights}
	reported, err := run.carryBias(l, data, data)
	if err != nil {
		t.Fatal(err)
	}
	if l.OBias != nil {
		t.Error("the bias is still there")
	}
	l.Forward(e, &batch, x, got)
	if e := relativeError(got, want, weights); !(e < 0.01 && lost > 0.3) || e != reported {
		t.Errorf("error %g with the carried bias, reported %g, %g without", e, reported, lost)
	}
}

// TestNarrow: cutting a latent to its own rank changes nothing, and to less it changes as little as the neighbouring ranks
// say.
func TestNarrow(t *testing.T) {
	net, a := network(t, nil)
	sequences := randomSequences(12, 32, a.Vocab)
	layers, _ := calibrated(t, net, 1, sequences, testOptions(a))
	r := &run{engine: blas.New(1), net: net, options: Options{Neutral: Neutral{Tokens: 1000}}}
	var err error
	if r.train, err = newStreams(net, model.NewBatch(sequences)); err != nil {
		t.Fatal(err)
	}
	block, err := net.Block(0)
	if err != nil {
		t.Fatal(err)
	}
	defer block.Close()
	data := r.data(block, r.train)
	l := layers[0]
	m := r.inputMoments(l, data)
	want, got := make([]float32, len(data.output)), make([]float32, len(data.output))
	l.Forward(r.engine, data.batch, data.convertedIn, want)
	last := -1.0
	for _, rank := range []int{12, 11, 10, 8, 4} {
		narrow, err := l.ToAttention().Narrow(r.engine, rank, m.covariance, m.queries)
		if err != nil {
			t.Fatal(err)
		}
		if narrow.Rank() != rank {
			t.Fatalf("rank %d, want %d", narrow.Rank(), rank)
		}
		model.FromAttention(narrow).Forward(r.engine, data.batch, data.convertedIn, got)
		e := relativeError(got, want, data.weights)
		if rank == 12 && e > 1e-5 || e <= last || e > 0.9 {
			t.Errorf("rank %d: error %g, %g before", rank, e, last)
		}
		last = e
	}
}
