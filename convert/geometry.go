package convert

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/tokens"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// Budget is the ways to spend a share of the source's cache on the latent and the rotary key.
type Budget struct {
	// Widest is the plan of a conversion in the way with the widest latent, which tells what memory is needed.
	Widest *Plan
	splits []split
}

// NewBudget lists the ways to spend at most the given share of the source's cache. The recipe is of the method [Calibrated].
func NewBudget(src *checkpoint.Source, recipe *Recipe, share float64) (*Budget, error) {
	m, err := arch.Parse(src.Config())
	if err != nil {
		return nil, err
	}
	b := &Budget{}
	if b.splits, err = splits(m, share); err != nil {
		return nil, err
	}
	r := *recipe
	r.Rank, r.RopeDim = b.splits[0].Rank, b.splits[0].RopeDim
	if b.Widest, err = NewPlan(src, r); err != nil {
		return nil, err
	}
	return b, nil
}

// Choose puts the rank and the width of the rotary key into the recipe that have the least held-out error of the attention on
// a few layers. All layers get the same: engines have no other. sequences are those of the recipe's file, or nil for the source's
// own samples, which are returned so that the conversion need not draw them again.
func (b *Budget) Choose(ctx context.Context, recipe *Recipe, sequences [][]int, s Schedule, e *blas.Engine, progress Progress) ([][]int, error) {
	m, r := b.Widest.Source, b.Widest.Recipe
	net, err := model.OpenSource(b.Widest.src, m)
	if err != nil {
		return nil, err
	}
	if err := net.Save(s.InFlight, s.Release); err != nil {
		return nil, err
	}
	if sequences == nil {
		if sequences, err = sample(ctx, e, net, r.Calibration, s.Together, nil, progress); err != nil {
			return nil, err
		}
	}
	o := calibrate.Options{Context: r.Context, HoldOut: heldOut(len(sequences))}
	pairs := m.HeadDim / 2
	var geometries []calibrate.Geometry
	var of []split
	for _, s := range b.splits {
		thetas := calibrate.Thetas(m.Rope.Theta, pairs, s.RopeDim/2)
		for _, theta := range slices.Compact([]float64{thetas[0], thetas[len(thetas)/2], thetas[len(thetas)-1]}) {
			rope, _ := targetRope(b.Widest.Engine, m, theta, s.RopeDim)
			geometries = append(geometries, calibrate.Geometry{
				Rank: s.Rank - 1, Frequencies: rope.Frequencies(s.RopeDim),
				Candidates: r.Calibration.preset(pairs, s.RopeDim/2).Candidates,
			})
			of = append(of, s)
		}
	}
	best, err := scout(ctx, "choosing rank and rotary width", e, net, sequences, geometries, o, progress)
	if err != nil {
		return nil, err
	}
	recipe.Rank, recipe.RopeDim = of[best].Rank, of[best].RopeDim
	return sequences, nil
}

// scout is the index of the geometry with the least error, found in a phase of the given name.
func scout(ctx context.Context, phase string, e *blas.Engine, net *model.Network, sequences [][]int, geometries []calibrate.Geometry, o calibrate.Options, progress Progress) (int, error) {
	progress.Phase(phase, int64(len(geometries)), "candidates")
	errs, err := calibrate.Scout(ctx, e, net, sequences, geometries, o)
	if err != nil {
		return 0, err
	}
	progress.Done(int64(len(geometries)))
	return slices.Index(errs, slices.Min(errs)), nil
}

// split is one way to spend a cache: kv_lora_rank, the constant channel included, and qk_rope_head_dim.
type split struct{ Rank, RopeDim int }

// splits are the ways worth trying: rotary keys of a quarter, a half, three quarters and all of a head's width, the latent
// taking the rest of the budget, up to what it can use.
func splits(m *arch.Model, share float64) ([]split, error) {
	total := int(math.Floor(share * float64(m.CacheFloats())))
	useful := usefulRank(m) + 1
	var out []split
	for quarter := 1; quarter <= 4; quarter++ {
		rope := m.HeadDim * quarter / 4 / 2 * 2
		if rank := min(total-rope, useful); rope > 0 && rank >= 2 {
			out = append(out, split{rank, rope})
		}
	}
	out = slices.Compact(out)
	if len(out) == 0 {
		return nil, &checkpoint.Error{
			Kind: checkpoint.Unsupported, Got: fmt.Sprintf("a cache budget of %g: %d floats per token and layer", share, total),
			Want: fmt.Sprintf("at least %d: a rotary key of %d and two rows of latent", m.HeadDim/4/2*2+2, m.HeadDim/4/2*2),
		}
	}
	return out, nil
}

// heldOut is how many of the calibration sequences decide every choice.
func heldOut(sequences int) int { return max(1, min(calibrate.MostHeldOut, sequences/10)) }

// sample lets the source write the calibration tokens, at most so many sequences together (see [calibrate.Sampling]).
func sample(ctx context.Context, e *blas.Engine, net *model.Network, c *Calibration, together int, shelf calibrate.Shelf, progress Progress) ([][]int, error) {
	start, _ := tokens.Start(&net.Shape)
	began := false
	return calibrate.SelfSamples(e, net, calibrate.Sampling{
		Tokens: c.Tokens, Window: c.Window, Start: start, Seed: c.Seed, Together: together, Shelf: shelf, Stop: ctx.Err,
		Progress: func(done, total int) {
			if !began {
				began = true
				progress.Phase("sampling calibration tokens", int64(total), ui.Unit("positions"))
			}
			progress.Done(int64(done))
		},
	})
}
