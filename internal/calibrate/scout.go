package calibrate

import (
	"context"
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/mla"
)

// Geometry is one way to spend the cache: the width of the latent's content and the frequencies of the rotary key, with the
// factorizations to try.
type Geometry struct {
	Rank        int
	Frequencies []float64
	Candidates  []mla.Candidate
}

const (
	// ScoutLayers is how many layers, spread over the depth, are tried with every geometry.
	ScoutLayers = 6
	// ScoutTokens bounds the tokens that their statistics come from.
	ScoutTokens = 4096
)

// Scout tries every geometry with every candidate on a few layers and returns the mean squared isolated errors on
// held-out tokens, the best candidate's in each layer, one figure for each geometry.
func Scout(ctx context.Context, e *blas.Engine, net *model.Network, sequences [][]int, geometries []Geometry, o Options) ([]float64, error) {
	train, hold, err := split(sequences, o.HoldOut)
	if err != nil {
		return nil, err
	}
	part, _ := statisticsPart(&train, ScoutTokens)
	streams := [2][]float32{}
	batches := [2]*model.Batch{&part, &hold}
	for i, b := range batches {
		var err error
		if streams[i], err = net.Embed(b); err != nil {
			return nil, err
		}
	}
	sums := make([]float64, len(geometries))
	step := max(1, net.Layers/ScoutLayers)
	for layer := 0; layer < net.Layers; layer++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		block, err := net.Block(layer)
		if err != nil {
			return nil, err
		}
		var data [2]*layerData
		for i, b := range batches {
			data[i] = isolatedData(e, block, b, streams[i])
		}
		if layer%step == step/2 {
			if err := scoutLayer(e, block, data[0], data[1], geometries, o, sums); err != nil {
				return nil, fmt.Errorf("layer %d: %w", layer, err)
			}
		}
		for i, b := range batches {
			model.Add(e, streams[i], data[i].output)
			block.ForwardMLP(e, b.Tokens(), streams[i])
		}
		block.Close()
	}
	return sums, nil
}

// split returns the sequences that are seen and the last ones, so many, that are held out.
func split(sequences [][]int, held int) (see, hold model.Batch, err error) {
	cut := len(sequences) - held
	if cut < 1 || held < 1 {
		return see, hold, fmt.Errorf("%d calibration sequences, want more than the %d held out", len(sequences), held)
	}
	if id, alike := Alike(sequences[:cut]); alike {
		return see, hold, fmt.Errorf("the calibration tokens are all of id %d, want text that varies", id)
	}
	return model.NewBatch(sequences[:cut]), model.NewBatch(sequences[cut:]), nil
}

// Alike reports whether there are tokens and all are of one id, of which nothing can be learnt.
func Alike(sequences [][]int) (id int, alike bool) {
	for _, s := range sequences {
		for _, t := range s {
			if alike && t != id {
				return 0, false
			}
			id, alike = t, true
		}
	}
	return id, alike
}

// isolatedData is a layer's input and output in the source alone.
func isolatedData(e *blas.Engine, block *model.Block, b *model.Batch, x []float32) *layerData {
	t := &layerData{batch: b, sourceIn: make([]float32, len(x)), output: make([]float32, len(x))}
	model.RMSNorm(e, b.Tokens(), x, block.AttnNorm, block.Eps, t.sourceIn)
	block.Attention.Forward(e, b, t.sourceIn, t.output)
	after := append([]float32(nil), x...)
	model.Add(e, after, t.output)
	t.weights = tokenWeights(after, block.Hidden)
	return t
}

func scoutLayer(e *blas.Engine, block *model.Block, train, hold *layerData, geometries []Geometry, o Options, sums []float64) error {
	source, ok := block.Attention.(*model.GQA)
	if !ok {
		return fmt.Errorf("attention is %T, want a source's", block.Attention)
	}
	layer, rank := sourceLayer(source), 0
	for _, g := range geometries {
		rank = max(rank, g.Rank)
	}
	st, err := layerStatistics(e, source, layer, train.batch, train.sourceIn, rank, o.Context)
	if err != nil {
		return err
	}
	for i, g := range geometries {
		best, err := bestFit(e, layer, st, g.Rank, g.Frequencies, g.Candidates, hold)
		if err != nil {
			return err
		}
		sums[i] += best.err * best.err
	}
	return nil
}
