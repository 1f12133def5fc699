package convert

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/report"
)

// modelCard writes the README.md of a converted checkpoint.
func modelCard(p *Plan, r *Record) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	table := func(t *report.Table) {
		if err := t.Markdown(&b); err != nil {
			panic("convert: a buffer that cannot be written to: " + err.Error())
		}
	}
	m := p.Source
	folder := r.Source.Absolute
	if filepath.Clean(r.Source.Path) != p.src.Dir() {
		folder = filepath.Dir(folder) // the source was given as a file in its folder
	}

	line("---\nlibrary_name: transformers\ntags:\n- mla\n- mlaconvert\n---\n")
	line("# %s with Multi-head Latent Attention\n", filepath.Base(folder))
	line("This checkpoint was converted by %s %s from a %s with %d query and %d key/value heads, by low-rank factorization of its attention. It was not trained further. Every other weight is the source's.\n",
		r.Tool.Name, r.Tool.Version, r.Source.Architecture, m.Heads, m.KVHeads)
	both := &report.Table{Head: []string{"", "source", "this checkpoint"}, Names: true}
	both.Add("class", r.Source.Architecture, "DeepseekV3ForCausalLM, every layer dense")
	both.Add("cache, floats per token and layer", fmt.Sprint(r.Cache.Source), fmt.Sprintf("%d (%.1f %%)", r.Cache.Target, 100*r.Cache.Ratio))
	both.Add("cache layout", fmt.Sprintf("%d KV heads x %d, keys and values", m.KVHeads, m.HeadDim), fmt.Sprintf("latent %d, shared rotary key %d", p.Target.Rank, p.Target.RopeDim))
	both.Add("converted tensors", p.DType.String(), p.TargetDType().String())
	table(both)

	line("\n## Use\n")
	line("```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n")
	line("model = AutoModelForCausalLM.from_pretrained(\"PATH/TO/THIS/FOLDER\", dtype=\"auto\")\ntokenizer = AutoTokenizer.from_pretrained(\"PATH/TO/THIS/FOLDER\")\n```\n")
	line("It was made for %s. No code comes with it: the class is part of transformers.", p.Engine.Name)
	if p.Target.Bias {
		line("`kv_a_layernorm` is neutralised by a constant channel with the bias %d, so an engine must honour `attention_bias`; one that drops it computes something else.\n", constantChannel)
	} else {
		line("There are no biases in attention: `kv_a_layernorm` is neutralised by energy rows in the latent, which keep its length nearly constant. How nearly is in the table below (norm).\n")
	}
	if remark := p.ropeRemark(r.RopeError); remark != "" {
		line("%s. The conversion was made for the frequencies as written.\n", remark)
	}

	line("## How it was made\n")
	line("```\n%s\n```\n", r.Command)
	if r.Recipe.Calibration != nil {
		calibratedCard(line, table, p, r)
	} else {
		dataFreeCard(line, table, p, r)
	}
	line("\n## Source\n")
	line("SHA-256 of the files that were read:\n")
	files := &report.Table{Head: []string{"file", "SHA-256"}, Names: true}
	for _, sums := range []map[string]string{r.Source.SHA256, r.Source.Copied} {
		for _, file := range slices.Sorted(maps.Keys(sums)) {
			files.Add(file, sums[file])
		}
	}
	table(files)
	line("\n## Licence\n")
	line("The weights are derived from the source's and inherit its licence.")
	return b.Bytes()
}

// dataFreeCard describes a conversion without calibration.
func dataFreeCard(line func(string, ...any), table func(*report.Table), p *Plan, r *Record) {
	line("Method: %s. Rotary slots by complex principal components across the KV heads, %d pairs; what they do not carry replaced by its expected phase over %d tokens; keys and values factorized together to %d rows.\n",
		r.Recipe.Method, r.Recipe.RopeDim/2, r.Recipe.Context, p.ContentRank())
	line("## Error by layer\n")
	line("Discarded: the share of the weighted energy of position-free keys and values that the latent does not carry, exact for the weights of the factorization. Rotary: the share of the query-weighted key energy that the rotary slots carry. Neither is the error of the model's output: `mlaconvert verify` measures that.\n")
	layers := &report.Table{Head: []string{"layer", "latent rows", "discarded", "rotary"}}
	for _, l := range r.Layers {
		layers.Add(fmt.Sprint(l.Layer), fmt.Sprint(l.Rank), fmt.Sprintf("%.3g %%", 100*l.DiscardedShare), fmt.Sprintf("%.2f %%", 100*l.RotaryShare))
	}
	addNorm(layers, r.Layers, func(l *Layer) *calibrate.NormReport { return l.Norm })
	table(layers)
	if !p.Target.Bias {
		line("\nNorm: the standard deviation of the latent norm's factor over its mean, for inputs uniform on a sphere; real ones are not. Rows: those of the latent for keys and values, and energy rows.")
	}
}

// addNorm adds the columns of the latent norm where the layers have a report of it.
func addNorm(t *report.Table, layers []Layer, of func(*Layer) *calibrate.NormReport) {
	for i := range layers {
		n := of(&layers[i])
		if n == nil {
			return
		}
		if i == 0 {
			t.Head = append(t.Head, "norm", "rows")
		}
		t.Rows[i] = append(t.Rows[i], fmt.Sprintf("%.3g %%", 100*n.Fluctuation), fmt.Sprintf("%d + %d", n.Content, n.Energy))
	}
}

// calibratedCard describes a calibrated conversion.
func calibratedCard(line func(string, ...any), table func(*report.Table), p *Plan, r *Record) {
	c := r.Recipe.Calibration
	tokens := "sampled from the source itself at temperature 1"
	if c.Source != CalibrationSelf {
		tokens = "from " + c.Source
	}
	line("Method: %s, effort %s: measured on %d tokens %s. Rotary slots by complex principal components across the KV heads, %d pairs; what they do not carry replaced by its expected phase; keys and values factorized together to %d rows under each head's own metrics.\n",
		r.Recipe.Method, c.Effort, c.Tokens, tokens, r.Recipe.RopeDim/2, p.ContentRank())
	line("## Error by layer\n")
	line("Relative root-mean-square errors on calibration tokens that were held out of every fit, each token weighted by 1/mean(x^2) of its residual stream. Isolated: the attention's output on the source's own input. Start, refit, polish: behind the converted layers before it, against the source's output plus the drift of the stream. Drift: the residual stream after the layer. `mlaconvert verify` measures the error of the model's output.\n")
	layers := &report.Table{Head: []string{"layer", "isolated", "start", "refit", "polish", "drift"}}
	for _, l := range r.Layers {
		m := l.Calibration
		layers.Add(fmt.Sprint(l.Layer), fmt.Sprintf("%.4f", m.Isolated), fmt.Sprintf("%.4f", m.Start), fmt.Sprintf("%.4f", m.Refit), fmt.Sprintf("%.4f", m.Polish), fmt.Sprintf("%.4f", m.Drift))
	}
	addNorm(layers, r.Layers, func(l *Layer) *calibrate.NormReport { return l.Calibration.Norm })
	table(layers)
	if !p.Target.Bias {
		line("\nNorm: the standard deviation of the latent norm's factor over its mean. Rows: those of the latent for keys and values, and energy rows. The columns before them are without the norm.")
	}
}
