// Package checkpoint reads and writes model weights in the safetensors format, in the folder layout of Hugging Face.
//
// [Open] reads the headers of a checkpoint, one file or many shards, and maps the files; the data of a [Tensor] is
// touched only when it is asked for, and [Tensor.Release] gives the pages back. Every header passes a strict check of
// our own before the library github.com/nlpodyssey/safetensors decodes it, because the library accepts duplicate keys
// and refuses whole files for one dtype that it does not know.
//
// [PlanLayout] fixes the place of every tensor before the first byte is written, and a [Writer] fills those places in
// any order, from any number of goroutines, in a staging folder that becomes the output in one rename. A journal beside the
// staging folder lets a later run continue after a crash.
package checkpoint
