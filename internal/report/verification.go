package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
)

// VerificationSchema is the schema of a [Verification] in JSON.
const VerificationSchema = "mlaconvert.verify/1"

// Number is a figure. One that is not finite, for which JSON has no word, is null there; a Verification with such a
// figure has not passed and says why in Failures.
type Number float64

// Finite reports whether the figure is neither infinite nor NaN.
func (x Number) Finite() bool { return !math.IsNaN(float64(x)) && !math.IsInf(float64(x), 0) }

// MarshalJSON implements [json.Marshaler].
func (x Number) MarshalJSON() ([]byte, error) {
	if !x.Finite() {
		return []byte("null"), nil
	}
	return json.Marshal(float64(x))
}

// UnmarshalJSON implements [json.Unmarshaler]; null is read as NaN.
func (x *Number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*x = Number(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float64)(x))
}

// Verification compares a converted checkpoint with its source on some tokens.
type Verification struct {
	Schema     string     `json:"schema"`
	Source     string     `json:"source"`
	Target     string     `json:"target"`
	Cache      Cache      `json:"cache"`
	Data       Data       `json:"data"`
	Tokens     int        `json:"tokens"`
	Layers     []Layer    `json:"layers"`
	Logits     Logits     `json:"logits"`
	Perplexity Perplexity `json:"perplexity"`
	Thresholds Thresholds `json:"thresholds"`
	Passed     bool       `json:"passed"`
	// Failures say why it has not passed: a threshold, or a figure that is not finite.
	Failures []string `json:"failures,omitempty"`
	// Warnings say what is poor without being a failure.
	Warnings []string `json:"warnings,omitempty"`
}

// Cache compares the key/value caches, in floats per token and layer.
type Cache struct {
	Source int     `json:"source_floats_per_token_per_layer"`
	Target int     `json:"target_floats_per_token_per_layer"`
	Ratio  float64 `json:"ratio"`
}

// Data says what the models were compared on.
type Data struct {
	Kind      DataKind `json:"kind"`
	File      string   `json:"file,omitempty"`
	Sequences int      `json:"sequences"`
	// Context is the length of the longest sequence.
	Context int `json:"context"`
	// Start names the token that the first sequence begins with, BOS or what stands in for it; empty for an ordinary one.
	Start string `json:"start,omitempty"`
	// Seed is that of sequences that the source wrote itself.
	Seed *uint64 `json:"seed,omitempty"`
}

// DataKind is where tokens come from.
type DataKind string

// The origins of tokens: a text file, a file of ids, and the source model itself.
const (
	TextFile    DataKind = "text"
	TokenFile   DataKind = "tokens"
	SelfSampled DataKind = "self-sampled"
)

// Layer is the error of one layer: roots of weighted means of squares over tokens, each relative to the source's. The
// weight of a token is 1/mean(x^2) of the source's residual stream, so that all tokens count alike although a few have
// activations a thousand times larger.
type Layer struct {
	Layer int `json:"layer"`
	// AttentionError is that of the attention output for the source's own input of this layer: no other layer's error is
	// in it.
	AttentionError Number `json:"attention_error"`
	// NormError is the fluctuation, over the tokens, of the factor that kv_a_layernorm applies to the latent: its standard
	// deviation over its mean. Zero is a norm that does nothing.
	NormError Number `json:"norm_error"`
	// StreamError is that of the residual stream after this layer, with all layers so far converted.
	StreamError Number `json:"stream_error"`
	// Calibration is what the conversion itself measured of this layer on its held-out tokens, nil for a conversion without
	// calibration.
	Calibration *Calibration `json:"calibration,omitempty"`
}

// Calibration is the history of a calibrated layer: relative errors of its attention on held-out tokens. Isolated is
// that on the source's own input; the others are errors behind the converted layers before it, against the source's
// output plus the drift of the residual stream: at the start, after the refit of the output projection, after the polish
// of all its weights.
type Calibration struct {
	Candidate string `json:"candidate"`
	Isolated  Number `json:"isolated_error"`
	Start     Number `json:"start_error"`
	Refit     Number `json:"refit_error"`
	Polish    Number `json:"polish_error"`
}

// Logits compares the distributions of the next token at every position. KL is the divergence of the target's from the
// source's, KL(source || target) in nats; P99 the smallest value that 99 % of the tokens do not exceed. Top1 is the share
// of tokens for which the target ranks the source's most probable token first.
type Logits struct {
	KLMean Number `json:"kl_mean"`
	KLP99  Number `json:"kl_p99"`
	Top1   Number `json:"top1_agreement"`
}

// Perplexity is exp of the mean cross-entropy of the next token, over all positions that have one.
type Perplexity struct {
	Source Number `json:"source"`
	Target Number `json:"target"`
	Ratio  Number `json:"ratio"`
}

// Thresholds are what makes a verification fail; nil stands for no threshold.
type Thresholds struct {
	// MaxKL bounds Logits.KLMean.
	MaxKL *float64 `json:"max_kl"`
	// MaxPerplexityIncrease bounds the increase of the perplexity, in percent.
	MaxPerplexityIncrease *float64 `json:"max_ppl_increase"`
}

// describe says in words what the models were compared on.
func (v *Verification) describe() string {
	d := &v.Data
	switch d.Kind {
	case TextFile:
		start := "no BOS added"
		if d.Start != "" {
			start = d.Start + " at the beginning of the text only"
		}
		return fmt.Sprintf("%s, first %s, %s", filepath.Base(d.File), v.pieces("window"), start)
	case TokenFile:
		return fmt.Sprintf("%s, %s", filepath.Base(d.File), v.pieces("sequence"))
	}
	text := fmt.Sprintf("written by the source itself from %s, %s", d.Start, v.pieces("sequence"))
	if d.Seed != nil {
		text += fmt.Sprintf(", seed %d", *d.Seed)
	}
	return text
}

// pieces counts the sequences, which it calls thing, and says how long they are.
func (v *Verification) pieces(thing string) string {
	d := &v.Data
	if d.Sequences == 1 {
		return fmt.Sprintf("%s of %d tokens", thing, d.Context)
	}
	upTo := ""
	if v.Tokens != d.Sequences*d.Context {
		upTo = "up to "
	}
	return fmt.Sprintf("%d %ss of %s%d tokens", d.Sequences, thing, upTo, d.Context)
}

func (v *Verification) layerTable() *Table {
	t := &Table{Head: []string{"layer", "attention error", "norm error", "stream error"}}
	calibrated := len(v.Layers) > 0 && v.Layers[0].Calibration != nil
	if calibrated {
		t.Head = append(t.Head, "held out: isolated", "start", "refit", "polish", "candidate")
	}
	for _, l := range v.Layers {
		row := []string{fmt.Sprint(l.Layer), percent(l.AttentionError), percent(l.NormError), percent(l.StreamError)}
		if c := l.Calibration; c != nil {
			row = append(row, percent(c.Isolated), percent(c.Start), percent(c.Refit), percent(c.Polish), c.Candidate)
		}
		t.Add(append(row, make([]string, len(t.Head)-len(row))...)...)
	}
	return t
}

// summary is the figures of the whole model, each with its name.
func (v *Verification) summary() [][2]string {
	p := &v.Perplexity
	increase := ""
	if p.Ratio.Finite() {
		increase = fmt.Sprintf(" (%+.1f %%)", 100*(float64(p.Ratio)-1))
	}
	kl := figure(v.Logits.KLMean)
	if v.Logits.KLMean.Finite() {
		kl += " nats per token, 99th percentile " + figure(v.Logits.KLP99)
	}
	return [][2]string{
		{"cache", fmt.Sprintf("%d -> %d floats per token and layer (%.1f %%)", v.Cache.Source, v.Cache.Target, 100*v.Cache.Ratio)},
		{"KL", kl},
		{"top-1 agreement", percent(v.Logits.Top1)},
		{"perplexity", fmt.Sprintf("%s -> %s%s", figure(p.Source), figure(p.Target), increase)},
	}
}

// verdict is the outcome, one statement an element.
func (v *Verification) verdict() []string {
	if !v.Passed {
		var out []string
		for _, f := range v.Failures {
			out = append(out, "failed: "+f)
		}
		return out
	}
	if v.Thresholds.MaxKL == nil && v.Thresholds.MaxPerplexityIncrease == nil {
		return []string{"no thresholds given"}
	}
	return []string{"passed"}
}

// Text writes the result for people.
func (v *Verification) Text(w io.Writer) error {
	var b strings.Builder
	lines := append([][2]string{
		{"source", v.Source},
		{"target", v.Target},
		{"tokens", fmt.Sprintf("%d: %s", v.Tokens, v.describe())},
	}, v.summary()...)
	width := 0
	for _, l := range lines {
		width = max(width, len(l[0]))
	}
	line := func(l [2]string) { fmt.Fprintf(&b, "%-*s  %s\n", width, l[0], l[1]) }
	for _, l := range lines[:4] {
		line(l)
	}
	b.WriteByte('\n')
	if err := v.layerTable().Text(&b); err != nil {
		return err
	}
	b.WriteByte('\n')
	for _, l := range lines[4:] {
		line(l)
	}
	for _, s := range v.verdict() {
		b.WriteString(s + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Markdown writes the result as the body of a section.
func (v *Verification) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Compared with the source on %d tokens: %s.\n\n", v.Tokens, v.describe())
	t := &Table{Head: []string{"", "source -> converted"}, Names: true}
	for _, l := range v.summary() {
		t.Add(l[0], l[1])
	}
	if err := t.Markdown(&b); err != nil {
		return err
	}
	b.WriteByte('\n')
	if err := v.layerTable().Markdown(&b); err != nil {
		return err
	}
	b.WriteByte('\n')
	for _, s := range append(v.verdict(), v.Warnings...) {
		b.WriteString("- " + s + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// figure writes four significant digits without an exponent where that is readable.
func figure(x Number) string {
	f := float64(x)
	switch {
	case !x.Finite():
		return "not finite"
	case math.Abs(f) >= 1000 && math.Abs(f) < 1e7:
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.4g", f)
}

func percent(x Number) string {
	if !x.Finite() {
		return "not finite"
	}
	if f := 100 * float64(x); math.Abs(f) < 1000 {
		return fmt.Sprintf("%.3g %%", f)
	}
	return fmt.Sprintf("%.0f %%", 100*float64(x))
}
