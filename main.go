// Command mlaconvert turns an MHA or GQA checkpoint into a Multi-head Latent Attention checkpoint.
package main

func main() {}
