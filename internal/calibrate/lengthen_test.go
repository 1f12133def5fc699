package calibrate

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
)

// windows are so many of the given length, whose ids count from 0.
func windows(n, length int) model.Batch {
	var out [][]int
	for i := range n {
		w := make([]int, length)
		for j := range w {
			w[j] = i*length + j
		}
		out = append(out, w)
	}
	return model.NewBatch(out)
}

// TestRepetitionJoins: without copies texts are windows end to end, as many as the context holds and are left.
func TestRepetitionJoins(t *testing.T) {
	b := windows(7, 100)
	for _, c := range []struct {
		windows, context int
		want             []int
	}{
		{4, 1000, []int{0, 400, 700}},
		{4, 399, []int{0, 300, 600, 700}},
		{1, 1000, b.Starts},
		{0, 1000, b.Starts},
		{4, 50, b.Starts},
	} {
		if got := (Repetition{Windows: c.windows}).apply(&b, c.context, 1); !slices.Equal(got.Starts, c.want) || !slices.Equal(got.IDs, b.IDs) {
			t.Errorf("%d windows, context %d: texts from %v, want %v, the same ids: %t", c.windows, c.context, got.Starts, c.want, slices.Equal(got.IDs, b.IDs))
		}
	}
}

// TestRepetitionCopies: in place of the share asked for stand spans of the same text, whose originals end early enough, and
// nothing else changes. Ids are positions, so that a token tells where it came from.
func TestRepetitionCopies(t *testing.T) {
	b := windows(40, 512)
	before := slices.Clone(b.IDs)
	got := Repetition{Windows: 4, Share: 0.25}.apply(&b, 2048, 3)
	if !slices.Equal(b.IDs, before) {
		t.Fatal("the windows themselves changed")
	}
	copied, runs, far := 0, 0, 0
	for s := range got.Sequences() {
		for p := got.Starts[s]; p < got.Starts[s+1]; p++ {
			id := got.IDs[p]
			if id == p {
				continue
			}
			copied++
			if id > p-leastGap || id < got.Starts[s] {
				t.Fatalf("text %d from %d: position %d has the token of %d", s, got.Starts[s], p, id)
			}
			if id != got.IDs[p-1]+1 {
				runs++
			}
			if p-id > 1024 {
				far++
			}
		}
	}
	if share := float64(copied) / float64(got.Tokens()); share < 0.2 || share > 0.3 {
		t.Errorf("%.3f of the tokens are copies, want 0.25", share)
	}
	// Copies of what holds copies break there: a few more runs than spans.
	if mean := float64(copied) / float64(runs); mean < 8 || mean > 15 {
		t.Errorf("%.1f tokens in a copy, want about %d", mean, (shortestSpan+longestSpan)/2)
	}
	if share := float64(far) / float64(copied); share < 0.1 {
		t.Errorf("%.3f of the copies are from more than 1,024 tokens before", share)
	}
	if again := (Repetition{Windows: 4, Share: 0.25}).apply(&b, 2048, 3); !slices.Equal(again.IDs, got.IDs) {
		t.Error("the same seed gave other texts")
	}
	if other := (Repetition{Windows: 4, Share: 0.25}).apply(&b, 2048, 4); slices.Equal(other.IDs, got.IDs) {
		t.Error("another seed gave the same texts")
	}
}

// TestLongTexts: a correction sees the source's streams over the texts, behind the layers where they count.
func TestLongTexts(t *testing.T) {
	net, a := network(t, nil)
	r := &run{engine: blas.New(2), net: net, options: testOptions(a)}
	r.options.Polish.Layers, r.options.Distill = 2, []Distill{{}}
	counts := func(layer int) bool { return layer%2 == 1 || layer == net.Layers-1 }
	b := model.NewBatch(randomSequences(7, 40, net.Vocab))
	c, err := r.lengthened(context.Background(), Repetition{Windows: 3, Share: 0.5}, &b)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.batch.Starts, []int{0, 120, 240, 280}) || slices.Equal(c.batch.IDs, b.IDs) {
		t.Fatalf("texts from %v", c.batch.Starts)
	}
	for s := range c.batch.Sequences() {
		text := c.batch.Slice(s, s+1)
		x, err := net.Embed(&text)
		if err != nil {
			t.Fatal(err)
		}
		at := func(x []float32) []float32 {
			return x[c.batch.Starts[s]*net.Hidden : c.batch.Starts[s+1]*net.Hidden]
		}
		near(t, "the embeddings", at(c.start), x)
		for layer := range net.Layers {
			block, err := net.Block(layer)
			if err != nil {
				t.Fatal(err)
			}
			block.Forward(r.engine, &text, x)
			block.Close()
			if (c.behind[layer] != nil) != counts(layer) {
				t.Errorf("layer %d counts: %t", layer, c.behind[layer] != nil)
			} else if counts(layer) {
				near(t, "a layer", at(c.behind[layer]), x)
			}
		}
	}
}

func near(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i, v := range want {
		if d := got[i] - v; d > 1e-5 || d < -1e-5 {
			t.Fatalf("%s: element %d is %g, want %g", what, i, got[i], v)
		}
	}
}

// TestCopies: every window is there, in its order, and behind every second one the same with about half of its tokens from
// where the window had been before.
func TestCopies(t *testing.T) {
	const length = 512
	b := windows(21, length)
	c := Copies{Every: 2, Share: 0.5}
	got := c.add(&b, 3)
	if n := c.Windows(b.Sequences(), length); n != 10 || got.Sequences() != b.Sequences()+n {
		t.Fatalf("%d windows with %d that repeat themselves, %d expected", got.Sequences(), n, b.Sequences()+10)
	}
	copied := 0
	for s, i := 0, 0; i < b.Sequences(); i++ {
		window := func() []int { s++; return got.IDs[got.Starts[s-1]:got.Starts[s]] }
		want := b.IDs[b.Starts[i]:b.Starts[i+1]]
		if !slices.Equal(window(), want) {
			t.Fatalf("window %d is another", i)
		}
		if i%2 == 0 {
			continue
		}
		for p, id := range window() {
			if id == want[p] {
				continue
			}
			copied++
			if id < want[0] || id > want[p]-leastGap {
				t.Fatalf("window %d, position %d: token %d, of another window or too near", i, p, id-want[0])
			}
		}
	}
	if share := float64(copied) / (10 * length); share < 0.4 || share > 0.55 {
		t.Errorf("%.3f of the tokens are copies, want a half, less at the beginning", share)
	}
	if short := windows(4, leastRepeating-1); !slices.Equal(c.add(&short, 3).Starts, short.Starts) {
		t.Error("windows that end where copies begin are repeated")
	}
	if none := (Copies{}).add(&b, 3); !slices.Equal(none.Starts, b.Starts) {
		t.Error("without copies there are others")
	}
}

// TestCopiesAreNotCounted: they go with the windows that they repeat, and long texts are made without them.
func TestCopiesAreNotCounted(t *testing.T) {
	net, a := network(t, nil)
	const each, fit, cut = leastRepeating, 4, 14
	o := testOptions(a)
	o.FitTokens, o.Copies = fit*each, Copies{Every: 2, Share: 0.5}
	sequences := randomSequences(18, each, net.Vocab)
	r := &run{engine: blas.New(2), net: net, options: o}
	if err := r.begin(model.NewBatch(sequences[:cut]), model.NewBatch(sequences[cut:])); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		got   *model.Batch
		first int
		want  int
	}{
		{"fits", &r.fit.batch, 0, fit + fit/2},
		{"descents", &r.train.batch, fit, 15},
		{"held out", &r.hold.batch, cut, 6},
		{"long texts", &r.texts, fit, cut - fit},
		{"held-out long texts", &r.heldTexts, cut, 4},
	} {
		if !slices.Equal(c.got.IDs[:each], sequences[c.first]) || c.got.Sequences() != c.want {
			t.Errorf("%s: %d windows, want %d from number %d on", c.name, c.got.Sequences(), c.want, c.first)
		}
	}
}

// TestCopiesAreSeen: a calibration with copies is another than one without, and the same for any number of threads.
func TestCopiesAreSeen(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	o.Polish = Polish{Descent: Descent{Steps: 4, Sequences: 2, Rate: 1e-3}, Layers: 1, EarlySteps: 4}
	sequences := randomSequences(10, leastRepeating, net.Vocab)
	without, _ := calibrated(t, net, 1, sequences, o)
	o.Copies = Copies{Every: 2, Share: 0.5}
	one, reportOne := calibrated(t, net, 1, sequences, o)
	three, reportThree := calibrated(t, net, 3, sequences, o)
	if !reflect.DeepEqual(one, three) || !reflect.DeepEqual(reportOne, reportThree) {
		t.Error("one and three threads differ")
	}
	if reflect.DeepEqual(one, without) {
		t.Error("the copies change nothing")
	}
}
