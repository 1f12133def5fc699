package tokens

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

const (
	// textPerToken is how many bytes of text are read for each token that is wanted, several times what tokenizers need.
	textPerToken = 32
	// leastText is how many bytes are tokenized at least, so that a text's end, where its cutting may differ from that
	// of the whole, lies far behind the tokens in use.
	leastText = 64 << 10
	// maxText bounds the text that is held at once.
	maxText = 1 << 30
)

// Text reads a text file, or the "text" fields of JSON lines (.jsonl), and cuts it into windows. The ids are those of the
// tokenizer, with the special tokens that it adds to a document by itself and no others; so the first window may begin
// with BOS, and later ones do not. Documents of JSON lines are tokenized one by one and laid end to end before the
// cutting. No more of the file is read than the tokens in use need.
func Text(path string, enc Encoder, o Options) ([][]int, error) {
	if isNumPy(path) {
		e := bad(path, "a NumPy array", "text")
		e.Hint = "token ids are given with --tokens"
		return nil, e
	}
	want := o.MaxTokens
	if o.Context > 0 && want > o.Context {
		want -= want % o.Context
	}
	read := readText
	if isJSONLines(path) {
		read = readDocuments
	}
	ids, err := read(path, enc, want)
	if err != nil {
		return nil, err
	}
	if err := o.check(path, "the tokenizer's ids", ids); err != nil {
		return nil, err
	}
	c := &collector{Options: o}
	if len(ids) > 0 {
		c.add(ids)
	}
	return c.done(path)
}

// readText returns at least want ids from the beginning of a text file, or all if there are fewer or want is 0.
func readText(path string, enc Encoder, want int) ([]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, failed(path, err)
	}
	defer f.Close()
	limit := int64(maxText)
	if want > 0 {
		limit = min(maxText, max(leastText, textPerToken*int64(want)))
	}
	var text []byte
	for {
		more, err := io.ReadAll(io.LimitReader(f, limit-int64(len(text))))
		if err != nil {
			return nil, failed(path, err)
		}
		text = append(text, more...)
		cut := int64(len(text)) == limit
		if cut && limit == maxText {
			return nil, bad(path, fmt.Sprintf("%d bytes of text or more", limit), "a shorter text or a lower bound on the tokens")
		}
		whole := text
		if cut {
			whole = wholeRunes(text)
		}
		if i := invalidUTF8(whole); i >= 0 {
			return nil, notUTF8(path, fmt.Sprintf("byte 0x%02x at offset %d", whole[i], i))
		}
		// A byte order mark says how the text is encoded and is not part of it.
		ids, err := encode(path, enc, string(bytes.TrimPrefix(whole, []byte("\ufeff"))))
		if err != nil {
			return nil, err
		}
		// The last few tokens of a cut text may be others than those of the whole.
		if !cut || len(ids) >= want+want/8 {
			return ids, nil
		}
		limit = min(maxText, 2*limit)
	}
}

// wholeRunes takes the beginning of a character off the end of b.
func wholeRunes(b []byte) []byte {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return b[:i]
			}
			break
		}
	}
	return b
}

// readDocuments returns at least want ids of the documents in a file of JSON lines, or all if there are fewer or want is
// 0.
func readDocuments(path string, enc Encoder, want int) ([]int, error) {
	var ids []int
	err := eachLine(path, func(number int, line []byte) (bool, error) {
		var document struct {
			Text *string `json:"text"`
		}
		if err := json.Unmarshal(line, &document); err != nil || document.Text == nil {
			e := bad(path, fmt.Sprintf("line %d: %s", number, clip(line)), `a JSON object with a "text" string`)
			if line[0] == '[' {
				e.Hint = "token ids are given with --tokens"
			}
			return false, e
		}
		more, err := encode(path, enc, *document.Text)
		ids = append(ids, more...)
		return want == 0 || len(ids) < want, err
	})
	return ids, err
}

func encode(path string, enc Encoder, text string) ([]int, error) {
	ids, err := enc.Encode(text, true)
	if err != nil {
		return nil, &checkpoint.Error{Kind: checkpoint.BadSource, File: path, Got: "text that the tokenizer cannot encode", Err: err}
	}
	return ids, nil
}
