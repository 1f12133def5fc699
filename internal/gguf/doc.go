// Package gguf writes GGUF files, version 3, the format of ggml and llama.cpp (ggml's docs/gguf.md): metadata, a directory of
// tensors, and their data, each aligned to 32 bytes.
//
// [Plan] lays a file out from its metadata and tensors alone, to the byte, before a weight is read; [Layout.Write] then asks
// for the values of one tensor after the other, in pieces, so that memory does not grow with the model.
package gguf
