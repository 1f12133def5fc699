package convert

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
)

func recipe(rank, ropeDim int, dtype string) Recipe {
	r := DefaultRecipe()
	r.Rank, r.RopeDim, r.DType = rank, ropeDim, dtype
	return r
}

func extra(name string, shape ...int) testmodel.Tensor {
	n := 1
	for _, k := range shape {
		n *= k
	}
	return testmodel.Tensor{Name: name, DType: "F32", Shape: shape, Data: make([]byte, 4*n)}
}

// TestLedger: every source tensor is there once, with what becomes of it, and the targets are the layout's tensors.
func TestLedger(t *testing.T) {
	s := testmodel.Tiny
	s.Tied = true
	m := testmodel.New(s)
	m.Tensors = append(m.Tensors, extra("model.layers.0.self_attn.rotary_emb.inv_freq", 4))
	src := m.Open(t)
	p, err := NewPlan(src, recipe(12, 4, DTypeKeep))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	count := make(map[Action]int)
	targets := make(map[string]bool)
	for _, e := range p.Ledger {
		names = append(names, e.Tensor)
		count[e.Action]++
		for _, name := range e.Targets {
			targets[name] = true
		}
		if (e.Action == Dropped) != (e.Reason != "") || (e.Action == Dropped) != (len(e.Targets) == 0) {
			t.Errorf("%+v", e)
		}
	}
	if !slices.Equal(names, src.Names()) {
		t.Errorf("ledger of %v, want %v", names, src.Names())
	}
	if count[Converted] != 4*s.Layers || count[Copied] != 5*s.Layers+2 || count[Dropped] != 1 {
		t.Errorf("counts %v", count)
	}
	written := 0
	for _, shard := range p.Layout.Shards {
		written += len(shard.Tensors)
		for _, tensor := range shard.Tensors {
			// The constant channel and the biases come from no source tensor.
			fresh := strings.HasSuffix(tensor.Name, "bias") || strings.HasSuffix(tensor.Name, "kv_a_layernorm.weight")
			if targets[tensor.Name] == fresh {
				t.Errorf("%s: a target of the ledger: %v", tensor.Name, targets[tensor.Name])
			}
		}
	}
	if written != 12*s.Layers+3 {
		t.Errorf("%d tensors in the layout", written)
	}
	if _, head, ok := p.Layout.Lookup("lm_head.weight"); !ok || !slices.Equal(head.Shape, []int{s.Vocab, s.Hidden}) {
		t.Errorf("head %+v", head)
	}
	if want := (Cache{Source: 32, Target: 16, Ratio: 0.5}); p.Cache != want {
		t.Errorf("cache %+v, want %+v", p.Cache, want)
	}
}

// TestProblems: everything that is wrong is listed at once, by tensor.
func TestProblems(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(m *testmodel.Model)
		kind  checkpoint.Kind
		says  []string
	}{
		{"many", func(m *testmodel.Model) {
			m.Drop("model.layers.1.self_attn.v_proj.weight")
			m.Get("model.layers.0.self_attn.q_proj.weight").Shape = []int{16, 64}
			m.Get("model.layers.2.mlp.up_proj.weight").DType = "I16"
			m.Tensors = append(m.Tensors, extra("model.layers.3.mlp.up_proj.weight", 2), extra("model.layers.0.self_attn.q_proj.bias", 32))
		}, checkpoint.BadSource, []string{
			"model.layers.1.self_attn.v_proj.weight: no such tensor", "q_proj.weight: shape [16, 64], expected [32, 32]",
			"up_proj.weight: dtype I16", "model.layers.3.mlp.up_proj.weight: a tensor of layer 3", "q_proj.bias: a tensor that llama checkpoints do not have",
		}},
		{"unknown", func(m *testmodel.Model) { m.Tensors = append(m.Tensors, extra("visual.proj", 2)) }, checkpoint.Unsupported, []string{"visual.proj"}},
		{"no head", func(m *testmodel.Model) { m.Drop("lm_head.weight") }, checkpoint.BadSource, []string{"lm_head.weight", "does not tie"}},
		{"embedding", func(m *testmodel.Model) { m.Config["vocab_size"] = 65 }, checkpoint.BadSource, []string{"embed_tokens", "lm_head", "[65, 32]"}},
		{"layers", func(m *testmodel.Model) { m.Config["num_hidden_layers"] = 1 << 28 }, checkpoint.BadSource, []string{"num_hidden_layers", "268435456"}},
		{"config", func(m *testmodel.Model) { m.Config["model_type"] = "gpt2" }, checkpoint.Unsupported, []string{"gpt2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := testmodel.New(testmodel.Tiny)
			c.spoil(m)
			_, err := NewPlan(m.Open(t), recipe(12, 4, DTypeKeep))
			var problems Problems
			var one *checkpoint.Error
			if err == nil {
				t.Fatal("no error")
			}
			if errors.As(err, &problems) {
				if problems.Kind() != c.kind {
					t.Errorf("kind %v, want %v", problems.Kind(), c.kind)
				}
			} else if !errors.As(err, &one) || one.Kind != c.kind {
				t.Errorf("%v, want kind %v", err, c.kind)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%v\nwant it to say %q", err, s)
				}
			}
			if n := strings.Count(err.Error(), "\n") + 1; n != max(1, len(c.says)) && c.name == "many" {
				t.Errorf("%d problems, want %d:\n%v", n, len(c.says), err)
			}
		})
	}
}

// TestProblemsAreBounded: a source without any of its layers is not a hundred thousand lines.
func TestProblemsAreBounded(t *testing.T) {
	m := testmodel.New(testmodel.Tiny)
	m.Config["num_hidden_layers"] = 20
	_, err := NewPlan(m.Open(t), recipe(12, 4, DTypeKeep))
	if err == nil || strings.Count(err.Error(), "\n") != maxProblems || !strings.Contains(err.Error(), "and 113 more problems") {
		t.Error(err) // 17 missing layers of 9 tensors
	}
}

func TestWarnings(t *testing.T) {
	s := testmodel.Tiny
	m := testmodel.New(s)
	for _, c := range []struct {
		recipe Recipe
		says   string
	}{
		{recipe(12, 4, DTypeKeep), ""},
		{recipe(33, 4, DTypeKeep), "cache does not shrink: 37 floats per token and layer, the source's is 32"},
		{recipe(34, 4, DTypeKeep), "rank 34: at most 33 rows are of use"},
		{recipe(12, 10, DTypeKeep), "a head rotates only 8"},
	} {
		p, err := NewPlan(m.Open(t), c.recipe)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(p.Warnings, "\n"); (c.says == "") != (got == "") || !strings.Contains(got, c.says) {
			t.Errorf("%+v: warnings %q, want %q", c.recipe, got, c.says)
		}
	}
}

func TestRecipeCheck(t *testing.T) {
	for _, spoil := range []func(*Recipe){
		func(r *Recipe) { r.Rank = 1 }, func(r *Recipe) { r.Rank = -3 }, func(r *Recipe) { r.Rank = 1 << 30 },
		func(r *Recipe) { r.RopeDim = 7 }, func(r *Recipe) { r.RopeDim = -2 }, func(r *Recipe) { r.DType = "q8" },
		func(r *Recipe) { r.Method = "?" }, func(r *Recipe) { r.MaxShardBytes = 0 }, func(r *Recipe) { r.Context = -1 },
	} {
		r := DefaultRecipe()
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		spoil(&r)
		if r.Check() == nil {
			t.Errorf("accepted %+v", r)
		}
	}
}

// TestDefaults: rope-dim is 64 or the head's width, the context the source's, the dtype the attention's.
func TestDefaults(t *testing.T) {
	p, err := NewPlan(testmodel.New(testmodel.Tiny).Open(t), DefaultRecipe())
	if err != nil {
		t.Fatal(err)
	}
	if p.Recipe.Rank != 512 || p.Recipe.RopeDim != 8 || p.Recipe.Context != 128 || p.TargetDType() != checkpoint.BF16 {
		t.Errorf("got %+v, %v", p.Recipe, p.TargetDType())
	}

	mixed := testmodel.New(testmodel.Tiny)
	v := mixed.Get("model.layers.1.self_attn.v_proj.weight")
	v.DType, v.Data = "F16", testmodel.Encode("F16", make([]float32, len(v.Data)/2))
	norm := mixed.Get("model.norm.weight")
	norm.DType, norm.Data = "F32", testmodel.Encode("F32", make([]float32, len(norm.Data)/2))
	if p, err = NewPlan(mixed.Open(t), recipe(12, 8, DTypeKeep)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]checkpoint.DType{
		"model.layers.0.self_attn.q_proj.weight": checkpoint.F32, "model.layers.0.mlp.up_proj.weight": checkpoint.BF16, "model.norm.weight": checkpoint.F32,
	} {
		if _, tensor, ok := p.Layout.Lookup(name); !ok || tensor.DType != want {
			t.Errorf("%s: %v, want %v", name, tensor.DType, want)
		}
	}
	if !strings.Contains(strings.Join(p.Warnings, "\n"), "several dtypes") {
		t.Errorf("warnings %q", p.Warnings)
	}
	if p, err = NewPlan(mixed.Open(t), recipe(12, 8, "f16")); err != nil {
		t.Fatal(err)
	}
	for _, shard := range p.Layout.Shards {
		for _, tensor := range shard.Tensors {
			if tensor.DType != checkpoint.F16 {
				t.Errorf("%s: %v with --dtype f16", tensor.Name, tensor.DType)
			}
		}
	}
}

func TestFiles(t *testing.T) {
	src := testmodel.New(testmodel.Tiny).Open(t)
	for _, name := range []string{"tokenizer.json", "chat_template.jinja", "README.md", "pytorch_model.bin", "notes.txt", "LICENSE", "other.safetensors"} {
		if err := os.WriteFile(filepath.Join(src.Dir(), name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(src.Dir(), "onnx"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(src.Dir(), templatesFolder), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rag.jinja", "notes.md"} {
		if err := os.WriteFile(filepath.Join(src.Dir(), templatesFolder, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(src.Dir(), "tokenizer.model")); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(src.Dir(), "vocab.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tokenizer.json", filepath.Join(src.Dir(), "tekken.json")); err != nil {
		t.Fatal(err)
	}
	p, err := NewPlan(src, recipe(12, 8, DTypeKeep))
	if err != nil {
		t.Fatal(err)
	}
	if w := strings.Join(p.Warnings, "\n"); w != "tokenizer.model is not copied: a link to nothing\nvocab.json is not copied: a link out of its folder" {
		t.Errorf("warnings %q", w)
	}
	files := p.Files
	var got []string
	for _, f := range files {
		if f.Copied != (f.Reason == "") {
			t.Errorf("%+v", f)
		}
		got = append(got, fmt.Sprintf("%s %v", f.Name, f.Copied))
	}
	want := []string{
		"LICENSE true", "README.md false", "additional_chat_templates/notes.md false", "additional_chat_templates/rag.jinja true", "chat_template.jinja true", "config.json false", "notes.txt false", "onnx false",
		"other.safetensors false", "pytorch_model.bin false", "tekken.json true", "tokenizer.json true", "tokenizer.model false", "vocab.json false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSchedule(t *testing.T) {
	p, err := NewPlan(testmodel.New(testmodel.Tiny).Open(t), recipe(12, 8, DTypeKeep))
	if err != nil {
		t.Fatal(err)
	}
	// The least limit for so many layers at once.
	peak := func(jobs int) int64 {
		return int64(math.Ceil(float64(p.PeakMemory(Schedule{Jobs: jobs}))/(1-margin))) + 1
	}
	for _, c := range []struct {
		wanted int
		limit  int64
		want   int
	}{
		{1, 0, 1}, {2, 0, 2}, {99, 0, 3}, {0, 0, 1},
		{3, peak(3), 3}, {3, peak(3) - 3, 2}, {3, peak(2) - 3, 1}, {3, peak(1), 1},
	} {
		if got, err := p.Schedule(c.wanted, c.limit); err != nil || got != (Schedule{Jobs: c.want}) {
			t.Errorf("%+v: got %+v, %v", c, got, err)
		}
	}
	_, err = p.Schedule(1, peak(1)-3)
	var e *checkpoint.Error
	if !errors.As(err, &e) || e.Kind != checkpoint.NoSpace {
		t.Errorf("too little memory: %v", err)
	}
}

// TestLeanSchedule: whatever the limit, a calibration's schedule keeps to it, the wider the limit the less it saves, and where
// nothing fits the error says what would.
func TestLeanSchedule(t *testing.T) {
	shape := testmodel.Tiny
	shape.Vocab, shape.Intermediate = 1<<17, 256 // large beside the program itself
	r := recipe(12, 8, DTypeKeep)
	r.Method, r.Calibration = Calibrated, &Calibration{Source: CalibrationSelf, Tokens: 1 << 17, Window: 32, Effort: calibrate.Balanced, Seed: 1}
	p, err := NewPlan(testmodel.New(shape).Open(t), r)
	if err != nil {
		t.Fatal(err)
	}
	most := p.PeakMemory(Schedule{Jobs: 3})
	saved, ways := -1, 0
	for limit := int64(float64(most)/(1-margin)) + 1; ; limit -= most / 500 {
		s, err := p.Schedule(3, limit)
		if err != nil {
			var e *checkpoint.Error
			if !errors.As(err, &e) || e.Kind != checkpoint.NoSpace {
				t.Fatal(err)
			}
			break
		}
		if got := p.PeakMemory(s); got > limit {
			t.Errorf("limit %d: %+v takes %d", limit, s, got)
		}
		saves := 0
		for _, on := range []bool{s.InFlight > 0, s.Recompute, s.Release, s.Together > 0} {
			if on {
				saves++
			}
		}
		if saves < saved {
			t.Errorf("limit %d: %+v saves less than under a wider limit", limit, s)
		}
		if saves > saved {
			saved = saves
			ways++
		}
	}
	if ways < 3 {
		t.Errorf("%d different schedules", ways)
	}
}

func TestLayerOf(t *testing.T) {
	for name, want := range map[string]int{
		"model.layers.0.x": 0, "model.layers.17.self_attn.q_proj.weight": 17, "model.layers.x.y": -1, "model.layers.3": -1,
		"model.layers.-1.x": -1, "lm_head.weight": -1, "model.layers.99999999999999999999.x": -1,
	} {
		got, ok := layerOf("model.layers.%d.", name)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%s: got %d, %v", name, got, ok)
		}
	}
}

// TestCopiesAreForSamples: only what a source writes itself is given copies, in its windows and in its long texts.
func TestCopiesAreForSamples(t *testing.T) {
	for source, want := range map[string]bool{CalibrationSelf: true, "text.txt": false} {
		c := Calibration{Source: source, Effort: calibrate.Best}
		o := c.preset(32, 32)
		if got := o.Copies.Windows(2, calibrate.Window) > 0; got != want {
			t.Errorf("%s: windows that repeat themselves: %t", source, got)
		}
		for i, d := range o.Distill {
			if got := d.Share > 0; got != (want && d.Windows > 1) {
				t.Errorf("%s: correction %d: copies: %t", source, i, got)
			}
		}
	}
}
