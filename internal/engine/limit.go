package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/arch"
)

// Limit is something of a checkpoint that an engine does not compute, or not right.
type Limit struct {
	// Field is the field of config.json or the tensor.
	Field string `json:"field"`
	// Found is what it has, Accepted what the engine takes.
	Found    string `json:"found"`
	Accepted string `json:"accepted"`
	// WayOut is what can be done.
	WayOut string `json:"way_out"`
}

// String is the limit in one line, without the way out.
func (l *Limit) String() string {
	return fmt.Sprintf("%s: %s, accepted: %s", l.Field, l.Found, l.Accepted)
}

// Check returns what the engine does not compute of a converted model.
func (e *Engine) Check(m *arch.MLA) []Limit {
	var out []Limit
	again := "convert again with --engine " + e.Name
	elsewhere := "use another engine"
	if e.Advice != "" {
		elsewhere = e.Advice
	}
	if m.Bias && !e.Biases {
		out = append(out, Limit{"attention_bias", "true: the latent norm is neutralised by a bias", "false: it has no biases in attention", again})
	}
	if !slices.Contains(e.Ropes, m.Rope.Type) {
		out = append(out, Limit{"rope_scaling", fmt.Sprintf("type %q", m.Rope.Type), list(e.Ropes), again + ", which writes the nearest YaRN scaling"})
	}
	if r := m.Rope; e.DefaultBetas && r.Type == arch.RopeYarn && (r.BetaFast != arch.DefaultBetaFast || r.BetaSlow != arch.DefaultBetaSlow) {
		out = append(out, Limit{
			"rope_scaling", fmt.Sprintf("beta_fast %g and beta_slow %g", r.BetaFast, r.BetaSlow),
			fmt.Sprintf("%d and %d, which it computes in any case", arch.DefaultBetaFast, arch.DefaultBetaSlow), again,
		})
	}
	if r := m.Rope; e.ScalesRotation && r.Type == arch.RopeYarn && r.MScaleAllDim == 0 {
		out = append(out, Limit{"rope_scaling", "mscale_all_dim 0", "another value: without it the rotation is scaled too", again})
	}
	if e.Activations != nil && !slices.Contains(e.Activations, m.Activation) {
		out = append(out, Limit{"hidden_act", fmt.Sprintf("%q", m.Activation), list(e.Activations), "use another engine, transformers for example"})
	}
	if !e.hasWidth(m) {
		var accepted []string
		for _, w := range e.Widths {
			accepted = append(accepted, fmt.Sprintf("%d and %d", w.Rank, w.Rope))
		}
		if e.MaxRank > 0 {
			accepted = append(accepted, fmt.Sprintf("on some machines up to %d and %d", e.MaxRank, e.Widths[0].Rope))
		}
		out = append(out, Limit{
			"kv_lora_rank and qk_rope_head_dim", fmt.Sprintf("%d and %d", m.Rank, m.RopeDim), strings.Join(accepted, ", "),
			fmt.Sprintf("convert with --engine %s --rank %d --rope-dim %d; %s", e.Name, e.Widths[0].Rank, e.Widths[0].Rope, elsewhere),
		})
	}
	if len(e.HeadWidths) > 0 && !slices.Contains(e.HeadWidths, HeadWidth{m.NoPEDim, m.RopeDim, m.VDim}) {
		var accepted []string
		for _, h := range e.HeadWidths {
			accepted = append(accepted, h.String())
		}
		padded := *m
		e.Pad(&padded)
		way := elsewhere
		if padded.NoPEDim != m.NoPEDim || padded.VDim != m.VDim {
			way = again + ", which pads the heads; " + elsewhere
		}
		out = append(out, Limit{
			"qk_nope_head_dim, qk_rope_head_dim, v_head_dim", HeadWidth{m.NoPEDim, m.RopeDim, m.VDim}.String(), strings.Join(accepted, ", "), way,
		})
	}
	if e.MaxLayers > 0 && m.Layers > e.MaxLayers {
		out = append(out, Limit{"num_hidden_layers", fmt.Sprint(m.Layers), fmt.Sprintf("at most %d", e.MaxLayers), "use another engine, transformers for example"})
	}
	return out
}

// String is the parts of a head in parentheses.
func (h HeadWidth) String() string { return fmt.Sprintf("(%d, %d, %d)", h.NoPE, h.Rope, h.V) }

func list[T ~string](words []T) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", string(w))
	}
	return strings.Join(quoted, ", ")
}

// wholeNumbers and floats are the fields that loaders read although no layer has experts, where they fail on null.
var (
	wholeNumbers = []string{
		"first_k_dense_replace", "moe_layer_freq", "n_routed_experts", "num_experts_per_tok", "n_shared_experts",
		"moe_intermediate_size", "n_group", "topk_group", "num_key_value_heads",
	}
	floats = []string{"routed_scaling_factor", "rms_norm_eps", "rope_theta"}
)

// CheckConfig returns what the engine trips over in the text of a config.json besides what [Engine.Check] finds in its
// meaning.
func (e *Engine) CheckConfig(text []byte) []Limit {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		return []Limit{{"config.json", err.Error(), "a JSON object", "convert again"}}
	}
	const again = "convert again, or add the field"
	// transformers 5 saves rope_theta and the scaling together as rope_parameters.
	params, _ := fields["rope_parameters"].(map[string]any)
	var out []Limit
	for _, field := range wholeNumbers {
		n, ok := fields[field].(json.Number)
		if _, err := n.Int64(); !ok || err != nil {
			out = append(out, Limit{field, found(fields, field), "a whole number", again})
		}
	}
	for _, field := range floats {
		holder, strict := fields, e.Strict
		if field == "rope_theta" && fields[field] == nil && params != nil && !e.TopLevelRope {
			holder, strict = params, false // which the class does not look into
		}
		n, ok := holder[field].(json.Number)
		switch {
		case !ok:
			out = append(out, Limit{field, found(holder, field), "a number", again})
		case strict && !strings.ContainsAny(n.String(), ".eE"):
			out = append(out, Limit{field, n.String(), "a number with a point", "write it as " + n.String() + ".0"})
		}
	}
	if kind := params["rope_type"]; e.TopLevelRope && kind != nil && kind != "default" && fields["rope_scaling"] == nil {
		out = append(out, Limit{"rope_scaling", found(fields, "rope_scaling"), "the scaling of rope_parameters, which it does not read", again})
	}
	// transformers saves head_dim too, as it takes it for itself: equal to qk_rope_head_dim.
	if width := found(fields, "qk_rope_head_dim"); fields["head_dim"] != nil && found(fields, "head_dim") != width {
		out = append(out, Limit{"head_dim", found(fields, "head_dim"), "qk_rope_head_dim " + width + ", which it overrides, or no such field", "remove the field"})
	}
	return out
}

// found is a field as an error shows it.
func found(fields map[string]any, field string) string {
	v, ok := fields[field]
	if !ok {
		return "no such field"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// CheckTensors returns what the engine misses among a checkpoint's tensors, or drops or refuses, by their names; tied says that the
// configuration ties the output head to the embedding.
func (e *Engine) CheckTensors(names []string, tied bool) []Limit {
	var out []Limit
	biases, first, head := 0, "", false
	for _, name := range names {
		head = head || name == arch.MLATensors.Head
		if strings.HasSuffix(name, ".bias") && strings.Contains(name, ".self_attn.") {
			if biases++; biases == 1 {
				first = name
			}
		}
	}
	if biases > 0 && !e.Biases {
		out = append(out, Limit{first, fmt.Sprintf("%d biases in attention", biases), "none", "convert again with --engine " + e.Name})
	}
	if !head && !(e.Ties && tied) {
		want := "the output head: it does not tie it to the embedding"
		if !tied {
			want = "the output head, which config.json does not tie to the embedding"
		}
		out = append(out, Limit{arch.MLATensors.Head, "no such tensor", want, "convert again"})
	}
	return out
}
