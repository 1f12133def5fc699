// Package tokens reads the token sequences that a model is measured or calibrated on: files of ids, or text that a
// tokenizer cuts into ids.
//
// Errors about a file are [*checkpoint.Error] of kind BadSource and name the file and the place in it: line, byte
// offset, or sequence and position, the last two counted from 0.
package tokens

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// Options says how much of a file is used, and in what pieces.
type Options struct {
	// Context is the length of a window. Text and longer sequences of ids are cut into windows of this many tokens; a
	// remainder shorter than a window is dropped unless nothing came before it. Shorter sequences of ids stay as they
	// are. 0 leaves text in one piece and sequences whole.
	Context int
	// MaxTokens bounds the tokens of all sequences together: the first whole windows that fit are used, or, where the
	// first does not fit, its beginning. 0 stands for no bound.
	MaxTokens int
	// Vocab is the size of the vocabulary; an id outside it is an error.
	Vocab int
}

// Encoder turns text into ids; addSpecial asks for the special tokens that the tokenizer adds to a document by itself.
type Encoder interface {
	Encode(text string, addSpecial bool) ([]int, error)
}

// collector cuts what a reader finds into windows until there are enough.
type collector struct {
	Options
	sequences [][]int
	total     int
}

// add takes one sequence.
func (c *collector) add(ids []int) {
	if c.Context > 0 && len(ids) > c.Context {
		for ; len(ids) >= c.Context && !c.full(); ids = ids[c.Context:] {
			c.keep(ids[:c.Context])
		}
		return
	}
	c.keep(ids)
}

func (c *collector) keep(ids []int) {
	if c.full() {
		return
	}
	if room := c.MaxTokens - c.total; c.MaxTokens > 0 && len(ids) > room {
		if len(c.sequences) > 0 {
			c.total = c.MaxTokens // later, shorter sequences do not jump the queue
			return
		}
		ids = ids[:room]
	}
	c.sequences = append(c.sequences, ids)
	c.total += len(ids)
}

// full reports whether nothing that follows can be used.
func (c *collector) full() bool { return c.MaxTokens > 0 && c.total >= c.MaxTokens }

// done returns what was collected, or an error if it is nothing.
func (c *collector) done(path string) ([][]int, error) {
	if len(c.sequences) == 0 {
		return nil, bad(path, "no tokens", "at least one sequence of tokens")
	}
	return c.sequences, nil
}

// check reports the first id outside the vocabulary of the sequence that where names.
func (o *Options) check(path, where string, ids []int) error {
	for i, id := range ids {
		if id < 0 || id >= o.Vocab {
			return outside(path, where, i, fmt.Sprint(id), o.Vocab)
		}
	}
	return nil
}

func outside(path, where string, position int, id string, vocab int) error {
	return bad(path, fmt.Sprintf("%s, position %d: id %s", where, position, id), fmt.Sprintf("an id of the vocabulary, 0 to %d", vocab-1))
}

func bad(path, got, want string) *checkpoint.Error {
	return &checkpoint.Error{Kind: checkpoint.BadSource, File: path, Got: got, Want: want}
}

// failed is an error of the system about a file.
func failed(path string, err error) error {
	return &checkpoint.Error{Kind: checkpoint.BadSource, File: path, Err: pathless(err)}
}

// isJSONLines reports whether a file's name says that each of its lines is a JSON value.
func isJSONLines(path string) bool {
	ext := strings.ToLower(filepath.Ext(path))
	return ext == ".jsonl" || ext == ".ndjson"
}

func isNumPy(path string) bool { return strings.ToLower(filepath.Ext(path)) == ".npy" }
