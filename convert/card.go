package convert

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// modelCard writes the README.md of a converted checkpoint.
func modelCard(p *Plan, r *Record) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	m := p.Source
	folder := r.Source.Absolute
	if filepath.Clean(r.Source.Path) != p.src.Dir() {
		folder = filepath.Dir(folder) // the source was given as a file in its folder
	}

	line("---\nlibrary_name: transformers\ntags:\n- mla\n- mlaconvert\n---\n")
	line("# %s with Multi-head Latent Attention\n", filepath.Base(folder))
	line("This checkpoint was converted by %s %s from a %s with %d query and %d key/value heads, by low-rank factorization of its attention. It was not trained further. Every other weight is the source's.\n",
		r.Tool.Name, r.Tool.Version, r.Source.Architecture, m.Heads, m.KVHeads)
	line("| | source | this checkpoint |\n|---|---|---|")
	line("| class | %s | DeepseekV3ForCausalLM, every layer dense |", r.Source.Architecture)
	line("| cache, floats per token and layer | %d | %d (%.1f %%) |", r.Cache.Source, r.Cache.Target, 100*r.Cache.Ratio)
	line("| cache layout | %d KV heads x %d, keys and values | latent %d, shared rotary key %d |", m.KVHeads, m.HeadDim, p.Target.Rank, p.Target.RopeDim)
	line("| converted tensors | %s | %s |\n", p.DType, p.TargetDType())

	line("## Use\n")
	line("```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n")
	line("model = AutoModelForCausalLM.from_pretrained(\"PATH/TO/THIS/FOLDER\", dtype=\"auto\")\ntokenizer = AutoTokenizer.from_pretrained(\"PATH/TO/THIS/FOLDER\")\n```\n")
	line("No code comes with it: the class is part of transformers. `kv_a_layernorm` is neutralised by a constant channel with the bias %d, so an engine must honour `attention_bias`; one that drops it computes something else.\n", constantChannel)

	line("## How it was made\n")
	line("```\n%s\n```\n", r.Command)
	line("Method: %s. Rotary slots by complex principal components across the KV heads, %d pairs; what they do not carry replaced by its expected phase over %d tokens; keys and values factorized together to %d rows.\n",
		r.Recipe.Method, r.Recipe.RopeDim/2, r.Recipe.Context, p.ContentRank())
	line("## Error by layer\n")
	line("Discarded: the share of the weighted energy of position-free keys and values that the latent does not carry, exact for the weights of the factorization. Rotary: the share of the query-weighted key energy that the rotary slots carry. Neither is the error of the model's output: `mlaconvert verify` measures that.\n")
	line("| layer | latent rows | discarded | rotary |\n|---:|---:|---:|---:|")
	for _, l := range r.Layers {
		line("| %d | %d | %.3g %% | %.2f %% |", l.Layer, l.Rank, 100*l.DiscardedShare, 100*l.RotaryShare)
	}
	line("\n## Source\n")
	line("SHA-256 of the files that were read:\n")
	line("| file | SHA-256 |\n|---|---|")
	for _, sums := range []map[string]string{r.Source.SHA256, r.Source.Copied} {
		for _, file := range slices.Sorted(maps.Keys(sums)) {
			line("| %s | %s |", strings.ReplaceAll(file, "|", "\\|"), sums[file])
		}
	}
	line("\n## Licence\n")
	line("The weights are derived from the source's and inherit its licence.")
	return b.Bytes()
}
