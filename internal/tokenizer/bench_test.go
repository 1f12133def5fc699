package tokenizer

import (
	"os"
	"strings"
	"testing"
)

// BenchmarkEncode encodes the mixed lines as one text.
func BenchmarkEncode(b *testing.B) {
	text := strings.Join(mixedLines(b), "\n")
	for _, family := range []string{"gpt2", "llama3", "smollm", "llama2"} {
		b.Run(family, func(b *testing.B) {
			tok := load(b, family)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tok.Encode(text, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFile encodes the text named by TOKENIZER_TEXT as one, and loads the file named by
// TOKENIZER_FILE.
func BenchmarkFile(b *testing.B) {
	path := os.Getenv("TOKENIZER_FILE")
	text, err := os.ReadFile(os.Getenv("TOKENIZER_TEXT"))
	if path == "" || err != nil {
		b.Skip("TOKENIZER_FILE and TOKENIZER_TEXT name no tokenizer.json and text")
	}
	tok, err := Load(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Encode", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tok.Encode(string(text), false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Load", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Load(path); err != nil {
				b.Fatal(err)
			}
		}
	})
}
