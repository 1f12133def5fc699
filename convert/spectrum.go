package convert

import (
	"context"
	"runtime"
	"slices"
	"sync"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

// Spectrum is what a layer would lose at several ranks.
type Spectrum struct {
	Layer       int     `json:"layer"`
	RotaryShare float64 `json:"rotary_share"`
	// Discarded holds, for every rank asked for, the share of the energy that its latent does not carry.
	Discarded []RankShare `json:"discarded"`
}

// RankShare is a share at a rank, which counts the constant channel as [Recipe.Rank] does.
type RankShare struct {
	Rank  int     `json:"rank"`
	Share float64 `json:"share"`
}

// SpectrumRanks are the plan's rank, its half and its double, as far as they are of use.
func (p *Plan) SpectrumRanks() []int {
	most := max(p.Recipe.Rank, p.UsefulRank()+1)
	ranks := []int{max(2, p.Recipe.Rank/2), p.Recipe.Rank, min(most, 2*p.Recipe.Rank)}
	slices.Sort(ranks)
	return slices.Compact(ranks)
}

// Spectra factors every layer, up to jobs at once, and returns what is lost at the given ranks. It reads the weights of the
// attention and writes nothing.
func (p *Plan) Spectra(ctx context.Context, ranks []int, jobs int, progress Progress) ([]Spectrum, error) {
	progress.Phase("factorizing", int64(p.Source.Layers), "layers")
	c := newDataFree(p) // a calibrated conversion keeps more at the same rank; its spectrum needs the calibration
	rank := min(slices.Max(ranks)-1, p.UsefulRank())
	engine := blas.New(max(1, runtime.GOMAXPROCS(0)/jobs))
	out := make([]Spectrum, p.Source.Layers)
	var mu sync.Mutex
	done := int64(0)
	err := inParallel(ctx, jobs, p.Source.Layers, func(_ context.Context, layer int) error {
		r, err := c.convert(engine, layer, rank, nil)
		if err != nil {
			return err
		}
		out[layer] = Spectrum{Layer: layer, RotaryShare: r.record.RotaryShare}
		for _, n := range ranks {
			out[layer].Discarded = append(out[layer].Discarded, RankShare{n, r.discardedShare(n - 1)})
		}
		mu.Lock()
		defer mu.Unlock()
		done++
		progress.Done(done)
		return nil
	})
	return out, err
}

// discardedShare is the share of the energy beyond the first n eigenvalues.
func (r *result) discardedShare(n int) float64 {
	switch {
	case r.record.Energy == 0:
		return 0
	case n >= r.record.Rank: // all that was factored, whose loss is known exactly
		return r.record.DiscardedShare
	}
	captured := 0.0
	for _, v := range r.values[:n] {
		captured += v
	}
	return max(r.record.DiscardedShare, 1-captured/r.record.Energy)
}
