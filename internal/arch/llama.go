package arch

// llamaTensors are the names that Llama introduced and most families after it kept.
var llamaTensors = Tensors{
	Embed: "model.embed_tokens.weight", FinalNorm: "model.norm.weight", Head: "lm_head.weight",
	LayerPrefix: "model.layers.%d.",
	AttnNorm:    "input_layernorm.weight", MLPNorm: "post_attention_layernorm.weight",
	Q: "self_attn.q_proj.weight", K: "self_attn.k_proj.weight", V: "self_attn.v_proj.weight", O: "self_attn.o_proj.weight",
	Gate: "mlp.gate_proj.weight", Up: "mlp.up_proj.weight", Down: "mlp.down_proj.weight",
	Derived: []string{"rotary_emb.inv_freq"},
}

// llama is Llama 1, 2 and 3, and what is published under its class (SmolLM2, TinyLlama, Yi and others).
var llama = &Family{
	Name:          "llama",
	ModelTypes:    []string{"llama"},
	Architectures: []string{"LlamaForCausalLM"},
	Tensors:       llamaTensors,
	refuse: func(c *config) {
		for _, field := range []string{"attention_bias", "mlp_bias"} {
			if c.boolean(field, false) {
				c.fail(unsupported(field, "true", "false (no projection biases)", ""))
			}
		}
	},
}
