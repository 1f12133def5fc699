package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// calibrated is the method [Calibrated]. All layers are converted together, before the first is written: each is fitted
// behind those before it, and the correction at the end moves them all.
type calibrated struct {
	plan    *Plan
	options *RunOptions
	writer  *checkpoint.Writer
	layers  []*model.MLA
	reports []calibrate.LayerReport
}

// rotaryBase is the journal's name for the rotary base that was chosen, its decimal digits.
const rotaryBase = "rotary base"

// keepEvery is how much of a descent an interruption may cost.
const keepEvery = 10 * time.Minute

// shelf keeps the parts of a calibration with the unfinished output. Where the disk has no room for that, nothing is kept.
type shelf struct{ *checkpoint.Writer }

func (s shelf) Keep(name string, write func(io.Writer) error) error {
	err := s.Writer.Keep(name, write)
	if diskFull(err) {
		return nil
	}
	return err
}

func (c *calibrated) prepare(ctx context.Context, e *blas.Engine, progress Progress, left int) error {
	p, recipe := c.plan, c.plan.Recipe.Calibration
	chosen, known := c.writer.Done(rotaryBase)
	if known {
		theta, err := strconv.ParseFloat(string(chosen), 64)
		if err != nil {
			return fmt.Errorf("journal: %s: %w", rotaryBase, err)
		}
		p.setTheta(theta)
		if left == 0 {
			return nil
		}
	}
	net, err := model.OpenSource(p.src, p.Source)
	if err != nil {
		return err
	}
	if err := net.Save(c.options.Schedule.InFlight, c.options.Schedule.Release); err != nil {
		return err
	}
	sequences := c.options.Calibration
	if sequences == nil {
		if sequences, err = sample(ctx, e, net, recipe, c.options.Schedule.Together, shelf{c.writer}, progress); err != nil {
			return err
		}
	}
	slots := p.Recipe.RopeDim / 2
	o := recipe.preset(p.Source.HeadDim/2, slots)
	o.Rank, o.Context, o.Seed = p.ContentRank(), p.Recipe.Context, recipe.Seed
	o.HoldOut, o.Recompute = heldOut(len(sequences)), c.options.Schedule.Recompute
	if !p.Target.Bias {
		o.Neutral.Width = p.Target.Rank
	}
	o.Progress, o.Shelf, o.KeepEvery = stepProgress(progress), shelf{c.writer}, keepEvery
	if !known {
		theta, err := c.chooseTheta(ctx, e, net, sequences, o, progress)
		if err != nil {
			return err
		}
		if err := c.writer.MarkDone(rotaryBase, strconv.AppendFloat(nil, theta, 'g', -1, 64)); err != nil {
			return err
		}
		p.setTheta(theta)
	}
	o.Frequencies = p.Target.Rope.Frequencies(2 * slots)
	c.layers, c.reports, err = calibrate.Run(ctx, e, net, sequences, o)
	return err
}

// chooseTheta returns the rotary base of the target, and with it the frequencies of the slots, by trying the candidates on a
// few layers.
func (c *calibrated) chooseTheta(ctx context.Context, e *blas.Engine, net *model.Network, sequences [][]int, o calibrate.Options, progress Progress) (float64, error) {
	rope := c.plan.Source.Rope
	slots := c.plan.Recipe.RopeDim / 2
	thetas := calibrate.Thetas(rope.Theta, c.plan.Source.HeadDim/2, slots)
	if len(thetas) == 1 {
		return thetas[0], nil
	}
	var geometries []calibrate.Geometry
	for _, theta := range thetas {
		r, _ := c.plan.targetRope(theta)
		geometries = append(geometries, calibrate.Geometry{Rank: o.Rank, Frequencies: r.Frequencies(2 * slots), Candidates: o.Candidates})
	}
	best, err := scout(ctx, "choosing the rotary base", e, net, sequences, geometries, o, progress)
	if err != nil {
		return 0, err
	}
	return thetas[best], nil
}

// heldOutLosses are what descents look at, by the steps that tell of it.
var heldOutLosses = map[string]string{
	"held-out polish": "drift (squared)", "held-out distill": "divergence", "held-out distill long": "divergence in long texts",
}

// stepProgress turns the steps of a calibration into phases, and says of each descent what it gained.
func stepProgress(progress Progress) func(calibrate.Step) {
	phase := ""
	began, least := math.NaN(), math.Inf(1) // the held-out loss of the descent under way; a resumption does not know the first
	return func(s calibrate.Step) {
		if lost, ok := heldOutLosses[s.Name]; ok {
			if s.Done == 0 {
				began, least = s.Figure, s.Figure
			}
			if s.Done%calibrate.CheckEvery == 0 || s.Done == s.Total { // and no trial of a rate
				least = min(least, s.Figure)
			}
			if s.Done == s.Total {
				gained := fmt.Sprintf("%.4g -> %.4g", began, least)
				if math.IsNaN(began) {
					gained = fmt.Sprintf("%.4g behind it", least)
				}
				progress.Note("held-out " + lost + ": " + gained)
				began, least = math.NaN(), math.Inf(1)
			}
			return
		}
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

func (c *calibrated) convert(_ *blas.Engine, layer, rank int, _ func(*outer)) (*result, error) {
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
