package calibrate

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"

	"github.com/mlaconvert/mlaconvert/internal/model"
)

// Shelf keeps what is done of a calibration, by name, for one of the same source and options that goes on with it after an
// interruption. Kept returns false where there is nothing.
type Shelf interface {
	Keep(name string, write func(io.Writer) error) error
	Kept(name string, read func(io.Reader) error) (bool, error)
	Drop(name string) error
}

// nowhere is the Shelf of those who have none.
type nowhere struct{}

func (nowhere) Keep(string, func(io.Writer) error) error         { return nil }
func (nowhere) Kept(string, func(io.Reader) error) (bool, error) { return false, nil }
func (nowhere) Drop(string) error                                { return nil }

func orNowhere(s Shelf) Shelf {
	if s == nil {
		return nowhere{}
	}
	return s
}

// keepValue and keptValue keep what gob can encode, such as token ids.
func keepValue(s Shelf, name string, value any) error {
	return s.Keep(name, func(w io.Writer) error { return gob.NewEncoder(w).Encode(value) })
}

func keptValue(s Shelf, name string, value any) (bool, error) {
	return s.Kept(name, func(r io.Reader) error { return gob.NewDecoder(r).Decode(value) })
}

// The names that things are kept under: the layers that are polished together with the given one as their first, and the state of
// their polish; all layers behind so many corrections, and the state of the last of these.
func layersName(first int) string           { return fmt.Sprintf("layers-%d", first) }
func polishingName(first int) string        { return fmt.Sprintf("polishing-%d", first) }
func correctedName(corrections int) string  { return fmt.Sprintf("corrected-%d", corrections) }
func correctingName(corrections int) string { return fmt.Sprintf("correcting-%d", corrections) }

// keptLayers is what precedes the layers themselves.
type keptLayers struct {
	Reports []LayerReport
	Rate    float64 // see run
}

// keep puts some layers on the shelf.
func (r *run) keep(name string, layers []*model.MLA, reports []LayerReport) error {
	return r.shelf.Keep(name, func(w io.Writer) error {
		to := gob.NewEncoder(w)
		if err := to.Encode(keptLayers{reports, r.rate}); err != nil {
			return err
		}
		for _, a := range layers {
			if err := a.Encode(to); err != nil {
				return err
			}
		}
		return nil
	})
}

// kept takes layers from the shelf, if they are there.
func (r *run) kept(name string, layers []*model.MLA, reports []LayerReport) (bool, error) {
	return r.shelf.Kept(name, func(rd io.Reader) error {
		from := gob.NewDecoder(rd)
		var k keptLayers
		if err := from.Decode(&k); err != nil {
			return err
		}
		if len(k.Reports) != len(reports) {
			return fmt.Errorf("%d layers, expected %d", len(k.Reports), len(reports))
		}
		r.rate = k.Rate
		copy(reports, k.Reports)
		for i := range layers {
			var err error
			if layers[i], err = model.DecodeMLA(from); err != nil {
				return err
			}
		}
		return nil
	})
}

// keepFitted puts layers that are fitted and polished on the shelf, in place of the state of their polish.
func (r *run) keepFitted(first int, layers []*model.MLA, reports []LayerReport) error {
	if err := r.keep(layersName(first), layers, reports); err != nil {
		return err
	}
	return r.shelf.Drop(polishingName(first))
}

// keepCorrected puts all layers on the shelf behind so many corrections, in place of what they were before.
func (r *run) keepCorrected(corrections int, layers []*model.MLA, reports []LayerReport) error {
	if err := r.keep(correctedName(corrections), layers, reports); err != nil {
		return err
	}
	before := []string{correctingName(corrections), correctedName(corrections - 1)}
	for first := 0; first < len(layers); first += r.together() {
		before = append(before, layersName(first))
	}
	for _, name := range before {
		if err := r.shelf.Drop(name); err != nil {
			return err
		}
	}
	return nil
}

// keptCorrected takes all layers from the shelf as they are behind as many corrections as possible, and returns how many.
func (r *run) keptCorrected(layers []*model.MLA, reports []LayerReport) (corrections int, err error) {
	for n := len(r.options.Distill); n > 0; n-- {
		if ok, err := r.kept(correctedName(n), layers, reports); ok || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// underWay is what precedes the weights of a descent's state.
type underWay struct {
	Trail  trail
	Order  []int
	Random []byte
	Steps  []int // of the optimizers
}

// keepsAs says where the descent keeps its state.
func (t *descent) keepsAs(r *run, name string) {
	t.shelf, t.name, t.keepEvery = r.shelf, name, r.options.KeepEvery
}

// keep puts the state of the descent on the shelf: what [descent.recall] needs to go on as if nothing had been.
func (t *descent) keep(s *trail) error {
	random, err := t.source.MarshalBinary()
	if err != nil {
		return err
	}
	u := underWay{Trail: *s, Order: t.order, Random: random}
	for _, o := range t.optimizers {
		u.Steps = append(u.Steps, o.steps)
	}
	return t.shelf.Keep(t.name, func(w io.Writer) error {
		to := gob.NewEncoder(w)
		if err := to.Encode(&u); err != nil {
			return err
		}
		return t.state(s, func(v []float32) error { return model.EncodeValues(to, v) })
	})
}

// recall takes the state of the descent from the shelf, if it is there.
func (t *descent) recall(s *trail) (bool, error) {
	return t.shelf.Kept(t.name, func(r io.Reader) error {
		from := gob.NewDecoder(r)
		var u underWay
		if err := from.Decode(&u); err != nil {
			return err
		}
		if len(u.Steps) != len(t.optimizers) {
			return fmt.Errorf("%d layers, expected %d", len(u.Steps), len(t.optimizers))
		}
		u.Trail.kept, u.Trail.average = s.kept, s.average
		*s, t.order = u.Trail, u.Order
		for i, o := range t.optimizers {
			o.steps = u.Steps[i]
		}
		if err := t.source.UnmarshalBinary(u.Random); err != nil {
			return err
		}
		return t.state(s, func(v []float32) error { return model.DecodeValues(from, v) })
	})
}

// state calls f with all values that make out the state of the descent, always in the same order.
func (t *descent) state(s *trail, f func([]float32) error) error {
	for i, o := range t.optimizers {
		for _, a := range []*model.MLA{t.layers[i], s.kept[i], s.average[i]} {
			if err := a.EachWeight(f); err != nil {
				return err
			}
		}
		for _, v := range o.tensors {
			if err := errors.Join(f(v.first), f(v.second)); err != nil {
				return err
			}
		}
	}
	return nil
}
