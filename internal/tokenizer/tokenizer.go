// Package tokenizer reads Hugging Face tokenizer.json files with byte-pair encoding models and turns
// text into token ids and back, with the ids that Hugging Face tokenizers 0.23 gives.
//
// It covers the byte-level family (GPT-2, Llama 3, Qwen2, SmolLM and others alike) and the
// SentencePiece family with byte fallback (Llama 2, Mistral). A file that asks for anything else is
// refused with an [Error] that says what was found and what is supported. The fields truncation and
// padding are ignored: a text is always encoded whole.
//
// Text passes through these steps, in the order of the file's components:
//
//	added tokens cut out of the text, or, if they are to be normalized, after
//	normalizer       each remaining piece normalized          normalize.go, normalform.go
//	pre_tokenizer    pieces split into words                  pretokenize.go
//	model            words to ids by merges                   bpe.go
//	post_processor   special tokens around the ids            postprocess.go
//	decoder          token strings back to text               decode.go
//
// Regular expressions are those of Oniguruma; oniguruma.go and regex.go say how they run here, and
// unicode.go where the character data is from.
package tokenizer

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxFileBytes bounds the size of a tokenizer.json; the largest in use are below 40 MB.
const maxFileBytes = 256 << 20

// Tokenizer turns text into token ids and back. It is safe for concurrent use.
type Tokenizer struct {
	model         *bpe
	added         *addedVocabulary
	normalizers   []normalizer
	preTokenizers []preTokenizer
	decoders      []decoder
	noDecoder     bool      // decoder is null
	post          *template // nil for none
	size          int       // the number of tokens, added ones included
	source        componentTexts
}

// Load reads a tokenizer.json file. An error about its content is an [Error].
func Load(path string) (*Tokenizer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFileBytes {
		return nil, &Error{File: path, Field: "size", Got: fmt.Sprintf("%d bytes", info.Size()), Want: fmt.Sprintf("at most %d", maxFileBytes)}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(data, path)
}

// Parse reads the content of a tokenizer.json; name is what errors call it. Errors are of type
// *[Error].
func Parse(data []byte, name string) (*Tokenizer, error) {
	p := &parser{name}
	if err := p.checkJSON(data); err != nil {
		return nil, err
	}
	o, err := p.object(bytes.TrimSpace(data), "")
	if err != nil {
		return nil, err
	}
	if version, ok, err := o.optString("version"); err != nil {
		return nil, err
	} else if ok && version != "1.0" {
		return nil, p.unsupported("version", quote(version), `"1.0"`)
	}
	t := &Tokenizer{}
	if t.normalizers, err = components(p, o.m["normalizer"], "normalizer", "normalizers", p.normalizer); err != nil {
		return nil, err
	}
	if t.preTokenizers, err = components(p, o.m["pre_tokenizer"], "pre_tokenizer", "pretokenizers", p.preTokenizer); err != nil {
		return nil, err
	}
	if t.decoders, err = components(p, o.m["decoder"], "decoder", "decoders", p.decoder); err != nil {
		return nil, err
	}
	t.noDecoder = isNull(o.m["decoder"])
	if t.source, err = p.componentTexts(o); err != nil {
		return nil, err
	}
	if t.post, err = p.postProcessor(o.m["post_processor"]); err != nil {
		return nil, err
	}
	if t.model, err = p.bpe(o.m["model"]); err != nil {
		return nil, err
	}
	if t.added, err = p.addedTokens(o.m["added_tokens"], t.model, t.normalizers); err != nil {
		return nil, err
	}
	t.size = len(t.model.vocab)
	for content := range t.added.ids {
		if _, ok := t.model.vocab[content]; !ok {
			t.size++
		}
	}
	return t, nil
}

// token returns the string of an id: for byte-level models in the characters that stand for bytes,
// for an added token as it looks after the normalizer.
func (t *Tokenizer) token(id int) (string, bool) {
	if a, ok := t.added.tokens[id]; ok {
		return a.pattern, true
	}
	s, ok := t.model.tokens[id]
	return s, ok
}

// ID returns the id of a token, given as the file writes it.
func (t *Tokenizer) ID(token string) (int, bool) {
	if id, ok := t.added.ids[token]; ok {
		return id, true
	}
	id, ok := t.model.vocab[token]
	return id, ok
}

// Encode turns text into ids. With addSpecial, the special tokens of the post-processor, such as a
// beginning-of-text token, are put around them; added tokens that occur in the text are found either
// way. The text must be valid UTF-8, as it is for Hugging Face tokenizers: if it is not, the error
// names the offset of the first byte that is wrong. The only other errors are those of a file whose
// regular expressions backtrack without end, whose components make the text many times as long, or whose unk_token is needed
// and not there.
func (t *Tokenizer) Encode(text string, addSpecial bool) ([]int, error) {
	if at := invalidUTF8(text); at >= 0 {
		return nil, &Error{Field: "text", Got: "invalid UTF-8 at byte " + strconv.Itoa(at), Want: "UTF-8"}
	}
	var ids []int
	if text != "" {
		pieces, err := t.pieces(text)
		if err != nil {
			return nil, err
		}
		ids = make([]int, 0, len(pieces)+len(pieces)/2)
		for _, pc := range pieces {
			if pc.id != notToken {
				ids = append(ids, pc.id)
			} else if ids, err = t.model.encode(ids, pc.text); err != nil {
				return nil, err
			}
		}
	}
	if addSpecial && t.post != nil {
		ids = t.post.apply(ids)
	}
	return ids, nil
}

// pieces cuts text into added tokens and the words that the model is to tokenize.
func (t *Tokenizer) pieces(text string) ([]piece, error) {
	_, first := utf8.DecodeRuneInString(text)
	pieces := t.added.extract(nil, piece{text, first, notToken}, &t.added.raw)

	// The normalizer, then the added tokens that are looked for behind it.
	var next []piece
	left := mostBytes(len(text))
	for _, pc := range pieces {
		if pc.id != notToken {
			next = append(next, pc)
			continue
		}
		var err error
		if pc.text, pc.origin, err = normalizeAll(t.normalizers, pc.text, pc.origin, left); err != nil {
			return nil, textError("normalizer", err)
		}
		left -= len(pc.text)
		if pc.text != "" {
			next = t.added.extract(next, pc, &t.added.normalized)
		}
	}
	pieces = next

	for _, pre := range t.preTokenizers {
		next = make([]piece, 0, len(pieces))
		left = mostBytes(len(text))
		for _, pc := range pieces {
			if pc.id != notToken {
				next = append(next, pc)
				continue
			}
			n := len(next)
			var err error
			if next, err = pre.preTokenize(next, pc); err != nil {
				return nil, textError("pre_tokenizer", err)
			}
			for _, made := range next[n:] {
				left -= len(made.text)
			}
			if left < 0 {
				return nil, textError("pre_tokenizer", errGrowth)
			}
		}
		pieces = next
	}
	return pieces, nil
}

// textError is the error of a component that a text brings out.
func textError(component string, err error) error {
	return &Error{Field: component, Got: err.Error()}
}

// normalizeAll applies the steps of a normalizer, of which none may make the text longer than most bytes.
func normalizeAll(steps []normalizer, text string, origin, most int) (string, int, error) {
	for _, n := range steps {
		var err error
		if text, origin, err = n.normalize(text, origin, most); err != nil {
			return "", 0, err
		}
		if len(text) > most {
			return "", 0, errGrowth
		}
	}
	return text, origin, nil
}

// Decode turns ids into text. Special tokens are kept. An id that is not in the vocabulary is an
// error, unlike in Hugging Face tokenizers, which leaves it out. Ids that do not make valid UTF-8
// together give U+FFFD in the places where they do not.
func (t *Tokenizer) Decode(ids []int) (string, error) {
	tokens := make([]string, len(ids))
	size := 0
	for i, id := range ids {
		token, ok := t.token(id)
		if !ok {
			return "", &Error{Field: "ids[" + strconv.Itoa(i) + "]", Got: strconv.Itoa(id), Want: "an id of the vocabulary"}
		}
		tokens[i] = token
		size += len(token)
	}
	if t.noDecoder {
		return strings.Join(tokens, " "), nil
	}
	for _, d := range t.decoders {
		var err error
		if tokens, err = d.decode(tokens); err != nil {
			return "", textError("decoder", err)
		}
		left := mostBytes(size)
		for _, token := range tokens {
			left -= len(token)
		}
		if left < 0 {
			return "", textError("decoder", errGrowth)
		}
	}
	return strings.Join(tokens, ""), nil
}
