package calibrate

import (
	"context"

	"github.com/mlaconvert/mlaconvert/internal/model"
)

// polish moves the given layers, which begin with number first, down the gradient of the drift behind each of them, from
// the streams before the first. The streams behind the last and the reports follow.
func (r *run) polish(ctx context.Context, first int, layers []*model.MLA, reports []LayerReport, train, hold *streams) error {
	t, err := newDescent(r.engine, r.net, first, layers, train, hold)
	if err != nil {
		return err
	}
	defer t.close()
	t.matching = 1
	o := r.options.Polish.Descent
	if first == 0 {
		o.Steps = r.options.Polish.EarlySteps
	}
	t.tell = r.teller("polish", first, o.Steps)
	if err := t.run(ctx, o, r.options.Seed+uint64(first)); err != nil {
		return err
	}
	r.train.converted = train.converted
	for i := range layers {
		b := t.converted(i)
		b.Forward(r.engine, &train.batch, train.converted)
		source := r.data(t.blocks[i], hold)
		r.attend(layers[i], source)
		reports[i].Polish = relativeError(source.converted, source.target, source.weights)
		reports[i].Drift = r.advance(t.blocks[i], hold, source)
	}
	r.hold.converted = hold.converted
	return nil
}

// correct moves all layers down the gradient of the divergence of the logits together with that of the drift behind each.
func (r *run) correct(ctx context.Context, layers []*model.MLA) error {
	end := r.hold.source
	var err error
	if r.train, err = newStreams(r.net, r.train.batch); err != nil {
		return err
	}
	if r.hold, err = newStreams(r.net, r.hold.batch); err != nil {
		return err
	}
	t, err := newDescent(r.engine, r.net, 0, layers, r.train, r.hold)
	if err != nil {
		return err
	}
	defer t.close()
	o := r.options.Distill
	t.matching, t.end, t.tell = o.Matching, end, r.teller("distill", 0, o.Steps)
	return t.run(ctx, o.Descent, r.options.Seed)
}

// teller tells of the steps of a descent.
func (r *run) teller(name string, first, total int) func(heldOut bool, step int, loss float64) {
	return func(heldOut bool, step int, loss float64) {
		s := Step{Name: name, Layer: first, Done: step, Total: total, Figure: loss}
		if heldOut {
			s.Name = "held-out " + name
		}
		r.tell(s)
	}
}
