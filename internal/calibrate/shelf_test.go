package calibrate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
)

// shelf is a Shelf in memory, which cancels what keeps its n-th thing.
type shelf struct {
	kept   map[string][]byte
	n      int
	cancel func()
}

func (s *shelf) Keep(name string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	s.kept[name] = b.Bytes()
	if s.n--; s.n == 0 {
		s.cancel()
	}
	return nil
}

func (s *shelf) Kept(name string, read func(io.Reader) error) (bool, error) {
	b, ok := s.kept[name]
	if !ok {
		return false, nil
	}
	return true, read(bytes.NewReader(b))
}

func (s *shelf) Drop(name string) error {
	delete(s.kept, name)
	return nil
}

// TestRunGoesOn: a calibration that is interrupted wherever something was kept comes to the same bits when it goes on, without
// the steps that were done; and the shelf holds nothing that is of no more use.
func TestRunGoesOn(t *testing.T) {
	net, a := networkOf(t, 3, nil) // two that are polished together, and one
	sequences := randomSequences(16, 70, net.Vocab)
	fast := testOptions(a)
	fast.KeepEvery = time.Hour // TestDescentGoesOn is the test of less
	corrected := fast
	corrected.Polish = Polish{Descent: Descent{Steps: 5, Sequences: 3, Rate: 1e-3}, Layers: 2, EarlySteps: 7}
	corrected.FitTokens = 280
	corrected.Distill = []Distill{
		{Descent: Descent{Steps: 4, Sequences: 3, Rate: 1e-3}, Matching: 1},
		{Descent: Descent{Steps: 6, Sequences: 4, Rate: 1e-3}, Matching: 1, Repetition: Repetition{Windows: 2, Share: 0.25}},
	}
	for _, c := range []struct {
		name  string
		o     Options
		keeps int
		last  []string
	}{
		{"fast", fast, 3, []string{"layers-0", "layers-1", "layers-2"}},
		{"corrected", corrected, 4, []string{"corrected-2"}},
	} {
		want, wantReports := calibrated(t, net, 2, sequences, c.o)
		var steps [2]map[string]int
		for stop := 1; stop <= c.keeps; stop++ {
			ctx, cancel := context.WithCancel(context.Background())
			s := &shelf{kept: make(map[string][]byte), n: stop, cancel: cancel}
			o := c.o
			o.Shelf = s
			run := 0
			o.Progress = func(s Step) {
				if s.Name == "polish" || s.Name == "distill" || s.Name == "distill long" {
					steps[run][fmt.Sprint(s.Name, s.Layer)]++
				}
			}
			steps = [2]map[string]int{{}, {}}
			_, _, err := Run(ctx, blas.New(2), net, sequences, o)
			cancel()
			if stop < c.keeps && !errors.Is(err, context.Canceled) {
				t.Fatalf("%s: stopped at %d: %v", c.name, stop, err)
			}
			run = 1
			got, reports := calibrated(t, net, 2, sequences, o)
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(reports, wantReports) {
				t.Errorf("%s: stopped at %d: another result", c.name, stop)
			}
			for what, n := range steps[1] {
				if m := steps[0][what]; m > 0 {
					t.Errorf("%s: stopped at %d: %d steps of %s, and then %d", c.name, stop, m, what, n)
				}
			}
			if names := slices.Sorted(maps.Keys(s.kept)); !slices.Equal(names, c.last) {
				t.Errorf("%s: stopped at %d: %v are kept", c.name, stop, names)
			}
		}
	}
}

// TestDescentGoesOn: a descent that is interrupted behind a step, a look or not, comes to the same bits when it goes on, with the same steps and
// looks.
func TestDescentGoesOn(t *testing.T) {
	net, a := network(t, nil)
	sequences := randomSequences(12, 16, net.Vocab)
	o := testOptions(a)
	start, _ := calibrated(t, net, 2, sequences, o)
	// A rate that serves, and one so high that trials or looks cut it.
	for _, rate := range []float64{3e-3, 3} {
		d := Descent{Steps: 3*CheckEvery - 4, Sequences: 3, Rate: rate, Constant: 0.5}
		run := func(ctx context.Context, s Shelf) (layers []*model.MLA, began float64, told []string, err error) {
			layers = cloneAll(start)
			descent := driftDescent(t, net, layers, sequences)
			descent.shelf, descent.name = s, "descent"
			descent.tell = func(heldOut bool, step int, loss float64) { told = append(told, fmt.Sprint(heldOut, step, loss)) }
			began, err = descent.run(ctx, d, true, 5)
			return layers, began, told, err
		}
		want, wantBegan, wantTold, err := run(context.Background(), nowhere{})
		if err != nil {
			t.Fatal(err)
		}
		for _, stop := range []int{1, CheckEvery - 1, CheckEvery, CheckEvery + 1, 2 * CheckEvery, d.Steps - 1} {
			ctx, cancel := context.WithCancel(context.Background())
			s := &shelf{kept: make(map[string][]byte), n: stop, cancel: cancel}
			_, _, before, err := run(ctx, s)
			cancel()
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("rate %g: stopped at %d: %v", rate, stop, err)
			}
			got, began, after, err := run(context.Background(), s)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) || began != wantBegan {
				t.Fatalf("rate %g: stopped at %d: another result, from rate %g, want %g", rate, stop, began, wantBegan)
			}
			if !slices.Equal(slices.Concat(before, after), wantTold) {
				t.Fatalf("rate %g: stopped at %d: told %v and then %v, want %v", rate, stop, before, after, wantTold)
			}
		}
	}
}

// driftDescent is one of all layers on the drift behind each, the last four sequences held out.
func driftDescent(t *testing.T, net *model.Network, layers []*model.MLA, sequences [][]int) *descent {
	t.Helper()
	n := len(sequences) - 4
	see, decide := &course{batch: model.NewBatch(sequences[:n])}, &course{batch: model.NewBatch(sequences[n:])}
	for _, c := range []*course{see, decide} {
		var err error
		if c.start, err = net.Embed(&c.batch); err != nil {
			t.Fatal(err)
		}
		x := slices.Clone(c.start)
		forEachBlock(t, net, func(i int, b *model.Block) {
			b.Forward(blas.New(2), &c.batch, x)
			c.behind = append(c.behind, slices.Clone(x))
		})
	}
	d, err := newDescent(blas.New(2), net, 0, layers, see, decide)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	d.matching = 1
	return d
}

// TestDescentRates: a descent starts at the first rate whose trial lowers the held-out loss, and slows down for a look that goes
// wrong, not for looks that gain nothing.
func TestDescentRates(t *testing.T) {
	net, a := network(t, nil)
	sequences := randomSequences(12, 16, net.Vocab)
	start, _ := calibrated(t, net, 2, sequences, testOptions(a))
	for _, rate := range []float64{3e-3, 3} {
		d := driftDescent(t, net, cloneAll(start), sequences)
		var looks []float64
		d.tell = func(heldOut bool, step int, loss float64) {
			if heldOut && step <= TrialSteps {
				looks = append(looks, loss)
			}
		}
		began, err := d.run(context.Background(), Descent{Steps: TrialSteps + 1, Sequences: 3, Rate: rate}, true, 5)
		if err != nil {
			t.Fatal(err)
		}
		first := slices.IndexFunc(looks, func(loss float64) bool { return loss < looks[0] })
		if first != len(looks)-1 {
			t.Fatalf("rate %g: trials did not end with the first that served: %v", rate, looks)
		}
		if want := rate / math.Pow(slowdown, float64(first-1)); math.Abs(began/want-1) > 1e-12 {
			t.Errorf("rate %g: began at %g behind looks of %v, want %g", rate, began, looks, want)
		}
		if several := first > 1; several != (rate > 1) {
			t.Errorf("rate %g: %d trials", rate, first)
		}
	}
	for _, rate := range []float64{1e-9, 3} {
		d := driftDescent(t, net, cloneAll(start), sequences)
		d.tell = func(bool, int, float64) {}
		loss, err := d.heldOut(d.layers)
		if err != nil {
			t.Fatal(err)
		}
		d.source = rand.NewPCG(1, 2)
		d.random = rand.New(d.source)
		s := &trail{Began: rate, Rate: rate, Best: loss, kept: cloneAll(start), average: cloneAll(start)}
		if err := d.descend(context.Background(), Descent{Steps: 5 * CheckEvery, Sequences: 3, Constant: 0.5}, s); err != nil {
			t.Fatal(err)
		}
		if cut := s.Rate < rate; cut != (rate > 1) {
			t.Errorf("rate %g came to %g in %d steps", rate, s.Rate, s.Step)
		}
	}
}

// TestSamplesGoOn: parts of the samples that are kept are not sampled again.
func TestSamplesGoOn(t *testing.T) {
	net, _ := network(t, nil)
	e := blas.New(2)
	o := Sampling{Tokens: 16 * 80, Window: 16, Seed: 7, Together: 8}
	want, err := SelfSamples(e, net, o)
	if err != nil {
		t.Fatal(err)
	}
	stopped := errors.New("stopped")
	var stop error
	s := &shelf{kept: make(map[string][]byte), n: 1, cancel: func() { stop = stopped }}
	o.Shelf, o.Stop = s, func() error { return stop }
	if _, err := SelfSamples(e, net, o); !errors.Is(err, stopped) || len(s.kept) != 1 {
		t.Fatalf("%v with %d parts kept, want one of several", err, len(s.kept))
	}
	stop = nil
	least := -1
	o.Progress = func(done, total int) {
		if least < 0 {
			least = done
		}
	}
	got, err := SelfSamples(e, net, o)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("other samples, %v", err)
	}
	if least <= 16 {
		t.Errorf("went on at position %d", least)
	}
}
