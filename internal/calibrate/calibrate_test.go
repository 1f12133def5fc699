package calibrate

import (
	"context"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/mla"
)

// network opens a random model, changed by spoil if that is not nil.
func network(t *testing.T, change func(m *testmodel.Model)) (*model.Network, *arch.Model) {
	return networkOf(t, 2, change)
}

// networkOf is the same of so many layers.
func networkOf(t *testing.T, layers int, change func(m *testmodel.Model)) (*model.Network, *arch.Model) {
	t.Helper()
	m := testmodel.New(testmodel.Shape{Hidden: 32, Intermediate: 48, Layers: layers, Heads: 4, KVHeads: 2, HeadDim: 8, Vocab: 64, DType: "F32", Seed: 5})
	if change != nil {
		change(m)
	}
	src := m.Open(t)
	a, err := arch.Parse(src.Config())
	if err != nil {
		t.Fatal(err)
	}
	net, err := model.OpenSource(src, a)
	if err != nil {
		t.Fatal(err)
	}
	return net, a
}

func randomSequences(n, length, vocab int) [][]int {
	r := rand.New(rand.NewPCG(3, 3))
	out := make([][]int, n)
	for i := range out {
		for range length {
			out[i] = append(out[i], r.IntN(vocab))
		}
	}
	return out
}

func testOptions(a *arch.Model) Options {
	return Options{
		Rank: 12, Frequencies: a.Rope.Frequencies(8), Context: 64, HoldOut: 4, StatisticsTokens: 1 << 20,
		Candidates: []mla.Candidate{{QueryPower: 1, KeyWeight: 1}, {SlotInput: mla.MixedInput, KeyWeight: 0.3}, {KeyWeight: 1, Refine: true, Sweeps: 2, Flat: 0.3}},
		Refit:      true, Seed: 1,
	}
}

// attentionInputs returns the attention of a layer and random inputs of the given mean for it, two sequences long.
func attentionInputs(t *testing.T, net *model.Network, layer int, mean float64, r *rand.Rand, first, second int) (*model.GQA, model.Batch, []float32) {
	t.Helper()
	block, err := net.Block(layer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(block.Close)
	a := block.Attention.(*model.GQA)
	batch := model.NewBatch([][]int{make([]int, first), make([]int, second)})
	h := make([]float32, batch.Tokens()*a.Q.In)
	for i := range h {
		h[i] = float32(mean + r.NormFloat64())
	}
	return a, batch, h
}

// TestStatistics compares every moment with its definition, summed directly in float64.
func TestStatistics(t *testing.T) {
	net, _ := network(t, nil)
	r := rand.New(rand.NewPCG(1, 1))
	a, batch, h := attentionInputs(t, net, 1, 1, r, 9, 5) // a mean that the covariances must not see
	d := a.Q.In
	w := 1 / float64(batch.Tokens())
	const far = 9
	got := Statistics(blas.New(2), a, &batch, h, far)

	q, k := double(a.Q), double(a.K)
	input := make([]float64, d*d)
	rotate := func(x []float64, position int) []float64 {
		out := append([]float64(nil), x...)
		for f, w := range a.Frequencies {
			s, c := math.Sincos(w * float64(position))
			u, v := x[f], x[len(a.Frequencies)+f]
			out[f], out[len(a.Frequencies)+f] = u*c-v*s, u*s+v*c
		}
		return out
	}
	for hd := range a.Heads {
		softmax, averaged, moment := make([]float64, d*d), make([]float64, d*d), make([]float64, d)
		query := make([]float64, a.HeadDim*a.HeadDim)
		squared := 0.0
		sensitivity := make([]float64, far)
		for s := range batch.Sequences() {
			start, n := batch.Starts[s], batch.Starts[s+1]-batch.Starts[s]
			x := func(i int) []float32 { return h[(start+i)*d : (start+i+1)*d] }
			for m := range n {
				plain := project(q, hd*a.HeadDim, a.HeadDim, x(m))
				outer(query, plain, plain, w)
				if hd == 0 {
					xm := make([]float64, d)
					for j, v := range x(m) {
						xm[j] = float64(v)
					}
					outer(input, xm, xm, w)
				}
				qm := rotate(plain, m)
				p := make([]float64, m+1)
				sum := 0.0
				for j := range p {
					kj := rotate(project(k, hd/2*a.HeadDim, a.HeadDim, x(j)), j)
					p[j] = math.Exp(inner(qm, kj) / math.Sqrt(float64(a.HeadDim)))
					sum += p[j]
				}
				bar := make([]float64, d)
				for j := range p {
					p[j] /= sum
					squared += w * p[j] * p[j]
					sensitivity[m-j] += w * p[j] * (1 - p[j])
					for i, v := range x(j) {
						bar[i] += p[j] * float64(v)
					}
				}
				for j := range p {
					e := make([]float64, d)
					for i, v := range x(j) {
						e[i] = float64(v) - bar[i]
					}
					outer(softmax, e, e, w*p[j])
				}
				outer(averaged, bar, bar, w)
				for i, v := range bar {
					moment[i] += w * v
				}
			}
		}
		outer(averaged, moment, moment, -1)
		st := &got.Heads[hd]
		for _, c := range []struct {
			name      string
			got, want []float64
		}{
			{"softmax", st.Softmax.Data, softmax}, {"averaged", st.Averaged.Data, averaged}, {"mean", st.Mean, moment},
			{"query", st.Query.Data, query}, {"squared", []float64{st.Squared}, []float64{squared}},
			{"distances", st.Distances, Distances(sensitivity, available(&batch), far)},
		} {
			if e := distance(c.got, c.want); e > 1e-5 {
				t.Errorf("head %d, %s: relative error %g", hd, c.name, e)
			}
		}
	}
	if e := distance(got.Input.Data, input); e > 1e-5 {
		t.Errorf("input: relative error %g", e)
	}
}

func double(w model.Weight) []float64 {
	out := make([]float64, len(w.F32))
	for i, v := range w.F32 {
		out[i] = float64(v)
	}
	return out
}

func project(w []float64, row, rows int, x []float32) []float64 {
	out := make([]float64, rows)
	for i := range out {
		for j, v := range x {
			out[i] += w[(row+i)*len(x)+j] * float64(v)
		}
	}
	return out
}

func outer(sum, x, y []float64, w float64) {
	for i, u := range x {
		for j, v := range y {
			sum[i*len(y)+j] += w * u * v
		}
	}
}

func inner(x, y []float64) float64 {
	sum := 0.0
	for i, v := range x {
		sum += v * y[i]
	}
	return sum
}

// distance is |a-b| / |b|.
func distance(a, b []float64) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var diff, norm float64
	for i, v := range b {
		diff += (a[i] - v) * (a[i] - v)
		norm += v * v
	}
	return math.Sqrt(diff / norm)
}

func TestDistances(t *testing.T) {
	// Rates that fall as 1/(1+d) in windows of 128: the tail to 1,024 must continue that power.
	const window, context = 128, 1024
	pairs, sensitivity := make([]float64, window), make([]float64, window)
	for d := range window {
		pairs[d] = float64(window - d)
		sensitivity[d] = pairs[d] / float64(1+d)
	}
	p := Distances(sensitivity, pairs, context)
	if len(p) != context {
		t.Fatalf("%d distances", len(p))
	}
	sum := 0.0
	for d, v := range p {
		sum += v
		want := p[0] / float64(1+d) * float64(context-d) / context
		if math.Abs(v-want) > 0.1*want {
			t.Errorf("distance %d: %g, want %g", d, v, want)
		}
	}
	if math.Abs(sum-1) > 1e-12 {
		t.Errorf("sum %g", sum)
	}
	if p := Distances(make([]float64, 4), []float64{4, 3, 2, 1}, 8); len(p) != 1 || p[0] != 1 {
		t.Errorf("no sensitivity at all: %v", p)
	}
}

func calibrated(t *testing.T, net *model.Network, threads int, sequences [][]int, o Options) ([]*model.MLA, []LayerReport) {
	t.Helper()
	layers, reports, err := Run(context.Background(), blas.New(threads), net, sequences, o)
	if err != nil {
		t.Fatal(err)
	}
	return layers, reports
}

// TestRunIsDeterministic: the same bits for any number of threads, every step switched on.
func TestRunIsDeterministic(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	o.Polish = Polish{Descent: Descent{Steps: 12, Sequences: 3, Rate: 1e-3}, Layers: 1, EarlySteps: 14}
	o.Distill = []Distill{
		{Descent: Descent{Steps: 6, Sequences: 3, Rate: 1e-3}, Matching: 1},
		{Descent: Descent{Steps: 6, Sequences: 4, Rate: 1e-3}, Matching: 1, Repetition: Repetition{Windows: 2, Share: 0.25}},
	}
	sequences := randomSequences(16, 70, net.Vocab)
	one, reportOne := calibrated(t, net, 1, sequences, o)
	three, reportThree := calibrated(t, net, 3, sequences, o)
	if !reflect.DeepEqual(one, three) || !reflect.DeepEqual(reportOne, reportThree) {
		t.Error("one and three threads differ")
	}
	o.Recompute = true
	if again, reports := calibrated(t, net, 2, sequences, o); !reflect.DeepEqual(one, again) || !reflect.DeepEqual(reportOne, reports) {
		t.Error("computing the way forward again differs")
	}
	o.Recompute = false
	o.Distill[1].Share = 0
	if other, _ := calibrated(t, net, 1, sequences, o); reflect.DeepEqual(one, other) {
		t.Error("the copies change nothing")
	}
	o.Distill[1].Share = 0.25
	o.Seed++
	if other, _ := calibrated(t, net, 1, sequences, o); reflect.DeepEqual(one, other) {
		t.Error("the seed changes nothing")
	}
}

// TestStepsOnlyImprove: the refit is kept only where the held-out error falls, and the polish only where the drift behind
// its layers does, one by one and together.
func TestStepsOnlyImprove(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	sequences := randomSequences(40, 40, net.Vocab)
	_, plain := calibrated(t, net, 2, sequences, o)
	for _, r := range plain {
		if !(r.Refit <= r.Start && r.Polish == r.Refit) {
			t.Errorf("errors do not fall: %+v", r)
		}
	}
	for _, together := range []int{1, 2} {
		o.Polish = Polish{Descent: Descent{Steps: 40, Sequences: 4, Rate: 1e-2}, Layers: together, EarlySteps: 40}
		_, reports := calibrated(t, net, 2, sequences, o)
		for i, r := range reports {
			if !(r.Drift < 0.98*plain[i].Drift && r.Polish > 0) {
				t.Errorf("%d layers together: drift %g without polish: %+v", together, plain[i].Drift, r)
			}
		}
	}
}

// TestFitsAndDescentsShareTokens: with FitTokens layers are fitted to the leading sequences alone, and descents see the others.
func TestFitsAndDescentsShareTokens(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	const each, fit = 40, 6
	sequences := randomSequences(20, each, net.Vocab)
	part := slices.Concat(sequences[:fit], sequences[len(sequences)-o.HoldOut:])
	want, wantReports := calibrated(t, net, 2, part, o)
	o.FitTokens = fit*each + each/2
	got, gotReports := calibrated(t, net, 2, sequences, o)
	if !reflect.DeepEqual(want, got) || !reflect.DeepEqual(wantReports, gotReports) {
		t.Error("layers differ from those fitted to the leading sequences alone")
	}

	cut := len(sequences) - o.HoldOut
	r := &run{engine: blas.New(2), net: net, options: o}
	if err := r.begin(model.NewBatch(sequences[:cut]), model.NewBatch(sequences[cut:])); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.train.batch.IDs, slices.Concat(sequences[fit:cut]...)) {
		t.Error("the descents see other sequences than those that follow")
	}
	if n, m, _ := o.Share(cut*each, each); n != r.fit.batch.Tokens() || m != r.train.batch.Tokens() {
		t.Errorf("a share of %d and %d tokens, but %d and %d", n, m, r.fit.batch.Tokens(), r.train.batch.Tokens())
	}
	o.FitTokens = cut * each
	if n, m, _ := o.Share(cut*each, each); n != cut*each || m != 0 {
		t.Errorf("%d and %d other tokens of %d", n, m, cut*each)
	}
}

// TestLongTextsHaveTokensOfTheirOwn: of what the fits leave, long texts alone have the second half, where it is large enough.
func TestLongTextsHaveTokensOfTheirOwn(t *testing.T) {
	net, a := network(t, nil)
	const each, fit = 40, 3
	for _, c := range []struct {
		windows, wantTrain, wantTexts int
		long                          bool
	}{
		{9, 3, 3, true},
		{10, 4, 3, true},
		{9, 6, 0, false},
		{8, 5, 0, true},
	} {
		o := testOptions(a)
		o.FitTokens = fit * each
		if o.Distill = []Distill{{}}; c.long {
			o.Distill = append(o.Distill, Distill{Repetition: Repetition{Windows: 2}})
		}
		sequences := randomSequences(c.windows, each, net.Vocab)
		r := &run{engine: blas.New(2), net: net, options: o}
		if err := r.begin(model.NewBatch(sequences), model.NewBatch(sequences[:1])); err != nil {
			t.Fatal(err)
		}
		n, m, l := o.Share(c.windows*each, each)
		if n != fit*each || m != c.wantTrain*each || l != c.wantTexts*each {
			t.Errorf("%d windows: shares of %d, %d and %d tokens", c.windows, n, m, l)
		}
		if want := slices.Concat(sequences[fit : fit+c.wantTrain]...); !slices.Equal(r.train.batch.IDs, want) {
			t.Errorf("%d windows: descents see others than the %d behind the fits", c.windows, c.wantTrain)
		}
		if want := slices.Concat(sequences[fit:]...); !slices.Equal(r.texts.IDs, want) {
			t.Errorf("%d windows: long texts are not of all behind the fits", c.windows)
		}
	}
}

// TestLongTextsSeeTheirTokensAlone: the windows that only long texts are made of change their correction and nothing before it.
func TestLongTextsSeeTheirTokensAlone(t *testing.T) {
	net, a := network(t, nil)
	const each, windows, texts = 40, 15, 6
	o := testOptions(a)
	o.FitTokens = 3 * each
	o.Distill = []Distill{
		{Descent: Descent{Steps: 2, Sequences: 3, Rate: 1e-3}, Matching: 1},
		{Descent: Descent{Steps: 5, Sequences: 4, Rate: 1e-3}, Matching: 1, Repetition: Repetition{Windows: 2}},
	}
	sequences := randomSequences(windows+texts+o.HoldOut, each, net.Vocab)
	steps := func(late [][]int) (before, long []Step) {
		o.Progress = func(s Step) {
			switch s.Name {
			case "distill long":
				long = append(long, s)
			case "held-out distill long":
			default:
				before = append(before, s)
			}
		}
		calibrated(t, net, 2, slices.Concat(sequences[:windows-texts], late, sequences[windows+texts:]), o)
		return before, long
	}
	before, long := steps(sequences[windows-texts : windows])
	otherBefore, otherLong := steps(sequences[windows : windows+texts])
	if len(before) == 0 || !reflect.DeepEqual(before, otherBefore) {
		t.Errorf("steps before the long texts saw their windows: %v and %v", before, otherBefore)
	}
	if len(long) == 0 || reflect.DeepEqual(long, otherLong) {
		t.Errorf("steps in long texts did not see their windows: %v and %v", long, otherLong)
	}
}

// TestDescentStreamsFollow: the streams of the descents' own tokens are where the same tokens are when they are held out, which
// go another way, behind fitted layers and behind polished ones.
func TestDescentStreamsFollow(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	sequences := randomSequences(16, 40, net.Vocab)
	cut := len(sequences) - o.HoldOut
	r := &run{engine: blas.New(2), net: net, options: o}
	if err := r.begin(model.NewBatch(sequences[:cut]), model.NewBatch(sequences[cut:])); err != nil {
		t.Fatal(err)
	}
	r.train = r.hold.clone()
	before := r.starts()
	var layers []*model.MLA
	var behind [][]float32
	same := func(when string) {
		for i, v := range r.hold.source {
			if math.Abs(float64(v-r.train.source[i])) > 1e-5 || math.Abs(float64(r.hold.converted[i]-r.train.converted[i])) > 1e-5 {
				t.Fatalf("%s: element %d: %g and %g, held out %g and %g", when, i, r.train.source[i], r.train.converted[i], v, r.hold.converted[i])
			}
		}
	}
	for layer := range net.Layers {
		a, _, err := r.layer(layer)
		if err != nil {
			t.Fatal(err)
		}
		layers, behind = append(layers, a), append(behind, slices.Clone(r.train.source))
		same("fitted")
	}
	fitted := slices.Clone(r.train.converted)
	r.options.Polish = Polish{Descent: Descent{Steps: 20, Sequences: 2, Rate: 1e-2}, Layers: net.Layers, EarlySteps: 20}
	see, decide := &course{r.train.batch, before.train, behind}, &course{r.hold.batch, before.hold.converted, behind}
	if err := r.polish(context.Background(), 0, layers, make([]LayerReport, net.Layers), before, see, decide); err != nil {
		t.Fatal(err)
	}
	same("polished")
	if slices.Equal(fitted, r.train.converted) {
		t.Error("the polish moved nothing")
	}
}

// TestChoosesTheBest: the candidate kept has the least isolated held-out error of all.
func TestChoosesTheBest(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	o.Refit = false
	sequences := randomSequences(24, 40, net.Vocab)
	_, all := calibrated(t, net, 2, sequences, o)
	least := math.Inf(1)
	for _, c := range o.Candidates {
		one := o
		one.Candidates = []mla.Candidate{c}
		_, reports := calibrated(t, net, 2, sequences, one)
		least = min(least, reports[0].Isolated)
	}
	if all[0].Isolated != least {
		t.Errorf("chose %g, the best candidate has %g", all[0].Isolated, least)
	}
}

// TestLossless: a layer that is MLA already stays so, in every mode.
func TestLossless(t *testing.T) {
	net, a := network(t, func(m *testmodel.Model) {
		m.Config["rope_scaling"] = map[string]any{"rope_type": "linear", "factor": 1e12}
	})
	for _, candidate := range []mla.Candidate{{}, {Refine: true, Sweeps: 2}, {Loose: true, Flat: 0.2}} {
		o := testOptions(a)
		o.Rank = 32 // hidden width: everything fits
		candidate.QueryPower, candidate.KeyWeight = 1, 1
		o.Candidates = []mla.Candidate{candidate}
		o.Polish = Polish{Descent: Descent{Steps: 20, Sequences: 2, Rate: 1e-3}, Layers: 2, EarlySteps: 20}
		o.Distill = []Distill{{Descent: Descent{Steps: 10, Sequences: 2, Rate: 1e-3}, Matching: 1}}
		layers, reports := calibrated(t, net, 2, randomSequences(16, 30, net.Vocab), o)
		for _, r := range reports {
			if r.Polish > 1e-3 || r.Drift > 1e-3 {
				t.Errorf("%s: %+v", candidate, r)
			}
		}
		if kl := divergence(t, net, layers, randomSequences(3, 30, net.Vocab), 0); kl > 1e-6 {
			t.Errorf("%s: divergence %g", candidate, kl)
		}
	}
}

// divergence is the mean over tokens of KL(source || converted), softened as [model.Network.Divergence] does.
func divergence(t *testing.T, net *model.Network, layers []*model.MLA, sequences [][]int, soft float64) float64 {
	t.Helper()
	e, b := blas.New(1), model.NewBatch(sequences)
	want, err := net.Forward(e, &b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := net.Embed(&b)
	if err != nil {
		t.Fatal(err)
	}
	forEachBlock(t, net, func(i int, block *model.Block) {
		block.Attention = layers[i]
		block.Forward(e, &b, got)
	})
	return net.Divergence(e, b.Tokens(), want, got, soft, nil) / float64(b.Tokens())
}

func forEachBlock(t *testing.T, net *model.Network, f func(i int, b *model.Block)) {
	t.Helper()
	for i := range net.Layers {
		b, err := net.Block(i)
		if err != nil {
			t.Fatal(err)
		}
		f(i, b)
		b.Close()
	}
}

// TestDescentGradient compares the derivative of the loss through layers, norms and MLPs with differences: the divergence
// of the logits, with and without the drift of the residual streams in it, and the drift behind a layer alone.
func TestDescentGradient(t *testing.T) {
	for _, c := range []struct {
		name           string
		first, matched int
		matching       float64
		logits         bool
	}{
		{"divergence", 0, 1, 0, true}, {"divergence and drift", 0, 0, 5, true}, {"divergence and drift behind the last", 0, 1, 5, true},
		{"drift", 0, 0, 1, false}, {"drift of the last alone", 1, 1, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) { testDescentGradient(t, c.first, c.matched, c.matching, c.logits) })
	}
}

// testDescentGradient takes the loss of the layers from first on, with the drift behind those from matched on.
func testDescentGradient(t *testing.T, first, matched int, matching float64, logits bool) {
	net, a := network(t, nil)
	o := testOptions(a)
	o.Refit = false
	sequences := randomSequences(12, 20, net.Vocab)
	all, _ := calibrated(t, net, 2, sequences, o)
	layers := all[first:]
	e := blas.New(2)
	set, err := newStreams(net, model.NewBatch(sequences[:3]))
	if err != nil {
		t.Fatal(err)
	}
	var behind [][]float32
	forEachBlock(t, net, func(i int, b *model.Block) {
		b.Forward(e, &set.batch, set.source)
		switch {
		case i < first:
			b.Attention = all[i]
			b.Forward(e, &set.batch, set.converted)
		case i < matched:
			behind = append(behind, nil)
		default:
			behind = append(behind, slices.Clone(set.source))
		}
	})
	see := &course{set.batch, set.converted, behind}
	d, err := newDescent(e, net, first, layers, see, see)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	d.matching, d.logits = matching, logits
	tokens, loss := set.batch.Tokens(), 0.0
	for i := range set.batch.Sequences() {
		loss += d.backward(i, 1/float32(tokens)) / float64(tokens)
	}
	lossNow := func() float64 {
		l := matching * meanDrift(t, net, first, layers, see)
		if logits {
			l += divergence(t, net, all, sequences[:3], softDivergence)
		}
		return l
	}
	if direct := lossNow(); math.Abs(direct-loss) > 1e-6*loss {
		t.Errorf("loss %g, direct %g", loss, direct)
	}
	for i, l := range layers {
		for _, c := range []struct {
			name         string
			values, grad []float32
		}{{"q", l.Q.F32, d.grads[i].Q}, {"down", l.KVDown.F32, d.grads[i].KVDown}, {"up", l.KVUp.F32, d.grads[i].KVUp}, {"o", l.O.F32, d.grads[i].O}, {"bias", l.OBias, d.grads[i].OBias}} {
			norm := 0.0
			for _, g := range c.grad {
				norm += float64(g) * float64(g)
			}
			norm = math.Sqrt(norm)
			// Along the gradient, far enough that float32 rounding is small beside the difference.
			step := 0.02 * loss / norm
			at := func(f float64) float64 {
				old := append([]float32(nil), c.values...)
				for j, g := range c.grad {
					c.values[j] += float32(f * step * float64(g) / norm)
				}
				l := lossNow()
				copy(c.values, old)
				return l
			}
			got := (at(1) - at(-1)) / (2 * step)
			if math.Abs(got-norm) > 0.01*norm {
				t.Errorf("layer %d, %s: derivative %g, by differences %g", first+i, c.name, norm, got)
			}
		}
	}
}

// meanDrift is the mean over tokens, and over the layers behind which c wants it, of |x - source|^2 / |source|^2, softened.
func meanDrift(t *testing.T, net *model.Network, first int, layers []*model.MLA, c *course) float64 {
	x, e, n, hidden, sum := slices.Clone(c.start), blas.New(1), c.batch.Tokens(), net.Hidden, 0.0
	matched := 0
	forEachBlock(t, net, func(i int, block *model.Block) {
		if i < first {
			return
		}
		block.Attention = layers[i-first]
		block.Forward(e, &c.batch, x)
		want := c.behind[i-first]
		if want == nil {
			return
		}
		matched++
		for token := range n {
			var off, size float64
			for j := token * hidden; j < (token+1)*hidden; j++ {
				off += (float64(x[j]) - float64(want[j])) * (float64(x[j]) - float64(want[j]))
				size += float64(want[j]) * float64(want[j])
			}
			sum += softDrift * math.Log(1+off/size/softDrift)
		}
	})
	return sum / float64(n*matched)
}

// TestDistillSlowsDown: at a rate far too high the steps are taken back until the rate serves, and the result is never
// worse than the start.
func TestDistillSlowsDown(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	sequences := randomSequences(16, 40, net.Vocab)
	reached := func(d Descent) (kl float64) {
		o.Distill = []Distill{{Descent: d}}
		o.Progress = func(s Step) {
			if s.Name == "held-out distill" && (s.Done == 0 || s.Figure < kl) {
				kl = s.Figure
			}
		}
		calibrated(t, net, 2, sequences, o)
		return kl
	}
	start := reached(Descent{Steps: 1, Sequences: 2, Rate: 1e-9})
	if got := reached(Descent{Steps: 8 * CheckEvery, Sequences: 4, Rate: 3}); got > 0.98*start {
		t.Errorf("divergence %g, %g before", got, start)
	}
}

func TestTypical(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		losses []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{5, 1, 3}, 3},
		{[]float64{2, 100, 4, 0}, 3},
		{[]float64{7, 1, 900, 2, 3, 800, 4, 0}, 4}, // 2, 3, 4, 7
		{[]float64{1, 2, inf, 3, 4}, inf},
		{[]float64{1, nan, 2, 3, 4}, nan},
	} {
		if got := typical(c.losses); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%v: %g, want %g", c.losses, got, c.want)
		}
	}
}

// TestHeldOut compares the held-out loss with that of every sequence by itself, token by token.
func TestHeldOut(t *testing.T) {
	net, a := network(t, nil)
	o := testOptions(a)
	sequences := randomSequences(12, 40, net.Vocab)
	sequences[10] = sequences[10][:17]
	e := blas.New(1)
	layers, _ := calibrated(t, net, 1, sequences, o)
	hold := &course{batch: model.NewBatch(sequences[8:]), behind: make([][]float32, 2)}
	var err error
	if hold.start, err = net.Embed(&hold.batch); err != nil {
		t.Fatal(err)
	}
	source, got := slices.Clone(hold.start), slices.Clone(hold.start)
	losses, kl := make([]float64, 4), make([]float64, 4)
	d := net.Hidden
	for layer := range 2 {
		block, err := net.Block(layer)
		if err != nil {
			t.Fatal(err)
		}
		block.Forward(e, &hold.batch, source)
		converted(block, layers[layer]).Forward(e, &hold.batch, got)
		block.Close()
		hold.behind[layer] = slices.Clone(source)
		for s := range losses {
			lo, hi := hold.batch.Starts[s], hold.batch.Starts[s+1]
			for token := lo; token < hi; token++ {
				off, size := 0.0, 0.0
				for j := token * d; j < (token+1)*d; j++ {
					off += math.Pow(float64(got[j]-source[j]), 2)
					size += math.Pow(float64(source[j]), 2)
				}
				losses[s] += math.Log(1+4*off/size) / 4 / float64(2*(hi-lo))
			}
			if layer == 1 {
				kl[s] = net.Divergence(e, hi-lo, source[lo*d:hi*d], got[lo*d:hi*d], 0, nil) / float64(hi-lo)
			}
		}
	}
	descent, err := newDescent(e, net, 0, layers, hold, hold)
	if err != nil {
		t.Fatal(err)
	}
	defer descent.close()
	for logits, each := range map[bool][]float64{false: losses, true: kl} {
		descent.logits = logits
		want := slices.Sorted(slices.Values(each))
		middle := (want[1] + want[2]) / 2
		if got, err := descent.heldOut(layers); err != nil || math.Abs(got-middle) > 1e-5*middle {
			t.Errorf("logits %v: %g, want %g of %v: %v", logits, got, middle, want, err)
		}
	}
}

func TestRefusesTooFewSequences(t *testing.T) {
	net, a := network(t, nil)
	if _, _, err := Run(context.Background(), blas.New(1), net, randomSequences(4, 20, net.Vocab), testOptions(a)); err == nil {
		t.Error("accepted as many sequences as are held out")
	}
	bad := randomSequences(8, 20, net.Vocab)
	bad[7][3] = net.Vocab
	if _, _, err := Run(context.Background(), blas.New(1), net, bad, testOptions(a)); err == nil {
		t.Error("accepted an id outside the vocabulary")
	}
}

func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		step     int
		constant float64
		want     float64
	}{{0, 0.5, 0.1}, {9, 0.5, 1}, {50, 0.5, 1}, {75, 0.5, 0.5}, {99, 0.5, 0.02}, {0, 0, 0.1}, {25, 0, 0.75}, {75, 0, 0.25}} {
		if got := schedule(c.step, 100, c.constant); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("step %d of 100, constant for %g of them: %g, want %g", c.step, c.constant, got, c.want)
		}
	}
}
