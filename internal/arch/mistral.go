package arch

// mistral is Mistral 7B v0.2 and later, whose attention sees the whole context.
var mistral = &Family{
	Name:          "mistral",
	ModelTypes:    []string{"mistral"},
	Architectures: []string{"MistralForCausalLM"},
	Tensors:       llamaTensors,
	refuse: func(c *config) {
		// The configuration class defaults to a window of 4,096 where the field is absent.
		if c.has("sliding_window") {
			c.fail(unsupported("sliding_window", show(c.fields["sliding_window"]), "null (attention over the whole context)",
				"MLA engines have no sliding window; for use within the window only, set sliding_window to null and max_position_embeddings to the window"))
		} else if _, present := c.fields["sliding_window"]; !present {
			c.fail(unsupported("sliding_window", "no such field, which means a window of 4096", "null (attention over the whole context)",
				"for use within the window only, set sliding_window to null and max_position_embeddings to 4096"))
		}
	},
}
