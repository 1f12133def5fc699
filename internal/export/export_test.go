package export

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/testmodel"
	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// silent is a Progress that counts calls of Done, and does something at one of them.
type silent struct {
	calls int
	at    func(n int)
}

func (s *silent) Phase(string, int64, ui.Unit) {}
func (s *silent) Done(int64) {
	if s.calls++; s.at != nil {
		s.at(s.calls)
	}
}

// writeModel writes a checkpoint with its tokenizer and opens it.
func writeModel(t *testing.T, m *testmodel.Model, files map[string]string) *checkpoint.Source {
	t.Helper()
	dir := t.TempDir()
	if err := m.Write(dir, 2); err != nil {
		t.Fatal(err)
	}
	if _, ok := files[tokenizerFile]; !ok {
		files = withFile(files, tokenizerFile, string(testmodel.ByteTokenizer(54)))
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src := testmodel.OpenDir(t, dir)
	return src
}

func withFile(files map[string]string, name, text string) map[string]string {
	out := map[string]string{name: text}
	for k, v := range files {
		out[k] = v
	}
	return out
}

// exported runs an export and reads the file.
func exported(t *testing.T, src *checkpoint.Source, o Options) (*Plan, *ggufFile) {
	t.Helper()
	p, err := NewPlan(src, o)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := p.Run(context.Background(), path, false, &silent{}); err != nil {
		t.Fatal(err)
	}
	f := readGGUF(t, path)
	if int64(len(f.bytes)) != p.Bytes || len(f.tensors) != p.Tensors {
		t.Errorf("%d bytes and %d tensors, planned %d and %d", len(f.bytes), len(f.tensors), p.Bytes, p.Tensors)
	}
	return p, f
}

func TestTensorsAreThoseOfTheCheckpoint(t *testing.T) {
	a := testmodel.TinyMLA
	for _, dtype := range []string{"F32", "F16", "BF16"} {
		m := testmodel.NewMLA(a, dtype, 1)
		p, f := exported(t, writeModel(t, m, nil), Options{Name: "tiny"})
		if p.DType != strings.ToLower(dtype) {
			t.Errorf("dtype %s by default, want that of the checkpoint, %s", p.DType, dtype)
		}
		source := func(name string) []float32 { return widen(dtype, m.Get(name).Data) }
		seen := 0
		check := func(name string, want []float32, dims ...uint64) {
			t.Helper()
			seen++
			got, ok := f.tensors[name]
			if !ok || !slices.Equal(got.dims, dims) {
				t.Errorf("%s: dims %v, want %v", name, got.dims, dims)
				return
			}
			if kind := map[string]uint32{"F32": 0, "F16": 1, "BF16": 30}[dtype]; len(dims) > 1 && got.kind != kind || len(dims) == 1 && got.kind != 0 {
				t.Errorf("%s: type %d", name, got.kind)
			}
			if values := f.values(name); !slices.Equal(values, want) {
				t.Errorf("%s: values differ", name)
			}
		}
		n := func(k int) uint64 { return uint64(k) }
		check("token_embd.weight", source("model.embed_tokens.weight"), n(a.Hidden), n(a.Vocab))
		check("output_norm.weight", source("model.norm.weight"), n(a.Hidden))
		check("output.weight", source("lm_head.weight"), n(a.Hidden), n(a.Vocab))
		for layer, prefix := range []string{"blk.0.", "blk.1."} {
			from := func(s string) []float32 { return source(arch.MLATensors.Layer(layer, s)) }
			check(prefix+"attn_norm.weight", from("input_layernorm.weight"), n(a.Hidden))
			check(prefix+"attn_q.weight", from("self_attn.q_proj.weight"), n(a.Hidden), n(a.Heads*(a.NoPEDim+a.RopeDim)))
			check(prefix+"attn_kv_a_mqa.weight", from("self_attn.kv_a_proj_with_mqa.weight"), n(a.Hidden), n(a.Rank+a.RopeDim))
			check(prefix+"attn_kv_a_norm.weight", from("self_attn.kv_a_layernorm.weight"), n(a.Rank))
			check(prefix+"attn_output.weight", from("self_attn.o_proj.weight"), n(a.Heads*a.VDim), n(a.Hidden))
			check(prefix+"ffn_norm.weight", from("post_attention_layernorm.weight"), n(a.Hidden))
			check(prefix+"ffn_gate.weight", from("mlp.gate_proj.weight"), n(a.Hidden), n(a.Intermediate))
			check(prefix+"ffn_up.weight", from("mlp.up_proj.weight"), n(a.Hidden), n(a.Intermediate))
			check(prefix+"ffn_down.weight", from("mlp.down_proj.weight"), n(a.Intermediate), n(a.Hidden))
			// Element by element, as the names of the axes say: up[h*(nope+v)+i][j].
			up := from("self_attn.kv_b_proj.weight")
			at := func(h, i, j int) float32 { return up[(h*(a.NoPEDim+a.VDim)+i)*a.Rank+j] }
			var k, v []float32
			for h := range a.Heads {
				for j := range a.Rank {
					for i := range a.NoPEDim {
						k = append(k, at(h, i, j))
					}
				}
				for i := range a.VDim {
					for j := range a.Rank {
						v = append(v, at(h, a.NoPEDim+i, j))
					}
				}
			}
			check(prefix+"attn_k_b.weight", k, n(a.NoPEDim), n(a.Rank), n(a.Heads))
			check(prefix+"attn_v_b.weight", v, n(a.Rank), n(a.VDim), n(a.Heads))
		}
		if seen != len(f.tensors) {
			t.Errorf("%d tensors, want %d", len(f.tensors), seen)
		}
	}
}

func TestMetadata(t *testing.T) {
	_, f := exported(t, writeModel(t, testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1), nil), Options{Name: "tiny", DType: "f16"})
	for key, want := range map[string]any{
		"general.architecture": "deepseek2", "general.type": "model", "general.name": "tiny", "general.file_type": uint32(1),
		"deepseek2.vocab_size": uint32(80), "deepseek2.context_length": uint32(128), "deepseek2.embedding_length": uint32(64),
		"deepseek2.block_count": uint32(2), "deepseek2.feed_forward_length": uint32(96), "deepseek2.attention.head_count": uint32(4),
		"deepseek2.attention.head_count_kv": uint32(1), "deepseek2.attention.layer_norm_rms_epsilon": float32(1e-5),
		"deepseek2.attention.q_lora_rank": uint32(0), "deepseek2.attention.kv_lora_rank": uint32(32),
		"deepseek2.attention.key_length": uint32(40), "deepseek2.attention.value_length": uint32(32),
		"deepseek2.attention.key_length_mla": uint32(24), "deepseek2.attention.value_length_mla": uint32(12),
		"deepseek2.rope.dimension_count": uint32(8), "deepseek2.rope.freq_base": float32(10000),
		"deepseek2.leading_dense_block_count": uint32(2), "deepseek2.expert_count": uint32(0), "deepseek2.expert_used_count": uint32(0),
		"deepseek2.expert_shared_count": uint32(0), "deepseek2.expert_feed_forward_length": uint32(96),
		"tokenizer.ggml.bos_token_id": uint32(1), "tokenizer.ggml.eos_token_id": uint32(2), "tokenizer.ggml.pre": "gpt-2",
	} {
		if got, ok := f.metadata[key]; !ok || got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	for key := range f.metadata {
		if strings.Contains(key, "scaling") || strings.Contains(key, "quantization") {
			t.Errorf("%s is there", key)
		}
	}
}

// TestLinearScalingLeavesScoresAlone computes what llama.cpp's deepseek2 multiplies scores by, from the metadata: with
// a = yarn_attn_factor, which is 1 for linear scaling, and f the factor, (a (1 + 0.1 ln f) (1 + 0.1 L ln f))^2, where L is
// yarn_log_multiplier / 0.1 (llama.cpp v0.5.0, src/models/deepseek2.cpp).
func TestLinearScalingLeavesScoresAlone(t *testing.T) {
	a := testmodel.TinyMLA
	for _, factor := range []float64{1, 2, 4, 32} {
		a.Rope = arch.Rope{Type: arch.RopeLinear, Theta: 10000, Factor: factor}
		_, f := exported(t, writeModel(t, testmodel.NewMLA(a, "F32", 1), nil), Options{})
		if f.metadata["deepseek2.rope.scaling.type"] != "linear" || f.metadata["deepseek2.rope.scaling.factor"] != float32(factor) {
			t.Errorf("scaling %v, factor %v", f.metadata["deepseek2.rope.scaling.type"], f.metadata["deepseek2.rope.scaling.factor"])
		}
		log := math.Log(factor)
		multiplier := float64(f.metadata["deepseek2.rope.scaling.yarn_log_multiplier"].(float32)) / 0.1
		if scale := (1 + 0.1*log) * (1 + 0.1*multiplier*log); math.Abs(scale-1) > 1e-6 {
			t.Errorf("factor %g: scores times %g squared", factor, scale)
		}
	}
}

func TestYarn(t *testing.T) {
	a := testmodel.TinyMLA
	a.Rope = arch.Rope{Type: arch.RopeYarn, Theta: 10000, Factor: 8, BetaFast: 32, BetaSlow: 1, MScaleAllDim: 1, OriginalContext: 32}
	_, f := exported(t, writeModel(t, testmodel.NewMLA(a, "F32", 1), nil), Options{})
	for key, want := range map[string]any{
		"type": "yarn", "factor": float32(8), "original_context_length": uint32(32), "yarn_log_multiplier": float32(0.1),
		"yarn_beta_fast": nil, "yarn_beta_slow": nil, // which this architecture does not read
	} {
		if got := f.metadata["deepseek2.rope.scaling."+key]; got != want {
			t.Errorf("%s is %v, want %v", key, got, want)
		}
	}
	m := testmodel.NewMLA(a, "F32", 1)
	scaling := m.Config["rope_scaling"].(map[string]any)
	scaling["mscale"], scaling["mscale_all_dim"] = 0.0, 0.0
	_, err := NewPlan(writeModel(t, m, nil), Options{})
	wantError(t, err, checkpoint.Unsupported, "--engine llama.cpp", "mscale_all_dim")
	a.Rope.BetaFast = 4
	_, err = NewPlan(writeModel(t, testmodel.NewMLA(a, "F32", 1), nil), Options{})
	wantError(t, err, checkpoint.Unsupported, "--engine llama.cpp", "beta_fast 4")
}

func TestQ8FallsBackToF16(t *testing.T) {
	p, f := exported(t, writeModel(t, testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1), nil), Options{DType: "q8_0"})
	// Rows of 16 (nope) and 48 (heads*v) are no multiple of 32; those of 32, 64 and 96 are.
	want := []string{"blk.0.attn_k_b.weight", "blk.0.attn_output.weight", "blk.1.attn_k_b.weight", "blk.1.attn_output.weight"}
	if !slices.Equal(p.Narrow, want) {
		t.Errorf("as F16: %v, want %v", p.Narrow, want)
	}
	for name, tensor := range f.tensors {
		kind := uint32(8)
		switch {
		case len(tensor.dims) == 1:
			kind = 0
		case slices.Contains(want, name):
			kind = 1
		}
		if tensor.kind != kind {
			t.Errorf("%s has type %d, want %d", name, tensor.kind, kind)
		}
	}
	if f.metadata["general.file_type"] != uint32(7) || f.metadata["general.quantization_version"] != uint32(2) {
		t.Errorf("file_type %v, quantization_version %v", f.metadata["general.file_type"], f.metadata["general.quantization_version"])
	}
}

// wantError requires errors of a kind with all the texts in them, and hints that contain hint.
func wantError(t *testing.T, err error, kind checkpoint.Kind, hint string, texts ...string) {
	t.Helper()
	var e *checkpoint.Error
	if !errors.As(err, &e) || e.Kind != kind || !strings.Contains(e.Hint, hint) {
		t.Errorf("%v (%+v), want kind %s with a hint of %q", err, e, kind, hint)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

func TestRefusals(t *testing.T) {
	plan := func(change func(m *testmodel.Model), files map[string]string, o Options) error {
		m := testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1)
		change(m)
		p, err := NewPlan(writeModel(t, m, files), o)
		if err == nil {
			err = p.Run(context.Background(), filepath.Join(t.TempDir(), "m.gguf"), false, &silent{})
		}
		return err
	}
	config := func(key string, v any) func(*testmodel.Model) {
		return func(m *testmodel.Model) { m.Config[key] = v }
	}
	same := func(*testmodel.Model) {}
	const layer1 = "model.layers.1."
	wantError(t, plan(config("attention_bias", true), nil, Options{}), checkpoint.Unsupported, "--engine llama.cpp", "attention_bias")
	wantError(t, plan(config("hidden_act", "gelu"), nil, Options{}), checkpoint.Unsupported, "use another engine", "hidden_act", "gelu")
	wantError(t, plan(config("rope_scaling", map[string]any{
		"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
	}), nil, Options{}), checkpoint.Unsupported, "--engine llama.cpp", "llama3")
	wantError(t, plan(config("model_type", "llama"), nil, Options{}), checkpoint.Unsupported, "", "model_type")
	wantError(t, plan(func(m *testmodel.Model) { m.Drop(layer1 + "self_attn.kv_b_proj.weight") }, nil, Options{}),
		checkpoint.BadSource, "", layer1+"self_attn.kv_b_proj.weight")
	wantError(t, plan(func(m *testmodel.Model) { m.Get(layer1 + "mlp.up_proj.weight").Shape = []int{64, 96} }, nil, Options{}),
		checkpoint.BadSource, "", layer1+"mlp.up_proj.weight", "96")
	wantError(t, plan(func(m *testmodel.Model) {
		m.Tensors = append(m.Tensors, testmodel.Tensor{Name: layer1 + "self_attn.o_proj.bias", DType: "F32", Shape: []int{64}, Data: make([]byte, 256)})
	}, nil, Options{}), checkpoint.Unsupported, "--engine llama.cpp", layer1+"self_attn.o_proj.bias")
	nan := func(m *testmodel.Model) {
		copy(m.Get(layer1 + "self_attn.kv_b_proj.weight").Data[2:], []byte{0xc0, 0x7f})
	}
	wantError(t, plan(nan, nil, Options{}), checkpoint.BadSource, "", layer1+"self_attn.kv_b_proj.weight", "NaN")
	big := func(m *testmodel.Model) {
		copy(m.Get("model.embed_tokens.weight").Data[2:], testmodel.Encode("BF16", []float32{1e6}))
	}
	wantError(t, plan(big, nil, Options{DType: "f16"}), checkpoint.Unsupported, "bf16", "token_embd.weight", "index 1", "F16")
	if err := plan(big, nil, Options{DType: "bf16"}); err != nil {
		t.Error(err)
	}
	if err := plan(same, nil, Options{DType: "q4_0"}); err == nil {
		t.Error("q4_0 was accepted")
	}

	// All problems at once.
	err := plan(func(m *testmodel.Model) {
		m.Drop("model.norm.weight")
		m.Drop(layer1 + "mlp.up_proj.weight")
	}, map[string]string{tokenizerFile: "{"}, Options{})
	wantError(t, err, checkpoint.BadSource, "", "model.norm.weight", layer1+"mlp.up_proj.weight", tokenizerFile)
}

// TestTied: without output.weight llama.cpp takes the embedding, which is what tie_word_embeddings says, and nothing else does.
func TestTied(t *testing.T) {
	whole := testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1)
	_, want := exported(t, writeModel(t, whole, nil), Options{})
	delete(want.tensors, "output.weight")
	for _, tied := range []bool{true, false} {
		m := testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1)
		m.Config["tie_word_embeddings"] = tied
		m.Drop(arch.MLATensors.Head)
		src := writeModel(t, m, nil)
		if !tied {
			_, err := NewPlan(src, Options{})
			wantError(t, err, checkpoint.BadSource, "", arch.MLATensors.Head)
			continue
		}
		if limits := llamacpp.CheckTensors(src.Names(), true); len(limits) > 0 {
			t.Errorf("inspect says %v", limits)
		}
		_, got := exported(t, src, Options{})
		if len(got.tensors) != len(want.tensors) {
			t.Errorf("%d tensors, want %d", len(got.tensors), len(want.tensors))
		}
		for name := range want.tensors {
			if _, ok := got.tensors[name]; !ok || !slices.Equal(got.values(name), want.values(name)) {
				t.Errorf("%s differs", name)
			}
		}
	}
	whole.Config["tie_word_embeddings"] = true
	if _, f := exported(t, writeModel(t, whole, nil), Options{}); f.tensors["output.weight"].dims == nil {
		t.Error("lm_head.weight is left out")
	}
}

// TestClaims: what a configuration claims of a checkpoint takes no memory.
func TestClaims(t *testing.T) {
	const huge = 1 << 28
	for _, c := range []struct {
		config map[string]any
		says   []string
	}{
		{map[string]any{"num_hidden_layers": huge, "first_k_dense_replace": huge}, []string{"num_hidden_layers", "268435456"}},
		{map[string]any{"vocab_size": huge}, []string{arch.MLATensors.Embed, "268435456"}},
	} {
		m := testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1)
		maps.Copy(m.Config, c.config)
		src := writeModel(t, m, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := NewPlan(src, Options{})
		runtime.ReadMemStats(&after)
		wantError(t, err, checkpoint.BadSource, "", c.says...)
		if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
			t.Errorf("%v: %d MB allocated", c.config, n>>20)
		}
	}
	a := testmodel.TinyMLA
	a.Layers = 6
	m := testmodel.NewMLA(a, "BF16", 1)
	m.Config["hidden_size"] = 32 // eight tensors of every layer, and three
	_, err := NewPlan(writeModel(t, m, nil), Options{})
	if err == nil || strings.Count(err.Error(), "\n") != maxProblems || !strings.Contains(err.Error(), "and 11 more problems") {
		t.Errorf("%v", err)
	}
}

func TestNothingIsLeftOfAnInterruptedExport(t *testing.T) {
	src := writeModel(t, testmodel.NewMLA(testmodel.TinyMLA, "BF16", 1), nil)
	p, err := NewPlan(src, Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "m.gguf")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.Run(context.Background(), path, false, &silent{}); err == nil {
		t.Error("an existing file was replaced without force")
	}
	ctx, cancel := context.WithCancel(context.Background())
	progress := &silent{at: func(n int) {
		if n == 3 {
			cancel()
		}
	}}
	if err := p.Run(ctx, path, true, progress); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	if progress.calls != 3 {
		t.Errorf("went on to %d tensors", progress.calls)
	}
	listing, err := os.ReadDir(dir)
	if err != nil || len(listing) != 1 {
		t.Errorf("%v, %v: want one file", listing, err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "old" {
		t.Errorf("%q, %v: want the old file", text, err)
	}
	// The same plan can still be carried out, to the same bytes as ever.
	var files [2][]byte
	for i := range files {
		if err := p.Run(context.Background(), path, true, &silent{}); err != nil {
			t.Fatal(err)
		}
		if files[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("two exports differ")
	}
}

func widen(dtype string, b []byte) []float32 {
	size := map[string]int{"F32": 4, "F16": 2, "BF16": 2}[dtype]
	out := make([]float32, len(b)/size)
	switch dtype {
	case "F32":
		checkpoint.F32ToFloat32(out, b)
	case "F16":
		checkpoint.F16ToFloat32(out, b)
	case "BF16":
		checkpoint.BF16ToFloat32(out, b)
	}
	return out
}

// ggufFile is what a reader of its own finds in a file.
type ggufFile struct {
	bytes    []byte
	metadata map[string]any
	tensors  map[string]ggufTensor
}

type ggufTensor struct {
	dims []uint64
	kind uint32
	at   uint64
}

func readGGUF(t *testing.T, path string) *ggufFile {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &ggufFile{bytes: b, metadata: map[string]any{}, tensors: map[string]ggufTensor{}}
	at := 8
	u32 := func() uint32 { at += 4; return binary.LittleEndian.Uint32(b[at-4:]) }
	u64 := func() uint64 { at += 8; return binary.LittleEndian.Uint64(b[at-8:]) }
	text := func() string { n := int(u64()); at += n; return string(b[at-n : at]) }
	scalars := map[uint32]func() any{
		4: func() any { return u32() }, 5: func() any { return int32(u32()) }, 6: func() any { return math.Float32frombits(u32()) },
		7: func() any { at++; return b[at-1] == 1 }, 8: func() any { return text() },
	}
	tensors, keys := u64(), u64()
	for range keys {
		key, kind := text(), u32()
		if kind != 9 {
			f.metadata[key] = scalars[kind]()
			continue
		}
		element, n := u32(), u64()
		list := make([]any, n)
		for i := range list {
			list[i] = scalars[element]()
		}
		f.metadata[key] = list
	}
	for range tensors {
		name := text()
		tensor := ggufTensor{dims: make([]uint64, u32())}
		for i := range tensor.dims {
			tensor.dims[i] = u64()
		}
		tensor.kind, tensor.at = u32(), u64()
		f.tensors[name] = tensor
	}
	for name, tensor := range f.tensors {
		tensor.at += uint64(at+31) / 32 * 32
		f.tensors[name] = tensor
	}
	return f
}

// values widens a tensor that is not quantized.
func (f *ggufFile) values(name string) []float32 {
	tensor := f.tensors[name]
	n := uint64(1)
	for _, d := range tensor.dims {
		n *= d
	}
	dtype := map[uint32]string{0: "F32", 1: "F16", 30: "BF16"}[tensor.kind]
	size := map[string]uint64{"F32": 4, "F16": 2, "BF16": 2}[dtype]
	return widen(dtype, f.bytes[tensor.at:tensor.at+n*size])
}
