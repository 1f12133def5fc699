package testmodel

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/mlaconvert/mlaconvert/internal/arch"
)

// TinyMLA is a converted model of a few kilobytes, without biases.
var TinyMLA = arch.MLA{
	Shape: arch.Shape{
		Hidden: 64, Intermediate: 96, Layers: 2, Heads: 4, Vocab: 80, Context: 128, NormEps: 1e-5, Activation: "silu",
		InitializerRange: 0.02, Rope: arch.Rope{Type: arch.RopeDefault, Theta: 10000}, BOS: []int{1}, EOS: []int{2},
	},
	Rank: 32, NoPEDim: 16, RopeDim: 8, VDim: 12,
}

// NewMLA makes a converted model with random weights, as [New] does.
func NewMLA(a arch.MLA, dtype string, seed uint64) *Model {
	m := &Model{}
	text, err := a.MarshalConfig(map[string]string{"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype])
	if err == nil {
		err = json.Unmarshal(text, &m.Config)
	}
	if err != nil {
		panic(err)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	t := &arch.MLATensors
	random := func(name string, centre, spread float64, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		data := make([]float32, n)
		for i := range data {
			data[i] = float32(centre + spread*r.NormFloat64())
		}
		m.Tensors = append(m.Tensors, Tensor{name, dtype, shape, Encode(dtype, data)})
	}
	matrix := func(name string, rows, cols int) { random(name, 0, 1/math.Sqrt(float64(cols)), rows, cols) }
	norm := func(name string, n int) { random(name, 1, 0.2, n) }
	matrix(t.Embed, a.Vocab, a.Hidden)
	for layer := range a.Layers {
		name := func(s string) string { return t.Layer(layer, s) }
		norm(name(t.AttnNorm), a.Hidden)
		matrix(name(t.Q), a.Heads*(a.NoPEDim+a.RopeDim), a.Hidden)
		matrix(name(t.KVDown), a.Rank+a.RopeDim, a.Hidden)
		norm(name(t.LatentNorm), a.Rank)
		matrix(name(t.KVUp), a.Heads*(a.NoPEDim+a.VDim), a.Rank)
		matrix(name(t.O), a.Hidden, a.Heads*a.VDim)
		norm(name(t.MLPNorm), a.Hidden)
		matrix(name(t.Gate), a.Intermediate, a.Hidden)
		matrix(name(t.Up), a.Intermediate, a.Hidden)
		matrix(name(t.Down), a.Hidden, a.Intermediate)
	}
	norm(t.FinalNorm, a.Hidden)
	matrix(t.Head, a.Vocab, a.Hidden)
	return m
}

// ByteTokenizer is a byte-level tokenizer.json with room for size tokens: three special ones, the printable characters that
// stand for themselves, and merges of neighbours in the alphabet.
func ByteTokenizer(size int) []byte {
	vocab := map[string]int{}
	add := func(token string) bool {
		if _, ok := vocab[token]; ok || len(vocab) == size {
			return false
		}
		vocab[token] = len(vocab)
		return true
	}
	special := []string{"<pad>", "<bos>", "<eos>"}
	var added []map[string]any
	for id, token := range special {
		add(token)
		added = append(added, map[string]any{
			"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
		})
	}
	for c := 'a'; c <= 'z'; c++ {
		add(string(c))
	}
	merges := []string{}
	for c := 'a'; c < 'z'; c++ {
		if add(string(c) + string(c+1)) {
			merges = append(merges, fmt.Sprintf("%c %c", c, c+1))
		}
	}
	text, err := json.Marshal(map[string]any{
		"version": "1.0", "added_tokens": added, "normalizer": nil,
		"pre_tokenizer":  map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		"post_processor": nil,
		"decoder":        map[string]any{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model":          map[string]any{"type": "BPE", "dropout": nil, "unk_token": nil, "vocab": vocab, "merges": merges},
	})
	if err != nil {
		panic(err)
	}
	return text
}
