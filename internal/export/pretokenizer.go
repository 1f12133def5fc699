package export

import (
	"encoding/json"
	"fmt"
	"strings"
)

// component is a normalizer or pre-tokenizer of tokenizer.json, with the fields that tell one from another.
type component struct {
	Type             string            `json:"type"`
	AddPrefixSpace   *bool             `json:"add_prefix_space"`
	UseRegex         *bool             `json:"use_regex"`
	IndividualDigits bool              `json:"individual_digits"`
	Pattern          map[string]string `json:"pattern"`
	Behavior         string            `json:"behavior"`
	Invert           bool              `json:"invert"`
	Prepend          string            `json:"prepend"`
	Content          string            `json:"content"`
	Replacement      string            `json:"replacement"`
	PrependScheme    string            `json:"prepend_scheme"`
	Split            *bool             `json:"split"`
}

// parseComponents decodes components that the tokenizer has accepted.
func parseComponents(texts []json.RawMessage) ([]component, error) {
	out := make([]component, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal(text, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func isTrue(b *bool, missing bool) bool {
	if b == nil {
		return missing
	}
	return *b
}

// String writes a component in one line. Two that split alike are written alike.
func (c component) String() string {
	switch c.Type {
	case "ByteLevel":
		s := "ByteLevel"
		if isTrue(c.AddPrefixSpace, true) {
			s += " with a space put in front"
		}
		if isTrue(c.UseRegex, true) {
			s += " with GPT-2's expression"
		}
		return s
	case "Digits":
		if c.IndividualDigits {
			return "Digits, each by itself"
		}
		return "Digits"
	case "Split":
		pattern, ok := c.Pattern["Regex"]
		if !ok {
			pattern = fmt.Sprintf("the text %q", c.Pattern["String"])
		}
		pattern = strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(pattern)
		behavior := c.Behavior
		// To drop everything between the matches is to keep each match, if they cover all text as these expressions do.
		if behavior == "Removed" && c.Invert {
			behavior = "Isolated"
		} else if c.Invert {
			behavior += ", inverted"
		}
		return "Split " + behavior + " " + pattern
	case "Metaspace":
		split := ""
		if isTrue(c.Split, true) {
			split = ", split"
		}
		return fmt.Sprintf("Metaspace %s %s%s", c.Replacement, c.PrependScheme, split)
	case "Prepend":
		return "Prepend " + c.Prepend
	case "Replace":
		return fmt.Sprintf("Replace %v by %s", c.Pattern, c.Content)
	}
	return c.Type
}

func joinComponents(list []component) string {
	texts := make([]string, len(list))
	for i, c := range list {
		texts[i] = c.String()
	}
	return strings.Join(texts, "; ")
}

// preTokenizer is one of llama.cpp's, which are compiled in and chosen by name (llama-vocab.cpp).
type preTokenizer struct {
	name string
	// components is the pre_tokenizer of tokenizer.json that it stands for, as joinComponents writes it.
	components string
	// ignoreMerges says that llama.cpp takes a whole word that is in the vocabulary as it is, like the model's field
	// ignore_merges.
	ignoreMerges bool
}

const (
	contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
	lastSpace    = `\s*[\r\n]+|\s+(?!\S)|\s+`
	// capital and small are the halves of o200k's expression: a word that ends in small letters, and one of capitals.
	capital = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
	small   = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`

	llama3Split = contractions + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|` + lastSpace
	qwen2Split  = contractions + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|` + lastSpace
	tekkenSplit = capital + `|` + small + `|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|` + lastSpace
	gpt4oSplit  = capital + contractions + `?|` + small + contractions + `?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|` + lastSpace
)

// preTokenizers lists those that are recognised. Where two stand for the same components, ignore_merges decides.
var preTokenizers = []preTokenizer{
	{"gpt-2", "ByteLevel with GPT-2's expression", false},
	{"smollm", "Digits, each by itself; ByteLevel with GPT-2's expression", false},
	{"llama-bpe", "Split Isolated " + llama3Split + "; ByteLevel", true},
	{"smaug-bpe", "Split Isolated " + llama3Split + "; ByteLevel", false},
	{"qwen2", "Split Isolated " + qwen2Split + "; ByteLevel", false},
	{"tekken", "Split Isolated " + tekkenSplit + "; ByteLevel", true},
	{"gpt-4o", "Split Isolated " + gpt4oSplit + "; ByteLevel", false},
}

// findPreTokenizer returns llama.cpp's pre-tokenizer for the components; exact says that it treats merges alike too.
func findPreTokenizer(components string, ignoreMerges bool) (p preTokenizer, exact, ok bool) {
	for _, known := range preTokenizers {
		if known.components != components {
			continue
		}
		if known.ignoreMerges == ignoreMerges {
			return known, true, true
		}
		if !ok {
			p, ok = known, true
		}
	}
	return p, false, ok
}
