package calibrate

import (
	"context"
	"slices"

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
	t.matching, t.recompute = 1, r.options.Recompute
	t.keepsAs(r, polishingName(first))
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
		held := r.follow(t.blocks[i], layers[i], before.hold)
		reports[i].Polish = relativeError(held.converted, held.target, held.weights)
		reports[i].Drift = before.hold.drift(t.net.Hidden)
	}
	return nil
}

// correct moves all layers down the gradient of the divergence of the logits together with that of the drift. So many corrections
// are done already. train and hold are the source's streams over the windows, behind the layers where the drift counts, if there
// is a correction in windows left.
func (r *run) correct(ctx context.Context, layers []*model.MLA, reports []LayerReport, done int, train, hold [][]float32) error {
	for _, s := range []**streams{&r.fit, &r.train, &r.hold} {
		*s = &streams{batch: (*s).batch} // no more needed
	}
	see, decide := &course{batch: r.train.batch, behind: train}, &course{batch: r.hold.batch, behind: hold}
	for _, c := range []*course{see, decide} {
		var err error
		if c.start, err = r.net.Embed(&c.batch); err != nil {
			return err
		}
	}
	for i, o := range r.options.Distill[done:] {
		number := done + i + 1
		name := "distill"
		if o.Windows > 1 {
			name = "distill long"
			see, decide = nil, nil // no more needed
			var err error
			if see, err = r.lengthened(ctx, o.Repetition, &r.texts); err != nil {
				return err
			}
			if decide, err = r.lengthened(ctx, o.Repetition, &r.heldTexts); err != nil {
				return err
			}
		}
		t, err := newDescent(r.engine, r.net, 0, layers, see, decide)
		if err != nil {
			return err
		}
		t.matching, t.logits, t.recompute, t.tell = o.Matching, true, r.options.Recompute, r.teller(name, 0, o.Steps)
		t.keepsAs(r, correctingName(number))
		_, o.Sequences = o.Texts(r.train.batch.Longest(), r.net.Context)
		_, err = t.run(ctx, o.Descent, false, r.options.Seed)
		t.close()
		if err != nil {
			return err
		}
		if err := r.keepCorrected(number, layers, reports); err != nil {
			return err
		}
	}
	return nil
}

// lengthened is what a descent sees of texts that are made of windows.
func (r *run) lengthened(ctx context.Context, o Repetition, windows *model.Batch) (*course, error) {
	c := &course{batch: o.apply(windows, r.net.Context, r.options.Seed), behind: make([][]float32, r.net.Layers)}
	var err error
	if c.start, err = r.net.Embed(&c.batch); err != nil {
		return nil, err
	}
	x := slices.Clone(c.start)
	for layer := range r.net.Layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		block, err := r.net.Block(layer)
		if err != nil {
			return nil, err
		}
		block.Forward(r.engine, &c.batch, x)
		block.Close()
		if r.watched(layer) {
			c.behind[layer] = slices.Clone(x)
		}
	}
	return c, nil
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
