package export

import (
	"fmt"
	"math"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/engine"
	"github.com/mlaconvert/mlaconvert/internal/gguf"
)

const architecture = "deepseek2"

// llamacpp is what is known of the engine that the file is for.
var llamacpp = engine.Lookup("llama.cpp")

// convertHint is the way out of a checkpoint that llama.cpp cannot compute.
const convertHint = "convert again with --engine llama.cpp"

// checkArchitecture says what of the configuration llama.cpp's deepseek2 cannot compute.
func checkArchitecture(m *arch.MLA) (errs []error) {
	for _, limit := range llamacpp.Check(m) {
		errs = append(errs, &checkpoint.Error{
			Kind: checkpoint.Unsupported, File: "config.json", Tensor: limit.Field, Got: limit.Found, Want: limit.Accepted, Hint: limit.WayOut,
		})
	}
	return errs
}

// architectureKeys are the metadata of the geometry, under the names of llama.cpp (llama-arch.cpp). In the absorbed form, which
// it computes, attention is multi-query attention: one head of keys as wide as the cache, and the latent as its values.
func architectureKeys(m *arch.MLA) []gguf.KV {
	kv := []gguf.KV{
		{Key: "vocab_size", Value: uint32(m.Vocab)},
		{Key: "context_length", Value: uint32(m.Context)},
		{Key: "embedding_length", Value: uint32(m.Hidden)},
		{Key: "block_count", Value: uint32(m.Layers)},
		{Key: "feed_forward_length", Value: uint32(m.Intermediate)},
		{Key: "attention.head_count", Value: uint32(m.Heads)},
		{Key: "attention.head_count_kv", Value: uint32(1)},
		{Key: "attention.layer_norm_rms_epsilon", Value: float32(m.NormEps)},
		{Key: "attention.q_lora_rank", Value: uint32(0)}, // which selects attn_q
		{Key: "attention.kv_lora_rank", Value: uint32(m.Rank)},
		{Key: "attention.key_length", Value: uint32(m.Rank + m.RopeDim)},
		{Key: "attention.value_length", Value: uint32(m.Rank)},
		{Key: "attention.key_length_mla", Value: uint32(m.NoPEDim + m.RopeDim)},
		{Key: "attention.value_length_mla", Value: uint32(m.VDim)},
		{Key: "rope.dimension_count", Value: uint32(m.RopeDim)},
		{Key: "rope.freq_base", Value: float32(m.Rope.Theta)},
		// Every layer is dense; the loader asks for the experts all the same.
		{Key: "leading_dense_block_count", Value: uint32(m.Layers)},
		{Key: "expert_count", Value: uint32(0)},
		{Key: "expert_used_count", Value: uint32(0)},
		{Key: "expert_group_count", Value: uint32(0)},
		{Key: "expert_shared_count", Value: uint32(0)},
		{Key: "expert_feed_forward_length", Value: uint32(m.Intermediate)},
	}
	kv = append(kv, ropeKeys(&m.Rope)...)
	for i := range kv {
		kv[i].Key = architecture + "." + kv[i].Key
	}
	return kv
}

// ropeKeys are the metadata of a scaled rotary embedding, of a type that llama.cpp computes.
//
// With f the factor and L ten times yarn_log_multiplier, deepseek2 multiplies the scores by ((1 + ln(f)/10) (1 + L ln(f)/10))^2
// for every type of scaling. The first factor is there to cancel one that llama.cpp has applied before with YaRN, if L is not
// zero, and only then; so with YaRN L is mscale_all_dim. Linear scaling is to leave the scores alone, so there L is chosen such
// that the product is 1.
func ropeKeys(r *arch.Rope) []gguf.KV {
	if r.Type == arch.RopeDefault {
		return nil
	}
	kv := []gguf.KV{{Key: "rope.scaling.type", Value: string(r.Type)}, {Key: "rope.scaling.factor", Value: float32(r.Factor)}}
	switch r.Type {
	case arch.RopeLinear:
		kv = append(kv, gguf.KV{Key: "rope.scaling.yarn_log_multiplier", Value: float32(-0.1 / (1 + 0.1*math.Log(r.Factor)))})
	case arch.RopeYarn:
		kv = append(kv,
			gguf.KV{Key: "rope.scaling.original_context_length", Value: uint32(r.OriginalContext)},
			gguf.KV{Key: "rope.scaling.yarn_log_multiplier", Value: float32(0.1 * r.MScaleAllDim)},
		)
	default:
		panic(fmt.Sprintf("export: RoPE type %q", r.Type))
	}
	return kv
}

// maxProblems bounds the list of what is wrong with the tensors: of another geometry something is in every layer.
const maxProblems = 40

// weights lists the tensors of the file with their values out of src. wanted is the type of the matrices; a row that it cannot
// hold is written as F16, and named in narrow.
func weights(src *checkpoint.Source, m *arch.MLA, wanted gguf.Type) (tensors []gguf.Tensor, narrow []string, errs []error) {
	t := &arch.MLATensors
	used := make(map[string]bool)
	more := 0
	fail := func(err error) {
		if len(errs) == maxProblems {
			more++
			return
		}
		errs = append(errs, err)
	}
	// want finds a tensor of the checkpoint; without it, what is left of the list only serves to find more errors.
	want := func(name string, shape ...int) *checkpoint.Tensor {
		used[name] = true
		w, err := src.Want(name, shape...)
		if err != nil {
			fail(err)
		}
		return w
	}
	add := func(name string, values func(yield func([]float32) error) error, shape ...int) {
		kind := wanted
		switch {
		case len(shape) == 1:
			kind = gguf.F32
		case kind == gguf.Q8_0 && shape[len(shape)-1]%gguf.QBlock != 0:
			kind = gguf.F16
			narrow = append(narrow, name)
		}
		tensors = append(tensors, gguf.Tensor{Name: name, Type: kind, Shape: shape, Values: values})
	}
	copyOf := func(name, from string, shape ...int) {
		w := want(from, shape...)
		add(name, func(yield func([]float32) error) error { return copyRows(w, yield) }, shape...)
	}
	copyOf("token_embd.weight", t.Embed, m.Vocab, m.Hidden)
	for layer := range m.Layers {
		block := func(name string) string { return fmt.Sprintf("blk.%d.%s.weight", layer, name) }
		from := func(name string) string { return t.Layer(layer, name) }
		copyOf(block("attn_norm"), from(t.AttnNorm), m.Hidden)
		copyOf(block("attn_q"), from(t.Q), m.Heads*(m.NoPEDim+m.RopeDim), m.Hidden)
		copyOf(block("attn_kv_a_mqa"), from(t.KVDown), m.Rank+m.RopeDim, m.Hidden)
		copyOf(block("attn_kv_a_norm"), from(t.LatentNorm), m.Rank)
		up := want(from(t.KVUp), m.Heads*(m.NoPEDim+m.VDim), m.Rank)
		heads := upProjection{up, m}
		add(block("attn_k_b"), heads.keys, m.Heads, m.Rank, m.NoPEDim)
		add(block("attn_v_b"), heads.values, m.Heads, m.VDim, m.Rank)
		copyOf(block("attn_output"), from(t.O), m.Hidden, m.Heads*m.VDim)
		copyOf(block("ffn_norm"), from(t.MLPNorm), m.Hidden)
		copyOf(block("ffn_gate"), from(t.Gate), m.Intermediate, m.Hidden)
		copyOf(block("ffn_up"), from(t.Up), m.Intermediate, m.Hidden)
		copyOf(block("ffn_down"), from(t.Down), m.Hidden, m.Intermediate)
	}
	copyOf("output_norm.weight", t.FinalNorm, m.Hidden)
	if _, ok := src.Get(t.Head); ok || !m.Tied { // without it llama.cpp takes the embedding
		copyOf("output.weight", t.Head, m.Vocab, m.Hidden)
	}
	for _, name := range src.Names() {
		if !used[name] {
			fail(&checkpoint.Error{
				Kind: checkpoint.Unsupported, File: src.Dir(), Tensor: name, Got: "a tensor that llama.cpp has no place for",
				Want: "those of a dense DeepseekV3ForCausalLM without biases", Hint: convertHint,
			})
		}
	}
	if more > 0 {
		errs = append(errs, fmt.Errorf("and %d more problems of this kind", more))
	}
	return tensors, narrow, errs
}

// pieceElements is how many elements are held at once, at least one row of them.
const pieceElements = 1 << 20

// copyRows yields a tensor as it is.
func copyRows(t *checkpoint.Tensor, yield func([]float32) error) error {
	width := t.Elements() / t.Shape[0]
	step := max(1, pieceElements/width)
	var buf []float32
	for lo := 0; lo < t.Shape[0]; lo += step {
		var err error
		buf, err = t.Rows(lo, min(lo+step, t.Shape[0]), buf)
		t.Release() // piece by piece: an embedding may be larger than all else that is held
		if err != nil {
			return err
		}
		if err := yield(buf); err != nil {
			return err
		}
	}
	return nil
}

// upProjection is kv_b_proj, [Heads*(NoPEDim+VDim), Rank], of which a head's rows are the keys' and then the values'.
type upProjection struct {
	t *checkpoint.Tensor
	m *arch.MLA
}

// keys yields attn_k_b, [Heads, Rank, NoPEDim]: each head's rows for the keys transposed, so that they take queries to the
// latent.
func (u upProjection) keys(yield func([]float32) error) error {
	rank, nope := u.m.Rank, u.m.NoPEDim
	out := make([]float32, rank*nope)
	return u.heads(0, nope, func(rows []float32) error {
		for i := range nope {
			for j, v := range rows[i*rank : (i+1)*rank] {
				out[j*nope+i] = v
			}
		}
		return yield(out)
	})
}

// values yields attn_v_b, [Heads, VDim, Rank]: each head's rows for the values.
func (u upProjection) values(yield func([]float32) error) error {
	return u.heads(u.m.NoPEDim, u.m.NoPEDim+u.m.VDim, yield)
}

// heads yields rows lo to hi-1 of every head.
func (u upProjection) heads(lo, hi int, yield func([]float32) error) error {
	var buf []float32
	for h := range u.m.Heads {
		first := h * (u.m.NoPEDim + u.m.VDim)
		var err error
		buf, err = u.t.Rows(first+lo, first+hi, buf)
		u.t.Release()
		if err != nil {
			return err
		}
		if err := yield(buf); err != nil {
			return err
		}
	}
	return nil
}
