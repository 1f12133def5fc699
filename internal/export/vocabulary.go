package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/gguf"
	"github.com/mlaconvert/mlaconvert/internal/tokenizer"
)

const (
	tokenizerFile   = "tokenizer.json"
	tokenizerConfig = "tokenizer_config.json"
	maxTokenizer    = 256 << 20
	maxSettings     = 16 << 20
)

// llama.cpp's types of tokens (llama.h, llama_token_type).
const (
	tokenNormal      = 1
	tokenUnknown     = 2
	tokenControl     = 3
	tokenUserDefined = 4
	tokenUnused      = 5
	tokenByte        = 6
)

// vocabulary is the tokenizer in llama.cpp's terms.
type vocabulary struct {
	model    string // tokenizer.ggml.model: gpt2 or llama
	pre      string // tokenizer.ggml.pre
	tokens   []string
	types    []int32
	scores   []float32 // of model llama
	merges   []string  // of model gpt2
	settings []gguf.KV // special tokens and what is put around a text
	warnings []string
}

func (v *vocabulary) warn(format string, args ...any) {
	v.warnings = append(v.warnings, fmt.Sprintf(format, args...))
}

func (v *vocabulary) metadata() []gguf.KV {
	kv := []gguf.KV{
		{Key: "tokenizer.ggml.model", Value: v.model},
		{Key: "tokenizer.ggml.pre", Value: v.pre},
		{Key: "tokenizer.ggml.tokens", Value: v.tokens},
		{Key: "tokenizer.ggml.token_type", Value: v.types},
	}
	if v.scores != nil {
		kv = append(kv, gguf.KV{Key: "tokenizer.ggml.scores", Value: v.scores})
	}
	if v.merges != nil {
		kv = append(kv, gguf.KV{Key: "tokenizer.ggml.merges", Value: v.merges})
	}
	return append(kv, v.settings...)
}

// readVocabulary reads the tokenizer of a checkpoint. pre names llama.cpp's pre-tokenizer for a byte-level tokenizer whose own
// is not known; "" leaves that an error.
func readVocabulary(src *checkpoint.Source, m *arch.MLA, pre string) (*vocabulary, error) {
	text, err := src.ReadFile(tokenizerFile, maxTokenizer)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &checkpoint.Error{
			Kind: checkpoint.Unsupported, File: filepath.Join(src.Dir(), tokenizerFile), Got: "no such file", Want: "the model's tokenizer",
			Hint: "copy the model's tokenizer.json there; where it has only another form of tokenizer, save it anew with transformers",
		}
	}
	if err != nil {
		return nil, err
	}
	path := filepath.Join(src.Dir(), tokenizerFile)
	t, err := tokenizer.Parse(text, path)
	if err != nil {
		return nil, tokenizerError(err)
	}
	d := t.Describe()
	v := &vocabulary{}
	if err := v.setTokens(d, m.Vocab, path); err != nil {
		return nil, err
	}
	if err := v.setModel(d, pre, path); err != nil {
		return nil, err
	}
	settings, err := readSettings(src)
	if err != nil {
		return nil, err
	}
	v.setSpecial(d, t, m, settings)
	templates, err := chatTemplates(src, settings)
	if err != nil {
		return nil, err
	}
	v.settings = append(v.settings, templates...)
	return v, nil
}

// tokenizerError gives an error about tokenizer.json its exit code.
func tokenizerError(err error) error {
	kind := checkpoint.BadSource
	var e *tokenizer.Error
	if errors.As(err, &e) && e.Unsupported {
		kind = checkpoint.Unsupported
	}
	return &checkpoint.Error{Kind: kind, Err: err}
}

// setTokens lists the tokens by id. Ids up to the model's vocabulary that have no token get an unused one, as llama.cpp takes
// the number of tokens for the rows of the embedding.
func (v *vocabulary) setTokens(d *tokenizer.Description, rows int, path string) error {
	v.tokens, v.types = make([]string, rows), make([]int32, rows)
	for id := range rows {
		t, ok := d.Tokens[id]
		switch {
		case !ok:
			v.tokens[id], v.types[id] = fmt.Sprintf("[PAD%d]", id), tokenUnused
			continue
		case t.Special:
			v.types[id] = tokenControl
		case t.Added:
			v.types[id] = tokenUserDefined
		default:
			v.types[id] = tokenNormal
		}
		v.tokens[id] = t.Text
	}
	var beyond []int
	for id, t := range d.Tokens {
		if id < rows {
			continue
		}
		if !t.Added {
			return &checkpoint.Error{
				Kind: checkpoint.BadSource, File: path, Got: fmt.Sprintf("token %q with id %d", t.Text, id),
				Want: fmt.Sprintf("ids below the %d rows of the embedding", rows),
			}
		}
		beyond = append(beyond, id)
	}
	if len(beyond) > 0 {
		slices.Sort(beyond)
		v.warn("%s: added tokens beyond the %d rows of the embedding are left out, from %q on", path, rows, d.Tokens[beyond[0]].Text)
	}
	return nil
}

// setModel chooses between llama.cpp's two kinds of byte-pair encoding.
func (v *vocabulary) setModel(d *tokenizer.Description, pre, path string) error {
	normalizers, err := parseComponents(d.Normalizers)
	if err != nil {
		return err
	}
	splits, err := parseComponents(d.PreTokenizers)
	if err != nil {
		return err
	}
	refuse := func(field, got, want, hint string) error {
		return &checkpoint.Error{Kind: checkpoint.Unsupported, File: path, Tensor: field, Got: got, Want: want, Hint: hint}
	}
	if d.Affixed {
		return refuse("model", "marks at the beginnings or ends of words", "none, which is what llama.cpp knows", "")
	}
	if slices.ContainsFunc(splits, func(c component) bool { return c.Type == "ByteLevel" }) {
		got := joinComponents(splits)
		known, exact, ok := findPreTokenizer(got, d.IgnoreMerges)
		switch {
		case pre != "":
			known, exact = preTokenizer{name: pre}, true
		case !ok:
			var names []string
			for _, p := range preTokenizers {
				names = append(names, p.name)
			}
			return refuse("pre_tokenizer", got, "one that llama.cpp has: "+strings.Join(names, ", "), "if llama.cpp knows this tokenizer by another name, give it with --pre")
		}
		if err := v.setByteLevel(d, known.name, path); err != nil {
			return err
		}
		if !exact {
			v.warn("llama.cpp's pre-tokenizer %s treats words that are whole tokens otherwise (ignore_merges)", known.name)
		}
		for _, n := range normalizers {
			v.warn("llama.cpp does not normalize text (%s): text that this changes gets other tokens", n)
		}
		return nil
	}
	if pre != "" {
		return refuse("pre_tokenizer", joinComponents(splits), "a byte-level tokenizer for --pre", "leave out --pre")
	}
	prefix, first, ok := sentencePiece(normalizers, splits)
	if !ok {
		return refuse("pre_tokenizer", fmt.Sprintf("normalizer [%s], pre_tokenizer [%s]", joinComponents(normalizers), joinComponents(splits)),
			"a byte-level tokenizer, or one of SentencePiece's kind: spaces as \u2581, words not split", "")
	}
	if first {
		v.warn("llama.cpp puts a space in front of text behind a special token too, not only at the beginning of a text (prepend_scheme first)")
	}
	return v.setSentencePiece(d, prefix, path)
}

// setByteLevel describes a byte-level tokenizer: llama.cpp's model gpt2, which applies the merges in order.
func (v *vocabulary) setByteLevel(d *tokenizer.Description, pre, path string) error {
	v.model, v.pre = "gpt2", pre
	v.merges = make([]string, len(d.Merges))
	for i, m := range d.Merges {
		// A space tells the two tokens apart; the characters that stand for bytes do not include it.
		if strings.Contains(m[0]+m[1], " ") {
			return &checkpoint.Error{
				Kind: checkpoint.Unsupported, File: path, Tensor: fmt.Sprintf("model.merges[%d]", i), Got: fmt.Sprintf("%q and %q", m[0], m[1]),
				Want: "tokens without a space",
			}
		}
		v.merges[i] = m[0] + " " + m[1]
	}
	return nil
}

const metaspace = "\u2581"

// sentencePiece says whether the components are those of a tokenizer made from a SentencePiece model, and whether a space is
// put in front of a text: with first, of all that added tokens cut it into only in front of the first.
func sentencePiece(normalizers, preTokenizers []component) (prefix, first, ok bool) {
	replace := component{Type: "Replace", Pattern: map[string]string{"String": " "}, Content: metaspace}.String()
	prepend := component{Type: "Prepend", Prepend: metaspace}.String()
	const pieces = "Metaspace " + metaspace + " "
	switch normal, pre := joinComponents(normalizers), joinComponents(preTokenizers); {
	case normal == prepend+"; "+replace && pre == "":
		return true, false, true
	case normal == replace && pre == "":
		return false, false, true
	case normal == "" && (pre == pieces+"always" || pre == pieces):
		return true, false, true
	case normal == "" && pre == pieces+"first":
		return true, true, true
	case normal == "" && pre == pieces+"never":
		return false, false, true
	}
	return false, false, false
}

// setSentencePiece describes a tokenizer of SentencePiece's kind: llama.cpp's model llama, which joins the neighbours whose
// union has the highest score. With the negated rank of its merge as the score of a token that is what the merges do, if every
// pair that makes a token is a merge, and the merges that make the same token follow one another. That holds for what
// transformers makes of a SentencePiece model.
func (v *vocabulary) setSentencePiece(d *tokenizer.Description, prefix bool, path string) error {
	v.model, v.pre = "llama", "default"
	refuse := func(got, want string) error {
		return &checkpoint.Error{Kind: checkpoint.Unsupported, File: path, Tensor: "model", Got: got, Want: want}
	}
	if !d.ByteFallback {
		return refuse("byte_fallback false", "true, which is what llama.cpp does")
	}
	for b := range 256 {
		id := slices.Index(v.tokens, fmt.Sprintf("<0x%02X>", b))
		if id < 0 {
			return refuse(fmt.Sprintf("no token <0x%02X>", b), "a token for every byte, which llama.cpp needs")
		}
		v.types[id] = tokenByte
	}
	rank, inexact := mergeRanks(d)
	v.scores = make([]float32, len(v.tokens))
	for id, text := range v.tokens {
		if v.types[id] != tokenNormal {
			continue
		}
		if text == d.Unknown {
			v.types[id] = tokenUnknown
			continue
		}
		r, ok := rank[text]
		if !ok { // a character; nothing is ever joined to make it
			r = len(d.Merges)
		}
		v.scores[id] = -float32(r)
	}
	if id := slices.Index(v.tokens, d.Unknown); id >= 0 && d.Unknown != "" {
		v.types[id] = tokenUnknown
	}
	if inexact > 0 {
		v.warn("%s: %d ways to make a token are merges in another order, or none: llama.cpp, which goes by scores, may split some words otherwise", path, inexact)
	}
	v.settings = append(v.settings, gguf.KV{Key: "tokenizer.ggml.add_space_prefix", Value: prefix})
	return nil
}

// mergeRanks returns for every token that merges make the rank of the first, and how many pairs of tokens do not join at that
// rank although their union is a token.
func mergeRanks(d *tokenizer.Description) (rank map[string]int, inexact int) {
	rank = make(map[string]int)
	joined := make(map[[2]string]bool, len(d.Merges))
	group := 0 // the rank at which the present run of merges to one token began
	last := ""
	for i, m := range d.Merges {
		union := m[0] + m[1]
		if union != last {
			group, last = i, union
		}
		if _, ok := rank[union]; !ok {
			rank[union] = group
		} else if rank[union] != group {
			inexact++
		}
		joined[m] = true
	}
	text := make(map[string]bool, len(d.Tokens))
	for _, t := range d.Tokens {
		text[t.Text] = text[t.Text] || !t.Added
	}
	for union, ok := range text {
		if !ok {
			continue
		}
		for i := range union {
			if i > 0 && text[union[:i]] && text[union[i:]] && !joined[[2]string{union[:i], union[i:]}] {
				inexact++
			}
		}
	}
	return rank, inexact
}

// settingsFile is what of tokenizer_config.json matters here.
type settingsFile struct {
	BOS          specialToken    `json:"bos_token"`
	EOS          specialToken    `json:"eos_token"`
	Pad          specialToken    `json:"pad_token"`
	Unknown      specialToken    `json:"unk_token"`
	AddBOS       *bool           `json:"add_bos_token"`
	AddEOS       *bool           `json:"add_eos_token"`
	ChatTemplate json.RawMessage `json:"chat_template"`
}

// specialToken is a token, written as it is or as an object.
type specialToken string

// UnmarshalJSON implements json.Unmarshaler.
func (s *specialToken) UnmarshalJSON(text []byte) error {
	var object struct{ Content string }
	if len(text) > 0 && text[0] == '{' {
		err := json.Unmarshal(text, &object)
		*s = specialToken(object.Content)
		return err
	}
	return json.Unmarshal(text, (*string)(s))
}

// readSettings reads tokenizer_config.json; without one, everything is unset.
func readSettings(src *checkpoint.Source) (*settingsFile, error) {
	s := &settingsFile{}
	text, err := src.ReadFile(tokenizerConfig, maxSettings)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, &checkpoint.Error{Kind: checkpoint.BadSource, File: filepath.Join(src.Dir(), tokenizerConfig), Err: err}
	}
	return s, nil
}

// setSpecial says which tokens begin and end a text, and whether the tokenizer puts them there. The names of
// tokenizer_config.json come first, then the ids of config.json.
func (v *vocabulary) setSpecial(d *tokenizer.Description, t *tokenizer.Tokenizer, m *arch.MLA, s *settingsFile) {
	id := func(token specialToken, others []int) int {
		if found, ok := t.ID(string(token)); ok && token != "" && found < len(v.tokens) {
			return found
		}
		if len(others) > 0 {
			return others[0]
		}
		return -1
	}
	bos, eos := id(s.BOS, m.BOS), id(s.EOS, m.EOS)
	for _, special := range []struct {
		key string
		id  int
	}{
		{"bos", bos}, {"eos", eos}, {"unknown", id(s.Unknown, nil)}, {"padding", id(s.Pad, nil)},
	} {
		if special.id >= 0 {
			v.settings = append(v.settings, gguf.KV{Key: "tokenizer.ggml." + special.key + "_token_id", Value: uint32(special.id)})
		}
	}
	if eos < 0 {
		v.warn("no token is known to end a text: llama.cpp takes one of its own for it")
	}
	// What the post-processor of tokenizer.json does is what is done; the flags stand in for one that is missing.
	addBOS, addEOS := isTrue(s.AddBOS, false), isTrue(s.AddEOS, false)
	if d.Templated {
		addBOS = slices.Equal(d.Before, []int{bos})
		addEOS = slices.Equal(d.After, []int{eos})
		if !addBOS && len(d.Before) > 0 || !addEOS && len(d.After) > 0 {
			v.warn("llama.cpp can put the tokens that begin and end a text around it, not ids %v before and %v after it", d.Before, d.After)
		}
	}
	v.settings = append(v.settings,
		gguf.KV{Key: "tokenizer.ggml.add_bos_token", Value: addBOS && bos >= 0},
		gguf.KV{Key: "tokenizer.ggml.add_eos_token", Value: addEOS && eos >= 0},
	)
}
