// Command mlaconvert turns an MHA or GQA checkpoint into a Multi-head Latent Attention checkpoint.
package main

import (
	"os"

	"github.com/mlaconvert/mlaconvert/cmd"
)

func main() { os.Exit(cmd.Main()) }
