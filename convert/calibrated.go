package convert

import (
	"context"
	"errors"
	"fmt"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// calibrated is the method [Calibrated]. All layers are converted together, before the first is written: each is fitted
// behind those before it, and the correction at the end moves them all.
type calibrated struct {
	plan    *Plan
	options *RunOptions
	layers  []*model.MLA
	reports []calibrate.LayerReport
}

func (c *calibrated) prepare(ctx context.Context, e *blas.Engine, progress Progress) error {
	p, recipe := c.plan, c.plan.Recipe.Calibration
	net, err := model.OpenSource(p.src, p.Source)
	if err != nil {
		return err
	}
	if err := net.Save(c.options.Schedule.InFlight, c.options.Schedule.Release); err != nil {
		return err
	}
	sequences := c.options.Calibration
	if sequences == nil {
		if sequences, err = sample(ctx, e, net, recipe, c.options.Schedule.Together, progress); err != nil {
			return err
		}
	}
	slots := p.Recipe.RopeDim / 2
	o := calibrate.Preset(recipe.Effort, p.Source.HeadDim/2, slots)
	o.Rank, o.Context, o.Seed = p.ContentRank(), p.Recipe.Context, recipe.Seed
	o.HoldOut, o.Recompute = heldOut(len(sequences)), c.options.Schedule.Recompute
	if recipe.Source != CalibrationSelf {
		for i := range o.Distill {
			o.Distill[i].Share = 0 // what people write repeats itself
		}
	}
	if !p.Target.Bias {
		o.Neutral.Width = p.Target.Rank
	}
	o.Progress = stepProgress(progress)
	if err := c.chooseTheta(ctx, e, net, sequences, &o, progress); err != nil {
		return err
	}
	c.layers, c.reports, err = calibrate.Run(ctx, e, net, sequences, o)
	return err
}

// chooseTheta sets the rotary base of the target, and with it the frequencies of the slots, by trying the candidates on a
// few layers.
func (c *calibrated) chooseTheta(ctx context.Context, e *blas.Engine, net *model.Network, sequences [][]int, o *calibrate.Options, progress Progress) error {
	rope := c.plan.Source.Rope
	slots := c.plan.Recipe.RopeDim / 2
	thetas := calibrate.Thetas(rope.Theta, c.plan.Source.HeadDim/2, slots)
	var geometries []calibrate.Geometry
	for _, theta := range thetas {
		r, _ := c.plan.targetRope(theta)
		geometries = append(geometries, calibrate.Geometry{Rank: o.Rank, Frequencies: r.Frequencies(2 * slots), Candidates: o.Candidates})
	}
	best := 0
	if len(thetas) > 1 {
		var err error
		if best, err = scout(ctx, "choosing the rotary base", e, net, sequences, geometries, *o, progress); err != nil {
			return err
		}
	}
	c.plan.setTheta(thetas[best])
	o.Frequencies = geometries[best].Frequencies
	return nil
}

// stepProgress turns the steps of a calibration into phases.
func stepProgress(progress Progress) func(calibrate.Step) {
	phase := ""
	return func(s calibrate.Step) {
		name, unit := "", "steps"
		switch s.Name {
		case "layer":
			name, unit = "calibrating", "layers"
		case "polish":
			name = fmt.Sprintf("polishing layers from %d on", s.Layer)
		case "distill":
			name = "correcting all layers together"
		case "distill long":
			name = "correcting all layers together, in long texts"
		case "neutral":
			name, unit = "neutralising the latent norm", "layers"
		default:
			return
		}
		if phase != name {
			phase = name
			progress.Phase(name, int64(s.Total), ui.Unit(unit))
		}
		progress.Done(int64(s.Done))
	}
}

func (c *calibrated) convert(_ *blas.Engine, layer, rank int) (*result, error) {
	if c.layers == nil {
		return nil, errors.New("calibrated layers asked for before the calibration")
	}
	// The layout brings its own norm.
	withoutNorm := *c.layers[layer]
	withoutNorm.LatentNorm = nil
	a := withoutNorm.ToAttention()
	report := c.reports[layer]
	content := a.Rank()
	if report.Norm != nil {
		content = report.Norm.Content
	}
	if content != rank && (report.Norm == nil || content > rank) {
		return nil, fmt.Errorf("layer %d: calibrated at rank %d, asked for %d", layer, content, rank)
	}
	gamma, err := loadInputNorm(c.plan, layer)
	if err != nil {
		return nil, err
	}
	return &result{attention: a, inputNorm: gamma, record: Layer{Layer: layer, Rank: content, Calibration: &report}}, nil
}
