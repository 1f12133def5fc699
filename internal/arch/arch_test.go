package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

const base = `"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,"intermediate_size":172,` +
	`"num_hidden_layers":5,"num_attention_heads":8,"num_key_value_heads":4,"vocab_size":512,"max_position_embeddings":512,` +
	`"rms_norm_eps":1e-05,"rope_theta":10000.0,"hidden_act":"silu","bos_token_id":1,"eos_token_id":[2,3]`

func TestParseLlama(t *testing.T) {
	m, err := Parse([]byte("{" + base + `,"tie_word_embeddings":true}`))
	if err != nil {
		t.Fatal(err)
	}
	if m.HeadDim != 8 || m.KVHeads != 4 || m.CacheFloats() != 64 || !m.Tied || !reflect.DeepEqual(m.EOS, []int{2, 3}) {
		t.Errorf("got %+v", m)
	}
	if got := m.Family.Tensors.Layer(3, m.Family.Tensors.Q); got != "model.layers.3.self_attn.q_proj.weight" {
		t.Error(got)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		config string
		kind   checkpoint.Kind
		says   string
	}{
		{``, checkpoint.BadSource, "JSON"},
		{`[]`, checkpoint.BadSource, "JSON"},
		{`null`, checkpoint.BadSource, "null"},
		{`{}`, checkpoint.Unsupported, "LlamaForCausalLM"},
		{`{"model_type":"gpt2"}`, checkpoint.Unsupported, "gpt2"},
		{`{"model_type":7}`, checkpoint.BadSource, "model_type"},
		{`{"model_type":"llama","architectures":["LlamaForSequenceClassification"]}`, checkpoint.Unsupported, "SequenceClassification"},
		{`{` + strings.Replace(base, `"hidden_size":64`, `"hidden_size":-1`, 1) + `}`, checkpoint.BadSource, "hidden_size"},
		{`{` + strings.Replace(base, `"hidden_size":64`, `"hidden_size":1e30`, 1) + `}`, checkpoint.BadSource, "hidden_size"},
		{`{` + strings.Replace(base, `"hidden_size":64`, `"hidden_size":66`, 1) + `}`, checkpoint.BadSource, "num_attention_heads"},
		{`{` + strings.Replace(base, `"hidden_size":64,`, ``, 1) + `}`, checkpoint.BadSource, "hidden_size"},
		{`{` + strings.Replace(base, `"num_key_value_heads":4`, `"num_key_value_heads":3`, 1) + `}`, checkpoint.BadSource, "num_key_value_heads"},
		{`{` + base + `,"head_dim":7}`, checkpoint.BadSource, "head_dim"},
		{`{` + base + `,"attention_bias":true}`, checkpoint.Unsupported, "attention_bias"},
		{`{` + base + `,"quantization_config":{}}`, checkpoint.Unsupported, "quantization_config"},
		{`{` + base + `,"rope_scaling":{"rope_type":"yarn","factor":4}}`, checkpoint.Unsupported, "yarn"},
		{`{` + base + `,"rope_scaling":{"rope_type":"linear","factor":0}}`, checkpoint.BadSource, "factor"},
		{`{` + base + `,"rope_scaling":3}`, checkpoint.BadSource, "rope_scaling"},
		{`{` + base + `,"rope_scaling":{"rope_type":"linear","factor":2},"rope_parameters":{"rope_type":"default"}}`, checkpoint.BadSource, "rope_parameters"},
		{`{` + base + `,"rope_scaling":{"rope_type":"linear","factor":2},"rope_parameters":{"rope_type":"linear","factor":2,"rope_theta":5000}}`, checkpoint.BadSource, "rope_parameters"},
		{`{` + base + `,"rope_scaling":{"rope_type":"linear","factor":2,"rope_theta":5000}}`, checkpoint.BadSource, "10000, and 5000 in rope_scaling"},
		{`{` + base + `,"rope_parameters":{"rope_theta":1}}`, checkpoint.BadSource, "rope_theta"},
		{`{` + base + `,"rope_parameters":{"rope_theta":"x"}}`, checkpoint.BadSource, "rope_theta"},
		{`{` + base + `,"rope_parameters":{"rope_type":"default","partial_rotary_factor":"0.5"}}`, checkpoint.BadSource, `partial_rotary_factor: "0.5"`},
		{`{` + base + `,"rope_parameters":{"rope_type":"default","partial_rotary_factor":0.5}}`, checkpoint.Unsupported, "partial_rotary_factor"},
		{`{` + base + `,"partial_rotary_factor":0.5}`, checkpoint.Unsupported, "partial_rotary_factor"},
		{`{` + strings.Replace(base, `"bos_token_id":1`, `"bos_token_id":512`, 1) + `}`, checkpoint.BadSource, "bos_token_id"},
		{`{` + strings.Replace(base, `"hidden_act":"silu"`, `"hidden_act":"gelu"`, 1) + `}`, checkpoint.Unsupported, "hidden_act"},
		{`{` + strings.NewReplacer("LlamaFor", "MistralFor", `"llama"`, `"mistral"`).Replace(base) + `}`, checkpoint.Unsupported, "sliding_window"},
		{`{` + strings.NewReplacer("LlamaFor", "MistralFor", `"llama"`, `"mistral"`).Replace(base) + `,"sliding_window":4096}`, checkpoint.Unsupported, "4096"},
	} {
		_, err := Parse([]byte(c.config))
		var e *checkpoint.Error
		if !errors.As(err, &e) || e.Kind != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.120s: got %v, want kind %v naming %q", c.config, err, c.kind, c.says)
		}
	}
	if _, err := Parse([]byte(`{` + strings.NewReplacer("LlamaFor", "MistralFor", `"llama"`, `"mistral"`).Replace(base) + `,"sliding_window":null}`)); err != nil {
		t.Error(err)
	}
}

// llama3Golden is what transformers 5.24's LlamaRotaryEmbedding gave (float32) for theta 500,000, width 128, factor 8,
// low 1, high 4, original context 8,192: pairs above, in and below the interpolated band.
var llama3Golden = map[int]float64{
	0: 1, 20: 0.0165604409, 28: 0.00321144611, 29: 0.00216657063, 30: 0.00137189368, 32: 0.000524846022,
	34: 0.000178507791, 36: 7.78465546e-05, 50: 4.41153452e-06, 63: 3.06892588e-07,
}

// TestRopeFrequencies compares with values worked out by hand and with transformers'.
func TestRopeFrequencies(t *testing.T) {
	const llama3 = `{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}`
	for _, c := range []struct {
		name, fields string
		dim          int
		want         []float64
	}{
		{"default", `"rope_theta":10000.0`, 8, []float64{1, 0.1, 0.01, 0.001}},
		{"linear", `"rope_theta":10000.0,"rope_scaling":{"type":"linear","factor":4.0}`, 8, []float64{0.25, 0.025, 0.0025, 0.00025}},
		{"llama3", `"rope_theta":500000.0,"rope_scaling":` + llama3, 128, nil},
		{"parameters", `"rope_parameters":{"rope_theta":500000.0,` + llama3[1:], 128, nil},
		{"parameters, and theta outside", `"rope_theta":500000.0,"rope_parameters":` + llama3, 128, nil},
		{"parameters with another theta", `"rope_theta":300.0,"rope_parameters":{"rope_theta":500000.0,` + llama3[1:], 128, nil},
		{"theta in rope_scaling", `"rope_scaling":{"rope_theta":500000.0,` + llama3[1:], 128, nil},
		{"both spellings", `"rope_theta":500000.0,"rope_scaling":` + llama3 + `,"rope_parameters":{"rope_theta":500000.0,` + llama3[1:], 128, nil},
		{"parameters beside an empty scaling", `"rope_scaling":{},"rope_parameters":{"rope_theta":500000.0,` + llama3[1:], 128, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			fields := strings.Replace(base, `"rope_theta":10000.0`, c.fields, 1)
			m, err := Parse([]byte("{" + fields + "}"))
			if err != nil {
				t.Fatal(err)
			}
			got := m.Rope.Frequencies(c.dim)
			for i, w := range c.want {
				if math.Abs(got[i]-w) > 1e-15 {
					t.Errorf("frequency %d: got %g, want %g", i, got[i], w)
				}
			}
			if c.want != nil {
				return
			}
			for i, w := range llama3Golden {
				if math.Abs(got[i]-w) > 1e-6*w {
					t.Errorf("frequency %d: got %.9g, want %.9g", i, got[i], w)
				}
			}
		})
	}
}

func TestMLAConfigRoundTrip(t *testing.T) {
	for _, rope := range []string{`null`, `{"type":"linear","factor":4}`, `{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192}`} {
		src, err := Parse([]byte(fmt.Sprintf(`{%s,"rope_scaling":%s}`, base, rope)))
		if err != nil {
			t.Fatal(err)
		}
		want := &MLA{Shape: src.Shape, Rank: 512, NoPEDim: 8, RopeDim: 64, VDim: 8, Bias: true, LatentEps: LatentNormEps}
		b, err := want.MarshalConfig("bfloat16")
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseMLA(b)
		if err != nil {
			t.Fatal(err)
		}
		want.Dtype = "bfloat16"
		if src.Rope.Type == RopeLlama3 {
			// The same with what the scaling becomes for engines that have YaRN alone.
			yarn := *want
			yarn.Rope = src.Rope.FitYarn(64, src.Context)
			text, err := yarn.MarshalConfig("bfloat16")
			if err != nil {
				t.Fatal(err)
			}
			if back, err := ParseMLA(text); err != nil || !reflect.DeepEqual(back, &yarn) {
				t.Errorf("%v: got %+v, want %+v", err, back, yarn)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if !strings.Contains(string(b), `"routed_scaling_factor": 1.0`) {
			t.Errorf("floats must be written as floats: %s", b)
		}
		var fields map[string]any
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatal(err)
		}
		if _, ok := fields["head_dim"]; ok {
			t.Errorf("head_dim would override qk_rope_head_dim: %s", b)
		}
		if _, err := Parse(b); err == nil {
			t.Error("a converted checkpoint was accepted as a source")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("{" + base + "}"))
	f.Add([]byte("{" + base + `,"rope_parameters":{"rope_type":"llama3"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		if m.Heads < 1 || m.KVHeads < 1 || m.Heads%m.KVHeads != 0 || m.HeadDim%2 != 0 || m.Layers < 1 || m.Hidden < 1 {
			t.Errorf("accepted %+v", m)
		}
		for _, w := range m.Rope.Frequencies(min(m.HeadDim, 512)) {
			if math.IsNaN(w) || w < 0 {
				t.Errorf("frequency %g from %+v", w, m.Rope)
			}
		}
	})
}
