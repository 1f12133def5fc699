package engine

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/arch"
)

// fitting is a checkpoint that every engine computes.
func fitting() *arch.MLA {
	return &arch.MLA{
		Shape: arch.Shape{
			Hidden: 576, Intermediate: 1536, Layers: 30, Heads: 9, Vocab: 100, Context: 8192, NormEps: 1e-5, Activation: "silu",
			InitializerRange: 0.02, Rope: arch.Rope{Type: arch.RopeDefault, Theta: 10000},
		},
		Rank: 512, NoPEDim: 128, RopeDim: 64, VDim: 128,
	}
}

func fields(limits []Limit) string {
	var out []string
	for _, l := range limits {
		out = append(out, l.Field)
	}
	return strings.Join(out, "; ")
}

// TestCheck: what each engine refuses of changed checkpoints, in the order of the limits.
func TestCheck(t *testing.T) {
	const cache, heads = "kv_lora_rank and qk_rope_head_dim", "qk_nope_head_dim, qk_rope_head_dim, v_head_dim"
	llama3 := arch.Rope{Type: arch.RopeLlama3, Theta: 10000, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 8192}
	for _, c := range []struct {
		name   string
		change func(*arch.MLA)
		refuse map[string]string // by engine; the others take it
	}{
		{"as it is", func(*arch.MLA) {}, nil},
		{"bias", func(m *arch.MLA) { m.Bias = true }, map[string]string{
			"vllm": "attention_bias", "sglang": "attention_bias", "llama.cpp": "attention_bias", "exllama": "attention_bias",
		}},
		{"llama3", func(m *arch.MLA) { m.Rope = llama3 }, map[string]string{
			"vllm": "rope_scaling", "sglang": "rope_scaling", "llama.cpp": "rope_scaling", "exllama": "rope_scaling",
		}},
		{"linear", func(m *arch.MLA) { m.Rope.Type, m.Rope.Factor = arch.RopeLinear, 2 }, map[string]string{
			"vllm": "rope_scaling", "sglang": "rope_scaling", "exllama": "rope_scaling",
		}},
		{"yarn", func(m *arch.MLA) { m.Rope = llama3.FitYarnContext(64) }, nil},
		{"yarn's betas", func(m *arch.MLA) { m.Rope = llama3.FitYarn(64, 8192) }, map[string]string{"llama.cpp": "rope_scaling"}},
		{"yarn without mscale", func(m *arch.MLA) { m.Rope = llama3.FitYarnContext(64); m.Rope.MScaleAllDim = 0 }, map[string]string{
			"transformers": "rope_scaling", "llama.cpp": "rope_scaling", "lmdeploy": "rope_scaling", "exllama": "rope_scaling",
		}},
		{"gelu", func(m *arch.MLA) { m.Activation = "gelu" }, map[string]string{
			"vllm": "hidden_act", "sglang": "hidden_act", "llama.cpp": "hidden_act", "mlx": "hidden_act", "lmdeploy": "hidden_act", "exllama": "hidden_act",
		}},
		{"rank 256", func(m *arch.MLA) { m.Rank = 256 }, nil},
		{"rank 128", func(m *arch.MLA) { m.Rank = 128 }, nil},
		{"rank 1024", func(m *arch.MLA) { m.Rank = 1024 }, nil},
		{"rank 1025", func(m *arch.MLA) { m.Rank = 1025 }, map[string]string{"vllm": cache}},
		{"rope 32", func(m *arch.MLA) { m.RopeDim = 32 }, map[string]string{"vllm": cache + "; " + heads}},
		{"heads of 64", func(m *arch.MLA) { m.NoPEDim, m.VDim = 64, 64 }, map[string]string{"vllm": heads}},
		{"62 layers", func(m *arch.MLA) { m.Layers = 62 }, map[string]string{"mlx": "num_hidden_layers"}},
	} {
		for _, e := range All {
			m := fitting()
			c.change(m)
			limits := e.Check(m)
			if got := fields(limits); got != c.refuse[e.Name] {
				t.Errorf("%s, %s: refused %q, want %q", e.Name, c.name, got, c.refuse[e.Name])
			}
			for _, l := range limits {
				if l.Found == "" || l.Accepted == "" || l.WayOut == "" {
					t.Errorf("%s, %s: %+v does not say everything", e.Name, c.name, l)
				}
			}
		}
	}
}

// TestPad: zeros make whatever can be widened fit, the smallest way.
func TestPad(t *testing.T) {
	for _, c := range []struct{ rank, head, wantRank, wantNoPE, wantV int }{
		{2, 16, 512, 64, 128}, {129, 64, 512, 64, 128}, {256, 64, 256, 64, 128}, {257, 80, 512, 128, 128}, {512, 128, 512, 128, 128},
		{512, 160, 512, 192, 256}, {512, 256, 512, 256, 256}, {600, 64, 600, 64, 128},
	} {
		m := fitting()
		m.Rank, m.NoPEDim, m.VDim = c.rank, c.head, c.head
		vllm.Pad(m)
		if m.Rank != c.wantRank || m.NoPEDim != c.wantNoPE || m.VDim != c.wantV {
			t.Errorf("rank %d, heads of %d: got rank %d, (%d, %d)", c.rank, c.head, m.Rank, m.NoPEDim, m.VDim)
		}
		if fits := len(vllm.Check(m)) == 0; fits != (c.head <= 192) {
			t.Errorf("rank %d, heads of %d: %v after padding", c.rank, c.head, vllm.Check(m))
		}
		// Only 512 runs everywhere.
		if remarks := vllm.Remarks(m); (len(remarks) == 0) != (c.wantRank == 512) {
			t.Errorf("rank %d: %q", m.Rank, remarks)
		}
	}
	m := fitting()
	m.Rank, m.NoPEDim, m.VDim = 100, 48, 48
	for _, e := range All {
		if e == &vllm {
			continue
		}
		if e.Pad(m); m.Rank != 100 || m.NoPEDim != 48 || m.VDim != 48 {
			t.Errorf("%s pads", e.Name)
		}
	}
}

func TestRope(t *testing.T) {
	llama3 := arch.Rope{Type: arch.RopeLlama3, Theta: 500000, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 8192}
	for _, e := range All {
		got := e.Rope(llama3, 64, 131072)
		exact := slices.Contains([]string{"transformers", "mlx", "lmdeploy"}, e.Name)
		if exact != (got == llama3) || !exact && got.Type != arch.RopeYarn {
			t.Errorf("%s: %+v", e.Name, got)
		}
	}
	if eps := vllm.Eps(&fitting().Shape); eps != 1e-5 {
		t.Errorf("vllm: epsilon %g", eps)
	}
	if eps := transformers.Eps(&fitting().Shape); eps != 1e-6 {
		t.Errorf("transformers: epsilon %g", eps)
	}
	if vllm.RopeDim(16) != 64 || mlx.RopeDim(16) != 16 || Lookup("vllm") != &vllm || Lookup("x") != nil {
		t.Error("rope-dim or lookup")
	}
	if len(Names()) != len(All) || Lookup(Default) != &transformers || math.IsNaN(transformers.LatentEps) {
		t.Error(Names())
	}
}

// TestConfig: what is written passes; what engines are known to trip over is named.
func TestConfig(t *testing.T) {
	text, err := fitting().MarshalConfig("bfloat16")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range All {
		if limits := e.CheckConfig(text); len(limits) > 0 {
			t.Errorf("%s: %v", e.Name, limits)
		}
	}
	for _, c := range []struct {
		from, to, field string
		strict          bool // only engines with strict configuration classes mind
	}{
		{`"n_routed_experts": 2`, `"n_routed_experts": null`, "n_routed_experts", false},
		{`"moe_layer_freq": 1,`, ``, "moe_layer_freq", false},
		{`"routed_scaling_factor": 1.0`, `"routed_scaling_factor": 1`, "routed_scaling_factor", true},
		{`"routed_scaling_factor": 1.0`, `"routed_scaling_factor": "1"`, "routed_scaling_factor", false},
		{`"use_cache"`, `"head_dim": 128, "use_cache"`, "head_dim", false},
		{`"use_cache"`, `"head_dim": 64, "use_cache"`, "", false}, // as in qk_rope_head_dim
		{`"rope_theta": 10000.0,`, `"rope_parameters": {"rope_theta": null},`, "rope_theta", false},
		{`{`, ``, "config.json", false},
	} {
		changed := strings.Replace(string(text), c.from, c.to, 1)
		if changed == string(text) {
			t.Fatalf("%s is not in the configuration", c.from)
		}
		for _, e := range All {
			want := c.field
			if c.strict && !e.Strict {
				want = ""
			}
			if got := fields(e.CheckConfig([]byte(changed))); got != want {
				t.Errorf("%s, %s: %q, want %q", e.Name, c.to, got, want)
			}
		}
	}
}

// TestSavedAgain: transformers 5 saves head_dim, and rope_parameters in the place of rope_theta and rope_scaling.
func TestSavedAgain(t *testing.T) {
	text, err := fitting().MarshalConfig("bfloat16")
	if err != nil {
		t.Fatal(err)
	}
	for params, missing := range map[string]string{
		`{"rope_theta": 10000.0, "rope_type": "default"}`:                               "rope_theta",
		`{"rope_theta": 10000, "rope_type": "default"}`:                                 "rope_theta",
		`{"rope_theta": 10000.0, "rope_type": "linear", "type": "linear", "factor": 2}`: "rope_theta; rope_scaling",
	} {
		changed := strings.Replace(string(text), `"rope_theta": 10000.0,`, `"head_dim": 64, "qk_head_dim": 192, "rope_parameters": `+params+`,`, 1)
		changed = strings.Replace(changed, `"rope_scaling": null,`, ``, 1)
		if m, err := arch.ParseMLA([]byte(changed)); err != nil || m.Rope.Theta != 10000 {
			t.Fatalf("%s: %+v, %v", params, m, err)
		}
		for _, e := range All {
			want := ""
			if e == &mlx { // which reads neither there
				want = missing
			}
			if got := fields(e.CheckConfig([]byte(changed))); got != want {
				t.Errorf("%s, %s: %q, want %q", e.Name, params, got, want)
			}
		}
	}
}

func TestTensors(t *testing.T) {
	const bias = "model.layers.0.self_attn.o_proj.bias"
	for _, e := range All {
		if got := fields(e.CheckTensors([]string{"lm_head.weight", "model.layers.0.mlp.up_proj.bias"}, false)); got != "" {
			t.Errorf("%s: %q", e.Name, got)
		}
		want := bias
		if e.Biases {
			want = ""
		}
		if got := fields(e.CheckTensors([]string{"lm_head.weight", bias}, false)); got != want {
			t.Errorf("%s: %q", e.Name, got)
		}
		want = "lm_head.weight"
		if e.Ties {
			want = ""
		}
		if got := fields(e.CheckTensors([]string{"model.embed_tokens.weight"}, true)); got != want {
			t.Errorf("%s: %q", e.Name, got)
		}
		if got := fields(e.CheckTensors([]string{"model.embed_tokens.weight"}, false)); got != "lm_head.weight" {
			t.Errorf("%s, not tied: %q", e.Name, got)
		}
	}
}
