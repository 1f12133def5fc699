package arch

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// MLA is a dense decoder with Multi-head Latent Attention in the layout of DeepseekV3ForCausalLM (DeepSeek-V2,
// arXiv:2405.04434, section 2.1), which stock engines load when first_k_dense_replace covers every layer.
type MLA struct {
	Shape
	// Rank is kv_lora_rank, the width of the cached latent; NoPEDim, RopeDim and VDim are qk_nope_head_dim,
	// qk_rope_head_dim and v_head_dim.
	Rank, NoPEDim, RopeDim, VDim int
	// Bias is attention_bias: kv_a_proj_with_mqa and o_proj have one.
	Bias bool
	// Tied says that the output head is the embedding matrix where there is no lm_head.weight.
	Tied bool
	// LatentEps is the epsilon of kv_a_layernorm, which is the engine's choice and in no field of the configuration:
	// LatentNormEps in transformers, NormEps in vLLM and llama.cpp.
	LatentEps float64
}

// LatentNormEps is the epsilon of kv_a_layernorm in transformers' DeepseekV3Attention, which does not take rms_norm_eps.
const LatentNormEps = 1e-6

// CacheFloats is the latent cache, in floats per token and layer: the latent and the one shared rotary key.
func (m *MLA) CacheFloats() int { return m.Rank + m.RopeDim }

// MLATensors names the tensors of the target.
var MLATensors = struct {
	Tensors
	KVDown, KVDownBias, LatentNorm, KVUp, OBias string
}{
	Tensors: Tensors{
		Embed: llamaTensors.Embed, FinalNorm: llamaTensors.FinalNorm, Head: llamaTensors.Head,
		LayerPrefix: llamaTensors.LayerPrefix,
		AttnNorm:    llamaTensors.AttnNorm, MLPNorm: llamaTensors.MLPNorm,
		Q: llamaTensors.Q, O: llamaTensors.O,
		Gate: llamaTensors.Gate, Up: llamaTensors.Up, Down: llamaTensors.Down,
	},
	KVDown: "self_attn.kv_a_proj_with_mqa.weight", KVDownBias: "self_attn.kv_a_proj_with_mqa.bias",
	LatentNorm: "self_attn.kv_a_layernorm.weight", KVUp: "self_attn.kv_b_proj.weight", OBias: "self_attn.o_proj.bias",
}

const (
	mlaArchitecture = "DeepseekV3ForCausalLM"
	mlaModelType    = "deepseek_v3"
)

// float is a number that is always written with a point or an exponent: engines with strict configuration classes
// refuse 1 where they expect 1.0.
type float float64

func (f float) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(float64(f))
	if err == nil && float64(f) == math.Trunc(float64(f)) && !slices.ContainsFunc(b, func(c byte) bool { return c == 'e' || c == 'E' || c == '.' }) {
		b = append(b, ".0"...)
	}
	return b, err
}

// mlaConfig is the target's config.json. The expert fields are there because loaders read them even when no layer has
// experts; head_dim is absent because it would override qk_rope_head_dim.
type mlaConfig struct {
	Architectures         []string `json:"architectures"`
	ModelType             string   `json:"model_type"`
	HiddenAct             string   `json:"hidden_act"`
	AttentionBias         bool     `json:"attention_bias"`
	AttentionDropout      float    `json:"attention_dropout"`
	BOS                   any      `json:"bos_token_id"`
	EOS                   any      `json:"eos_token_id"`
	VocabSize             int      `json:"vocab_size"`
	HiddenSize            int      `json:"hidden_size"`
	IntermediateSize      int      `json:"intermediate_size"`
	NumHiddenLayers       int      `json:"num_hidden_layers"`
	NumAttentionHeads     int      `json:"num_attention_heads"`
	NumKeyValueHeads      int      `json:"num_key_value_heads"`
	MaxPositionEmbeddings int      `json:"max_position_embeddings"`
	QLoraRank             *int     `json:"q_lora_rank"`
	KVLoraRank            int      `json:"kv_lora_rank"`
	QKNoPEHeadDim         int      `json:"qk_nope_head_dim"`
	QKRopeHeadDim         int      `json:"qk_rope_head_dim"`
	VHeadDim              int      `json:"v_head_dim"`
	FirstKDenseReplace    int      `json:"first_k_dense_replace"`
	MoELayerFreq          int      `json:"moe_layer_freq"`
	NRoutedExperts        int      `json:"n_routed_experts"`
	NumExpertsPerTok      int      `json:"num_experts_per_tok"`
	NSharedExperts        int      `json:"n_shared_experts"`
	MoEIntermediateSize   int      `json:"moe_intermediate_size"`
	NGroup                int      `json:"n_group"`
	TopKGroup             int      `json:"topk_group"`
	ScoringFunc           string   `json:"scoring_func"`
	TopKMethod            string   `json:"topk_method"`
	NormTopKProb          bool     `json:"norm_topk_prob"`
	RoutedScalingFactor   float    `json:"routed_scaling_factor"`
	NumNextNPredictLayers int      `json:"num_nextn_predict_layers"`
	RopeTheta             float    `json:"rope_theta"`
	RopeScaling           any      `json:"rope_scaling"`
	RopeInterleave        bool     `json:"rope_interleave"`
	TieWordEmbeddings     bool     `json:"tie_word_embeddings"`
	RMSNormEps            float    `json:"rms_norm_eps"`
	InitializerRange      float    `json:"initializer_range"`
	UseCache              bool     `json:"use_cache"`
	TorchDtype            string   `json:"torch_dtype"`
}

type linearScaling struct {
	Type     RopeType `json:"type"`
	RopeType RopeType `json:"rope_type"`
	Factor   float    `json:"factor"`
}

type llama3Scaling struct {
	linearScaling
	LowFreqFactor   float `json:"low_freq_factor"`
	HighFreqFactor  float `json:"high_freq_factor"`
	OriginalContext int   `json:"original_max_position_embeddings"`
}

type yarnScaling struct {
	linearScaling
	BetaFast        float `json:"beta_fast"`
	BetaSlow        float `json:"beta_slow"`
	MScale          float `json:"mscale"`
	MScaleAllDim    float `json:"mscale_all_dim"`
	OriginalContext int   `json:"original_max_position_embeddings"`
}

// MarshalConfig returns the config.json of the target, its weights stored as dtype (float32, float16 or bfloat16).
func (m *MLA) MarshalConfig(dtype string) ([]byte, error) {
	c := mlaConfig{
		Architectures: []string{mlaArchitecture}, ModelType: mlaModelType, HiddenAct: m.Activation,
		AttentionBias: m.Bias, BOS: oneOrMany(m.BOS), EOS: oneOrMany(m.EOS),
		VocabSize: m.Vocab, HiddenSize: m.Hidden, IntermediateSize: m.Intermediate,
		NumHiddenLayers: m.Layers, NumAttentionHeads: m.Heads, NumKeyValueHeads: m.Heads, MaxPositionEmbeddings: m.Context,
		KVLoraRank: m.Rank, QKNoPEHeadDim: m.NoPEDim, QKRopeHeadDim: m.RopeDim, VHeadDim: m.VDim,
		FirstKDenseReplace: m.Layers, MoELayerFreq: 1, NRoutedExperts: 2, NumExpertsPerTok: 1,
		MoEIntermediateSize: m.Intermediate, NGroup: 1, TopKGroup: 1, ScoringFunc: "sigmoid", TopKMethod: "noaux_tc",
		NormTopKProb: true, RoutedScalingFactor: 1,
		RopeTheta: float(m.Rope.Theta), RopeInterleave: true,
		TieWordEmbeddings: m.Tied, RMSNormEps: float(m.NormEps), InitializerRange: float(m.InitializerRange), UseCache: true, TorchDtype: dtype,
	}
	linear := linearScaling{Type: m.Rope.Type, RopeType: m.Rope.Type, Factor: float(m.Rope.Factor)}
	switch m.Rope.Type {
	case RopeLinear:
		c.RopeScaling = linear
	case RopeLlama3:
		c.RopeScaling = llama3Scaling{linear, float(m.Rope.LowFreqFactor), float(m.Rope.HighFreqFactor), m.Rope.OriginalContext}
	case RopeYarn:
		scale := float(m.Rope.MScaleAllDim)
		c.RopeScaling = yarnScaling{linear, float(m.Rope.BetaFast), float(m.Rope.BetaSlow), scale, scale, m.Rope.OriginalContext}
	}
	b, err := json.MarshalIndent(c, "", "  ")
	return append(b, '\n'), err
}

func oneOrMany(ids []int) any {
	switch len(ids) {
	case 0:
		return nil
	case 1:
		return ids[0]
	}
	return ids
}

// ParseMLA reads the config.json of a dense DeepseekV3ForCausalLM checkpoint without query compression.
func ParseMLA(data []byte) (*MLA, error) {
	c, err := parseConfig(data)
	if err != nil {
		return nil, err
	}
	modelType := c.text("model_type", "")
	if c.err == nil && modelType != mlaModelType {
		return nil, unsupported("model_type", fmt.Sprintf("%q", modelType), fmt.Sprintf("%q (a converted checkpoint)", mlaModelType), "")
	}
	m := &MLA{
		Shape: c.shape(),
		Rank:  c.size("kv_lora_rank", 0), NoPEDim: c.size("qk_nope_head_dim", 0),
		RopeDim: c.size("qk_rope_head_dim", 0), VDim: c.size("v_head_dim", 0),
		Bias: c.boolean("attention_bias", false), Tied: c.boolean("tie_word_embeddings", false), LatentEps: LatentNormEps,
	}
	if c.has("q_lora_rank") {
		c.fail(unsupported("q_lora_rank", show(c.fields["q_lora_rank"]), "null (full-rank queries)", ""))
	}
	if k := c.size("first_k_dense_replace", 1); k < m.Layers {
		c.fail(unsupported("first_k_dense_replace", fmt.Sprint(k), fmt.Sprintf("%d (every layer dense)", m.Layers), ""))
	}
	if !c.boolean("rope_interleave", true) {
		c.fail(unsupported("rope_interleave", "false", "true", ""))
	}
	if m.RopeDim%2 != 0 {
		c.fail(bad("qk_rope_head_dim", fmt.Sprint(m.RopeDim), "an even number (rotary pairs)"))
	}
	return m, c.err
}
