package arch

import (
	"fmt"
	"slices"
	"strings"
)

// Shape is the geometry that a decoder has whatever its attention: sizes are counts of floats, heads, layers and tokens.
type Shape struct {
	Hidden, Intermediate, Layers, Heads, Vocab, Context int

	// NormEps is the epsilon of every RMSNorm of the residual stream.
	NormEps float64
	Rope    Rope
	// BOS and EOS are token ids; empty where the configuration names none.
	BOS, EOS []int
	// Activation is the MLP's, in Hugging Face's name (silu).
	Activation string
	// InitializerRange is carried over into the target's configuration.
	InitializerRange float64
	// Dtype is what the configuration says of its weights (torch_dtype or dtype); empty where it is silent.
	Dtype string
}

// Model is a source checkpoint: grouped-query attention with KVHeads key/value heads, each HeadDim wide.
// KVHeads == Heads is multi-head attention.
type Model struct {
	Shape
	Family           *Family
	KVHeads, HeadDim int
	// Tied says that the output head is the embedding matrix.
	Tied bool
}

// CacheFloats is the source's key/value cache, in floats per token and layer.
func (m *Model) CacheFloats() int { return 2 * m.KVHeads * m.HeadDim }

// Family is one kind of source checkpoint: what its configuration calls itself, the names of its tensors, and what of
// its configuration cannot be converted.
type Family struct {
	Name          string
	ModelTypes    []string
	Architectures []string
	Tensors       Tensors
	// refuse fails c for a setting that this family may have and the conversion cannot carry over.
	refuse func(c *config)
}

// Tensors names the tensors of a decoder. Names of a layer are relative to LayerPrefix, which takes the layer number.
type Tensors struct {
	Embed, FinalNorm, Head string
	LayerPrefix            string
	AttnNorm, MLPNorm      string
	Q, K, V, O             string
	Gate, Up, Down         string
	// Derived are suffixes of tensors that some writers save although they follow from the configuration.
	Derived []string
}

// Layer returns the full name of a layer's tensor.
func (t *Tensors) Layer(layer int, name string) string {
	return fmt.Sprintf(t.LayerPrefix, layer) + name
}

// Sources lists the families that can be converted, one a file.
var Sources = []*Family{llama, mistral}

// Parse reads a source's config.json. What is not a supported family is an error of kind Unsupported that says what was
// found and what is supported; a malformed field is one of kind BadSource.
func Parse(data []byte) (*Model, error) {
	c, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	family, err := c.family()
	if err != nil {
		return nil, err
	}
	m := &Model{Family: family, Shape: c.shape()}
	m.KVHeads = c.size("num_key_value_heads", m.Heads)
	m.HeadDim = c.size("head_dim", max(1, m.Hidden/m.Heads))
	m.Tied = c.boolean("tie_word_embeddings", false)
	if !c.has("head_dim") && m.Hidden%m.Heads != 0 {
		c.fail(bad("num_attention_heads", fmt.Sprint(m.Heads), fmt.Sprintf("a divisor of hidden_size %d, or head_dim beside it", m.Hidden)))
	}
	if m.Heads%m.KVHeads != 0 {
		c.fail(bad("num_key_value_heads", fmt.Sprint(m.KVHeads), fmt.Sprintf("a divisor of num_attention_heads %d", m.Heads)))
	}
	if m.HeadDim%2 != 0 {
		c.fail(bad("head_dim", fmt.Sprint(m.HeadDim), "an even number (rotary pairs)"))
	}
	if m.Rope.Type == RopeYarn {
		return nil, unsupported("rope_scaling", fmt.Sprintf("RoPE type %q", m.Rope.Type), sourceRopes, "")
	}
	if m.Activation != "silu" {
		c.fail(unsupported("hidden_act", m.Activation, "silu", ""))
	}
	if c.has("quantization_config") {
		c.fail(unsupported("quantization_config", "quantized weights", "F32, F16 or BF16 weights", "dequantize the checkpoint first"))
	}
	family.refuse(c)
	return m, c.err
}

// family finds the source family by model_type and, where that is absent, by architectures.
func (c *config) family() (*Family, error) {
	modelType, architectures := c.text("model_type", ""), c.texts("architectures")
	if c.err != nil {
		return nil, c.err
	}
	var known []string
	for _, f := range Sources {
		typed := slices.Contains(f.ModelTypes, modelType)
		classed := slices.ContainsFunc(architectures, func(a string) bool { return slices.Contains(f.Architectures, a) })
		if (typed && (classed || len(architectures) == 0)) || (modelType == "" && classed) {
			return f, nil
		}
		known = append(known, f.Architectures...)
	}
	return nil, unsupported("model_type", fmt.Sprintf("model_type %q, architectures %v", modelType, architectures), strings.Join(known, " or "), "")
}

// shape reads what every decoder's configuration has.
func (c *config) shape() Shape {
	s := Shape{
		Hidden:           c.size("hidden_size", 0),
		Intermediate:     c.size("intermediate_size", 0),
		Layers:           c.size("num_hidden_layers", 0),
		Heads:            c.size("num_attention_heads", 0),
		Vocab:            c.size("vocab_size", 0),
		Context:          c.size("max_position_embeddings", 2048),
		NormEps:          c.positive("rms_norm_eps", 1e-6),
		Activation:       c.text("hidden_act", "silu"),
		InitializerRange: c.positive("initializer_range", 0.02),
		Dtype:            c.text("dtype", c.text("torch_dtype", "")),
	}
	s.Rope = c.rope()
	s.BOS = c.ids("bos_token_id", s.Vocab)
	s.EOS = c.ids("eos_token_id", s.Vocab)
	return s
}
