// Package export writes a converted checkpoint in the format of an engine that does not read Hugging Face folders: GGUF, for
// llama.cpp and what is built on it.
//
// [NewPlan] reads headers and the tokenizer, says all that stands in the way at once, and lays the file out; [Plan.Run] then
// streams the weights. llama.cpp's architecture deepseek2 is the target: Multi-head Latent Attention in its absorbed form,
// with every layer dense, without biases.
package export
