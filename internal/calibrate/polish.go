package calibrate

import (
	"context"

	"github.com/mlaconvert/mlaconvert/internal/model"
)

// polish moves the given layers, which begin with number first, down the gradient of the drift behind each of them. before
// are the streams before the first; those behind the last and the reports follow.
func (r *run) polish(ctx context.Context, first int, layers []*model.MLA, reports []LayerReport, before starts, train, hold *course) error {
	t, err := newDescent(r.engine, r.net, first, layers, train, hold)
	if err != nil {
		return err
	}
	defer t.close()
	t.matching = 1
	o := r.options.Polish.Descent
	if first == 0 {
		o.Steps = r.options.Polish.EarlySteps
	} else {
		o.Rate = r.rate
	}
	t.tell = r.teller("polish", first, o.Steps)
	rate, err := t.run(ctx, o, first == 0, r.options.Seed+uint64(first))
	if err != nil {
		return err
	}
	if first == 0 {
		r.rate = rate
	}
	r.fit.converted, r.train.converted, r.hold.converted = before.fit, before.train, before.hold.converted
	for i := range layers {
		block := converted(t.blocks[i], layers[i])
		block.Forward(r.engine, &r.fit.batch, r.fit.converted)
		if r.separate() {
			block.Forward(r.engine, &r.train.batch, r.train.converted)
		}
		held := r.data(t.blocks[i], before.hold)
		r.attend(layers[i], held)
		reports[i].Polish = relativeError(held.converted, held.target, held.weights)
		r.advance(t.blocks[i], before.hold, held)
		reports[i].Drift = before.hold.drift(t.net.Hidden)
	}
	return nil
}

// correct moves all layers down the gradient of the divergence of the logits together with that of the drift.
func (r *run) correct(ctx context.Context, layers []*model.MLA, train, hold [][]float32) error {
	o := r.options.Distill
	for _, s := range []**streams{&r.fit, &r.train, &r.hold} {
		*s = &streams{batch: (*s).batch} // no more needed
	}
	t, err := newDescent(r.engine, r.net, 0, layers, &course{batch: r.train.batch, behind: train}, &course{batch: r.hold.batch, behind: hold})
	if err != nil {
		return err
	}
	defer t.close()
	for _, c := range []*course{t.train, t.hold} {
		if c.start, err = r.net.Embed(&c.batch); err != nil {
			return err
		}
	}
	t.matching, t.logits, t.tell = o.Matching, true, r.teller("distill", 0, o.Steps)
	_, err = t.run(ctx, o.Descent, false, r.options.Seed)
	return err
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
