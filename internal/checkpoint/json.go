package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// strictJSON walks a JSON text token by token. Unlike json.Unmarshal it refuses duplicate keys, bytes that are not
// UTF-8 and escapes that stand for no character, all of which would let two readers see different checkpoints.
type strictJSON struct {
	dec *json.Decoder
}

// newStrictJSON checks the grammar of the whole text, so that later errors are about its meaning only.
func newStrictJSON(text []byte) (*strictJSON, error) {
	if !utf8.Valid(text) {
		return nil, badSource("", "", "bytes that are not UTF-8", "JSON in UTF-8")
	}
	if !json.Valid(text) {
		var v json.RawMessage
		return nil, badSource("", "", fmt.Sprintf("not JSON (%v)", json.Unmarshal(text, &v)), "a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return &strictJSON{dec: dec}, nil
}

// token returns the next token; the grammar has been checked, so that there always is one where it is called.
func (j *strictJSON) token() (json.Token, error) {
	t, err := j.dec.Token()
	if err != nil {
		return nil, badSource("", "", err.Error(), "a JSON value")
	}
	return t, nil
}

// object calls field for every key of the object that comes next; field must read the key's value. what names the
// object in errors.
func (j *strictJSON) object(what string, field func(key string) error) error {
	t, err := j.token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return badSource("", what, describe(t), "a JSON object")
	}
	seen := make(map[string]struct{})
	for j.dec.More() {
		t, err := j.token()
		if err != nil {
			return err
		}
		key := t.(string) // a key of an object: the decoder returns nothing else here
		if err := checkText(what, key); err != nil {
			return err
		}
		if _, dup := seen[key]; dup {
			return badSource("", what, "duplicate key "+strconv.Quote(clip(key)), "every key once")
		}
		seen[key] = struct{}{}
		if err := field(key); err != nil {
			return err
		}
	}
	_, err = j.token()
	return err
}

// text reads a string.
func (j *strictJSON) text(what string) (string, error) {
	t, err := j.token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", badSource("", what, describe(t), "a string")
	}
	return s, checkText(what, s)
}

// naturals reads an array of at most limit integers from 0 to the largest int64.
func (j *strictJSON) naturals(what string, limit int) ([]int64, error) {
	t, err := j.token()
	if err != nil {
		return nil, err
	}
	if t != json.Delim('[') {
		return nil, badSource("", what, describe(t), "an array of integers")
	}
	values := []int64{}
	for j.dec.More() {
		t, err := j.token()
		if err != nil {
			return nil, err
		}
		n, ok := t.(json.Number)
		if !ok {
			return nil, badSource("", what, describe(t), "integers")
		}
		v, err := strconv.ParseUint(n.String(), 10, 64)
		if err != nil || v > math.MaxInt64 {
			return nil, badSource("", what, n.String(), "an integer from 0 to 2^63-1")
		}
		if len(values) == limit {
			return nil, badSource("", what, fmt.Sprintf("more than %d values", limit), fmt.Sprintf("at most %d", limit))
		}
		values = append(values, int64(v))
	}
	_, err = j.token()
	return values, err
}

// skip passes over one value of any type.
func (j *strictJSON) skip() error {
	depth := 0
	for {
		t, err := j.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// checkText refuses the replacement character, which is what the decoder makes of an unpaired surrogate.
func checkText(what, s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return badSource("", what, "the text "+strconv.Quote(clip(s)), "no unpaired surrogate and no U+FFFD")
	}
	return nil
}

// describe names the type of a token.
func describe(t json.Token) string {
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return "an object"
		}
		return "an array"
	case string:
		return "the string " + strconv.Quote(clip(t))
	case json.Number:
		return "the number " + clip(t.String())
	case bool:
		return strconv.FormatBool(t)
	}
	return "null"
}

// clip bounds a text taken from a file to what a message can bear.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}
