package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/blas"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/model"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/internal/ui"
	"github.com/mlaconvert/mlaconvert/mla"
	"github.com/mlaconvert/mlaconvert/svd"
)

// watcher is a Progress that calls done with the finished layers.
type watcher struct{ done func(n int64) }

func (watcher) Phase(string, int64, ui.Unit) {}
func (watcher) Note(string)                  {}
func (w watcher) Done(n int64) {
	if w.done != nil {
		w.done(n)
	}
}

func run1(t *testing.T, ctx context.Context, src *checkpoint.Source, r Recipe, o RunOptions) (*Outcome, error) {
	t.Helper()
	p, err := NewPlan(src, r)
	if err != nil {
		t.Fatal(err)
	}
	o.SourcePath, o.Version = src.Dir(), "test"
	if o.Schedule.Jobs == 0 {
		o.Schedule.Jobs = 1
	}
	if o.Progress == nil {
		o.Progress = watcher{}
	}
	return Run(ctx, p, o)
}

// folder reads all files of a folder.
func folder(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	listing, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range listing {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name()] = string(b)
	}
	return out
}

func sameFolders(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s: %s differs", what, name)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: files %v, want %v", what, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// TestScheduleKeepsBytes: a calibration that saves memory gives the same, in either dialect.
func TestScheduleKeepsBytes(t *testing.T) {
	src := testmodel.New(testmodel.Tiny).Open(t)
	for _, name := range []string{"transformers", "llama.cpp"} {
		r := recipe(12, 8, DTypeKeep)
		r.Engine = name
		r.Method, r.Calibration = Calibrated, &Calibration{Source: CalibrationSelf, Tokens: 1280, Window: 32, Effort: calibrate.Balanced, Seed: 1}
		var want map[string]string
		for _, schedule := range []Schedule{{Jobs: 1}, {Jobs: 2, Together: 3, InFlight: 32, Recompute: true, Release: true}} {
			out := filepath.Join(t.TempDir(), "out")
			if _, err := run1(t, context.Background(), src, r, RunOptions{Out: out, Schedule: schedule}); err != nil {
				t.Fatal(err)
			}
			if got := folder(t, out); want == nil {
				want = got
			} else {
				sameFolders(t, name+", "+schedule.String(), got, want)
			}
		}
	}
}

// meeting is a converter whose layers are not done before all have begun, which it then tells of.
type meeting struct {
	converter
	ctx    context.Context
	absent atomic.Int32
	begun  chan struct{}
	tell   func()
}

func (m *meeting) convert(e *blas.Engine, layer, rank int, known func(*outer)) (*result, error) {
	if m.absent.Add(-1) == 0 {
		m.tell()
		close(m.begun)
	}
	select {
	case <-m.begun:
		return m.converter.convert(e, layer, rank, known)
	case <-m.ctx.Done():
		return nil, m.ctx.Err()
	}
}

// TestLayersWaitForNothing: as many layers as there are jobs are computed at once, although what comes before them in the output
// has not entered the journal, which it cannot before the source is identified.
func TestLayersWaitForNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	src := testmodel.New(testmodel.Tiny).Open(t)
	p, err := NewPlan(src, recipe(12, 8, DTypeKeep))
	if err != nil {
		t.Fatal(err)
	}
	if first := p.units[0]; first.layer >= 0 {
		t.Fatalf("%s comes first: this test wants what belongs to no layer", first.name)
	}
	out := filepath.Join(t.TempDir(), "out")
	w, err := checkpoint.Create(out, p.Layout, checkpoint.WriterOptions{Pending: true, Extra: p.filesBytes()})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{plan: p, writer: w, progress: watcher{}, layers: make([]*Layer, p.Source.Layers), identified: make(chan struct{})}
	m := &meeting{converter: newConverter(p, &RunOptions{}, w), ctx: ctx, begun: make(chan struct{}), tell: func() {
		r.unidentified = w.Identify("a source")
		close(r.identified)
	}}
	m.absent.Store(int32(p.Source.Layers))
	r.converter = m
	if err := r.convert(ctx, p.Source.Layers); err != nil {
		t.Fatal(err)
	}
	if r.done != p.Source.Layers || r.units != len(p.units) || slices.Contains(r.layers, nil) {
		t.Errorf("%d layers and %d of %d units done", r.done, r.units, len(p.units))
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestRunIsDeterministic: the output is the same for any number of jobs, and after any interruption and resumption.
func TestRunIsDeterministic(t *testing.T) {
	s := testmodel.Tiny
	s.Layers = 6
	m := testmodel.New(s)
	src := m.Open(t)
	if err := os.WriteFile(filepath.Join(src.Dir(), "tokenizer.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := recipe(12, 8, DTypeKeep)
	r.MaxShardBytes = 20000
	dir := t.TempDir()
	first := filepath.Join(dir, "first")
	if _, err := run1(t, context.Background(), src, r, RunOptions{Out: first}); err != nil {
		t.Fatal(err)
	}
	want := folder(t, first)
	for _, name := range []string{"config.json", "README.md", RecordFile, "tokenizer.json", "model.safetensors.index.json", "model-00001-of-00007.safetensors"} {
		if want[name] == "" {
			t.Errorf("no %s among %v", name, slices.Sorted(maps.Keys(want)))
		}
	}
	for _, jobs := range []int{2, 4, 9} {
		out := filepath.Join(dir, "jobs")
		if _, err := run1(t, context.Background(), src, r, RunOptions{Out: out, Schedule: Schedule{Jobs: jobs}, Force: true}); err != nil {
			t.Fatal(err)
		}
		sameFolders(t, "jobs", folder(t, out), want)
	}
	for stop := range int64(6) {
		out := filepath.Join(dir, "resumed")
		ctx, cancel := context.WithCancel(context.Background())
		_, err := run1(t, ctx, src, r, RunOptions{Out: out, Force: true, Schedule: Schedule{Jobs: int(1 + stop%2)}, Progress: watcher{func(n int64) {
			if n == stop+1 && n < 7 {
				cancel()
			}
		}}})
		cancel()
		var interrupted *Interrupted
		if !errors.As(err, &interrupted) || !errors.Is(err, context.Canceled) || interrupted.Done < 1 || !interrupted.Kept {
			t.Fatalf("stopped at %d: %v", stop, err)
		}
		if _, err := os.Stat(out + ".partial"); err != nil {
			t.Fatal(err)
		}
		_, err = run1(t, context.Background(), src, recipe(13, 8, DTypeKeep), RunOptions{Out: out, Resume: true})
		var mismatch *checkpoint.Error
		if !errors.As(err, &mismatch) || mismatch.Kind != checkpoint.Exists {
			t.Fatalf("resumed with another recipe: %v", err)
		}
		outcome, err := run1(t, context.Background(), src, r, RunOptions{Out: out, Resume: true})
		if err != nil {
			t.Fatal(err)
		}
		if outcome.Resumed != interrupted.Done {
			t.Errorf("resumed %d layers, %d were done", outcome.Resumed, interrupted.Done)
		}
		sameFolders(t, "resumed", folder(t, out), want)
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestCalibratedRunResumes: what the calibration has done, the samples and the choice of the rotary base too, survives an
// interruption in it, behind it, and after the last layer, and is not done again.
func TestCalibratedRunResumes(t *testing.T) {
	s := testmodel.Tiny
	s.Layers = 2
	src := testmodel.New(s).Open(t)
	r := recipe(12, 4, DTypeKeep) // two slots for four rotary pairs, so that there is a base to choose
	r.Context = 128
	r.Method = Calibrated
	r.Calibration = &Calibration{Source: CalibrationSelf, Tokens: 256, Window: 32, Effort: calibrate.Fast, Seed: 4}
	dir := t.TempDir()
	first := filepath.Join(dir, "first")
	if _, err := run1(t, context.Background(), src, r, RunOptions{Out: first, Schedule: Schedule{Jobs: 2}}); err != nil {
		t.Fatal(err)
	}
	want := folder(t, first)
	chosen, err := arch.ParseMLA([]byte(want["config.json"]))
	if err != nil {
		t.Fatal(err)
	}
	if chosen.Rope.Theta == 10000 {
		t.Fatal("the calibration chose the source's own rotary base, which this test cannot tell from a lost choice")
	}
	const sampling, choosing, calibrating, converting = "sampling calibration tokens", "choosing the rotary base", "calibrating", "converting"
	for _, c := range []struct {
		phase string
		stop  int64
		again []string
	}{
		{choosing, 7, []string{calibrating, converting}},
		{calibrating, 1, []string{calibrating, converting}},
		{calibrating, 2, []string{calibrating, converting}},
		{converting, 1, []string{calibrating, converting}},
		{converting, 2, []string{converting}},
	} {
		what := fmt.Sprintf("stopped at %d of %s", c.stop, c.phase)
		out := filepath.Join(dir, "resumed")
		ctx, cancel := context.WithCancel(context.Background())
		w := &phaseWatcher{at: c.phase, stop: c.stop, cancel: cancel}
		_, err := run1(t, ctx, src, r, RunOptions{Out: out, Progress: w})
		cancel()
		var interrupted *Interrupted
		if !errors.As(err, &interrupted) || !interrupted.Kept {
			t.Fatalf("%s: %v", what, err)
		}
		if interrupted.Done == s.Layers { // the last layer may be entered while the run is being stopped
			c.again = []string{converting}
		}
		w = new(phaseWatcher)
		if _, err := run1(t, context.Background(), src, r, RunOptions{Out: out, Resume: true, Progress: w}); err != nil {
			t.Fatal(err)
		}
		w.phases = slices.DeleteFunc(w.phases, func(name string) bool {
			return !slices.Contains([]string{sampling, choosing, calibrating, converting}, name)
		})
		if !slices.Equal(w.phases, c.again) {
			t.Errorf("%s: went on with %v, want %v", what, w.phases, c.again)
		}
		sameFolders(t, what, folder(t, out), want)
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
	}
}

// phaseWatcher notes the phases, and cancels when so much of one is done.
type phaseWatcher struct {
	watcher
	phases []string
	at     string
	stop   int64
	cancel func()
}

func (w *phaseWatcher) Phase(name string, _ int64, _ ui.Unit) { w.phases = append(w.phases, name) }
func (w *phaseWatcher) Done(n int64) {
	if len(w.phases) > 0 && w.phases[len(w.phases)-1] == w.at && n == w.stop {
		w.cancel()
	}
}

// TestRunOutput: the engine computes from the output what mla.Convert made of the source, everything else is the source's,
// and the record says what was done.
func TestRunOutput(t *testing.T) {
	for _, dtype := range []string{"BF16", "F16", "F32"} {
		s := testmodel.Tiny
		s.DType, s.Tied = dtype, dtype == "F16"
		m := testmodel.New(s)
		src := m.Open(t)
		r := recipe(12, 8, "f32")
		out := filepath.Join(t.TempDir(), "out")
		outcome, err := run1(t, context.Background(), src, r, RunOptions{Out: out})
		if err != nil {
			t.Fatal(err)
		}
		dst := testmodel.OpenDir(t, out)
		parsed, err := arch.ParseMLA(dst.Config())
		if err != nil {
			t.Fatal(err)
		}
		net, err := model.OpenMLA(dst, parsed)
		if err != nil {
			t.Fatal(err)
		}
		record, err := ReadRecord(out)
		if err != nil {
			t.Fatal(err)
		}
		p, err := NewPlan(src, r)
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(4, 4))
		for layer := range s.Layers {
			source, err := openLayer(p, layer)
			if err != nil {
				t.Fatal(err)
			}
			// The conversion has of queries and output a part in memory at a time, and this all.
			for tensor, to := range map[*checkpoint.Tensor]*svd.Matrix{source.q: &source.Q, source.o: &source.O} {
				if *to, err = widen(tensor); err != nil {
					t.Fatal(err)
				}
			}
			gamma := source.gamma
			converted, err := mla.Convert(&source.Source, mla.DataFree(nil, &source.Source, gamma, 128), mla.Options{
				Rank: 11, Frequencies: p.Source.Rope.Frequencies(8), Slots: mla.SlotOptions{QueryPower: 1},
			})
			if err != nil {
				t.Fatal(err)
			}
			if l := record.Layers[layer]; l != outcome.Record.Layers[layer] || l.Layer != layer || l.Discarded != converted.Joint.Discarded || l.RotaryShare != converted.RotaryShare {
				t.Errorf("%s: layer %d recorded as %+v", dtype, layer, l)
			}
			x := normedInputs(random, 10, gamma)
			block, err := net.Block(layer)
			if err != nil {
				t.Fatal(err)
			}
			h, y := make([]float32, len(x.Data)), make([]float32, len(x.Data))
			for i, v := range x.Data {
				h[i] = float32(v)
			}
			batch := model.NewBatch([][]int{make([]int, x.Rows)})
			block.Attention.Forward(blas.New(1), &batch, h, y)
			got := svd.NewMatrix(x.Rows, x.Cols)
			for i, v := range y {
				got.Data[i] = float64(v)
			}
			if e := relativeError(got, converted.Attention.Expanded(x)); !(e < 2e-6) {
				t.Errorf("%s: layer %d: relative error %g", dtype, layer, e)
			}
			block.Close()
		}
		for _, e := range p.Ledger {
			if e.Action != Copied {
				continue
			}
			from, _ := src.Get(e.Tensor)
			a, err := from.Float32(nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range e.Targets {
				to, ok := dst.Get(name)
				if !ok {
					t.Fatalf("no %s", name)
				}
				if b, err := to.Float32(nil); err != nil || !slices.Equal(a, b) {
					t.Errorf("%s is not a copy of %s (%v)", name, e.Tensor, err)
				}
			}
		}
	}
}

// TestKeepCopiesBytes: with dtype keep, what is copied and the output projection are the source's bytes.
func TestKeepCopiesBytes(t *testing.T) {
	src := testmodel.New(testmodel.Tiny).Open(t)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := run1(t, context.Background(), src, recipe(12, 8, DTypeKeep), RunOptions{Out: out}); err != nil {
		t.Fatal(err)
	}
	dst := testmodel.OpenDir(t, out)
	for _, name := range []string{"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.2.mlp.down_proj.weight", "model.layers.1.self_attn.o_proj.weight"} {
		a, _ := src.Get(name)
		b, _ := dst.Get(name)
		if a.DType != b.DType || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("%s differs", name)
		}
	}
}

// TestFailedRunLeavesNothing: what is wrong with a weight is found when it is read, names it, and no file is left.
func TestFailedRunLeavesNothing(t *testing.T) {
	spoil := func(name string) func(m *testmodel.Model) {
		return func(m *testmodel.Model) {
			copy(m.Get(name).Data[6:], testmodel.Encode("BF16", []float32{float32(math.NaN())}))
		}
	}
	for _, c := range []struct {
		name  string
		tied  bool
		spoil func(m *testmodel.Model)
		dtype string
		says  []string
		kind  checkpoint.Kind
	}{
		{"NaN in a converted tensor", false, spoil("model.layers.1.self_attn.k_proj.weight"), DTypeKeep, []string{"model.safetensors", "model.layers.1.self_attn.k_proj.weight", "NaN", "row 0, column 3"}, checkpoint.BadSource},
		{"NaN in a copied tensor", false, spoil("model.layers.2.mlp.gate_proj.weight"), DTypeKeep, []string{"model.safetensors", "gate_proj", "NaN"}, checkpoint.BadSource},
		{"NaN in the norm", false, spoil("model.layers.0.input_layernorm.weight"), DTypeKeep, []string{"input_layernorm", "NaN"}, checkpoint.BadSource},
		{"too large for float16", false, func(m *testmodel.Model) {
			copy(m.Get("lm_head.weight").Data, testmodel.Encode("BF16", []float32{1e6}))
		}, "f16", []string{"lm_head.weight", "F16"}, checkpoint.Unsupported},
		{"another head beside a tied one", true, func(m *testmodel.Model) {
			head := *m.Get("model.embed_tokens.weight")
			head.Name, head.Data = "lm_head.weight", slices.Clone(head.Data)
			head.Data[0] ^= 1
			m.Tensors = append(m.Tensors, head)
		}, DTypeKeep, []string{"lm_head.weight", "tie_word_embeddings"}, checkpoint.BadSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testmodel.Tiny
			s.Tied = c.tied
			m := testmodel.New(s)
			c.spoil(m)
			dir := t.TempDir()
			_, err := run1(t, context.Background(), m.Open(t), recipe(12, 8, c.dtype), RunOptions{Out: filepath.Join(dir, "new", "out"), Schedule: Schedule{Jobs: 2}})
			var e *checkpoint.Error
			if !errors.As(err, &e) || e.Kind != c.kind {
				t.Fatalf("got %v, want kind %v", err, c.kind)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%v: want it to say %q", err, s)
				}
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// TestSameTiedHead: a head that is stored although it is tied is dropped.
func TestSameTiedHead(t *testing.T) {
	s := testmodel.Tiny
	s.Tied = true
	m := testmodel.New(s)
	head := *m.Get("model.embed_tokens.weight")
	head.Name = "lm_head.weight"
	m.Tensors = append(m.Tensors, head)
	if _, err := run1(t, context.Background(), m.Open(t), recipe(12, 8, DTypeKeep), RunOptions{Out: filepath.Join(t.TempDir(), "out")}); err != nil {
		t.Error(err)
	}
}

// TestSpectra: the share at a rank is what a conversion at that rank discards.
func TestSpectra(t *testing.T) {
	src := testmodel.New(testmodel.Tiny).Open(t)
	p, err := NewPlan(src, recipe(12, 8, DTypeKeep))
	if err != nil {
		t.Fatal(err)
	}
	ranks := p.SpectrumRanks()
	if !slices.Equal(ranks, []int{6, 12, 24}) {
		t.Fatalf("ranks %v", ranks)
	}
	spectra, err := p.Spectra(context.Background(), ranks, 2, watcher{})
	if err != nil {
		t.Fatal(err)
	}
	for i, rank := range ranks {
		q, err := NewPlan(src, recipe(rank, 8, DTypeKeep))
		if err != nil {
			t.Fatal(err)
		}
		for layer := range p.Source.Layers {
			r, err := newDataFree(q).convert(blas.New(1), layer, q.ContentRank(), nil)
			if err != nil {
				t.Fatal(err)
			}
			got, want := spectra[layer].Discarded[i], r.record.DiscardedShare
			if got.Rank != rank || got.Share < want-1e-9 || got.Share > want+1e-9 {
				t.Errorf("layer %d, rank %d: got %+v, want %g", layer, rank, got, want)
			}
		}
	}
}

func TestShellQuote(t *testing.T) {
	for s, want := range map[string]string{"a/b-1.0": "a/b-1.0", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "-x": "'-x'", "$(x)": "'$(x)'"} {
		if got := shellQuote(s); got != want {
			t.Errorf("%q: got %s, want %s", s, got, want)
		}
	}
}

func TestReadRecordRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "{}", "null", `{"schema":"other/1"}`, `{"schema":"mlaconvert.record/1","recipe":7}`} {
		if text != "" {
			if err := os.WriteFile(filepath.Join(dir, RecordFile), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		var e *checkpoint.Error
		if _, err := ReadRecord(dir); !errors.As(err, &e) || e.Kind != checkpoint.BadSource || !strings.Contains(err.Error(), RecordFile) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
