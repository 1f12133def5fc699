// Package testmodel makes random Llama checkpoints for tests, sound or spoiled. It writes the safetensors format by itself,
// so that it can write what the real writer refuses to.
package testmodel

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// Shape is the geometry of a model.
type Shape struct {
	Hidden, Intermediate, Layers, Heads, KVHeads, HeadDim, Vocab int
	Tied                                                         bool
	// DType is that of every tensor, in the names of safetensors headers.
	DType string
	Seed  uint64
}

// Tiny is a grouped-query model of a few kilobytes.
var Tiny = Shape{Hidden: 32, Intermediate: 48, Layers: 3, Heads: 4, KVHeads: 2, HeadDim: 8, Vocab: 64, DType: "BF16", Seed: 1}

// Tensor is one tensor with the bytes as they go into the file.
type Tensor struct {
	Name, DType string
	Shape       []int
	Data        []byte
}

// Model is a checkpoint before it is written.
type Model struct {
	Config  map[string]any
	Tensors []Tensor
}

// New makes a model with random weights: those of matrices have the variance 1/columns, those of norms lie around 1.
func New(s Shape) *Model {
	m := &Model{Config: map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_act": "silu",
		"hidden_size": s.Hidden, "intermediate_size": s.Intermediate, "num_hidden_layers": s.Layers,
		"num_attention_heads": s.Heads, "num_key_value_heads": s.KVHeads, "head_dim": s.HeadDim, "vocab_size": s.Vocab,
		"max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": s.Tied,
		"bos_token_id": 0, "eos_token_id": 0,
	}}
	r := rand.New(rand.NewPCG(s.Seed, 0))
	matrix := func(name string, rows, cols int) {
		data := make([]float32, rows*cols)
		for i := range data {
			data[i] = float32(r.NormFloat64() / math.Sqrt(float64(cols)))
		}
		m.Tensors = append(m.Tensors, Tensor{name, s.DType, []int{rows, cols}, Encode(s.DType, data)})
	}
	norm := func(name string) {
		data := make([]float32, s.Hidden)
		for i := range data {
			data[i] = float32(1 + 0.2*r.NormFloat64())
		}
		m.Tensors = append(m.Tensors, Tensor{name, s.DType, []int{s.Hidden}, Encode(s.DType, data)})
	}
	matrix("model.embed_tokens.weight", s.Vocab, s.Hidden)
	for layer := range s.Layers {
		prefix := fmt.Sprintf("model.layers.%d.", layer)
		norm(prefix + "input_layernorm.weight")
		matrix(prefix+"self_attn.q_proj.weight", s.Heads*s.HeadDim, s.Hidden)
		matrix(prefix+"self_attn.k_proj.weight", s.KVHeads*s.HeadDim, s.Hidden)
		matrix(prefix+"self_attn.v_proj.weight", s.KVHeads*s.HeadDim, s.Hidden)
		matrix(prefix+"self_attn.o_proj.weight", s.Hidden, s.Heads*s.HeadDim)
		norm(prefix + "post_attention_layernorm.weight")
		matrix(prefix+"mlp.gate_proj.weight", s.Intermediate, s.Hidden)
		matrix(prefix+"mlp.up_proj.weight", s.Intermediate, s.Hidden)
		matrix(prefix+"mlp.down_proj.weight", s.Hidden, s.Intermediate)
	}
	norm("model.norm.weight")
	if !s.Tied {
		matrix("lm_head.weight", s.Vocab, s.Hidden)
	}
	return m
}

// Encode returns the little-endian bytes of values as a dtype of F32, F16 or BF16.
func Encode(dtype string, values []float32) []byte {
	switch dtype {
	case "F32":
		b := make([]byte, 4*len(values))
		checkpoint.Float32ToF32(b, values)
		return b
	case "F16":
		b := make([]byte, 2*len(values))
		checkpoint.Float32ToF16(b, values)
		return b
	case "BF16":
		b := make([]byte, 2*len(values))
		checkpoint.Float32ToBF16(b, values)
		return b
	}
	panic("testmodel: dtype " + dtype)
}

// Get returns a tensor by its name.
func (m *Model) Get(name string) *Tensor {
	for i := range m.Tensors {
		if m.Tensors[i].Name == name {
			return &m.Tensors[i]
		}
	}
	panic("testmodel: no tensor " + name)
}

// Drop takes a tensor out.
func (m *Model) Drop(name string) {
	m.Get(name)
	m.Tensors = slices.DeleteFunc(m.Tensors, func(t Tensor) bool { return t.Name == name })
}

// Write writes the model to a folder, which it makes: one weights file, or shards of them with an index.
func (m *Model) Write(dir string, shards int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	config, err := json.MarshalIndent(m.Config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
		return err
	}
	if shards <= 1 {
		return writeShard(filepath.Join(dir, "model.safetensors"), m.Tensors)
	}
	shardOf := make(map[string]string)
	for i := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)
		part := m.Tensors[i*len(m.Tensors)/shards : (i+1)*len(m.Tensors)/shards]
		for _, t := range part {
			shardOf[t.Name] = name
		}
		if err := writeShard(filepath.Join(dir, name), part); err != nil {
			return err
		}
	}
	index, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": shardOf})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), index, 0o644)
}

// Open writes the model to a temporary folder named model and opens it until the test ends.
func (m *Model) Open(t testing.TB) *checkpoint.Source {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := m.Write(dir, 1); err != nil {
		t.Fatal(err)
	}
	return OpenDir(t, dir)
}

// OpenDir opens the checkpoint in a folder until the test ends.
func OpenDir(t testing.TB, dir string) *checkpoint.Source {
	t.Helper()
	src, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

func writeShard(path string, tensors []Tensor) error {
	header := make(map[string]any)
	var data []byte
	for _, t := range tensors {
		header[t.Name] = map[string]any{"dtype": t.DType, "shape": t.Shape, "data_offsets": []int{len(data), len(data) + len(t.Data)}}
		data = append(data, t.Data...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return os.WriteFile(path, slices.Concat(file, text, data), 0o644)
}
