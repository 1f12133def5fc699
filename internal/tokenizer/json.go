package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits on components: how deep Sequence may be nested in Sequence, and how many there may be.
const (
	maxDepth      = 32
	maxComponents = 100
)

// parser carries the file name into the errors of one Parse.
type parser struct{ file string }

func (p *parser) errorf(field, got, want string) error {
	return &Error{File: p.file, Field: field, Got: got, Want: want}
}

func (p *parser) unsupported(field, got, want string) error {
	return &Error{File: p.file, Field: field, Got: got, Want: want, Unsupported: true}
}

// checkJSON refuses what encoding/json would quietly repair: text that is not UTF-8 and half
// surrogate pairs. It also finds syntax errors, so that none is left for later.
func (p *parser) checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return p.errorf("text", "invalid UTF-8 at byte "+strconv.Itoa(invalidUTF8(string(data))), "UTF-8")
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		got := err.Error()
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			got = fmt.Sprintf("%s at byte %d", syntax, syntax.Offset)
		}
		return p.errorf("JSON", got, "a JSON object")
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		i++
		if data[i] != 'u' {
			continue
		}
		unit := hexUnit(data[i+1:])
		i += 4
		switch {
		case unit < 0xD800 || unit > 0xDFFF:
			continue
		case unit < 0xDC00 && bytes.HasPrefix(data[i+1:], []byte(`\u`)):
			if low := hexUnit(data[i+3:]); low >= 0xDC00 && low <= 0xDFFF {
				i += 6
				continue
			}
		}
		return p.errorf("JSON", "half a surrogate pair at byte "+strconv.Itoa(i-5), "Unicode text")
	}
	return nil
}

// hexUnit reads the four digits of a \u escape that encoding/json has already accepted.
func hexUnit(digits []byte) uint64 {
	n, _ := strconv.ParseUint(string(digits[:4]), 16, 16)
	return n
}

// invalidUTF8 returns the byte offset of the first invalid sequence in s, or -1.
func invalidUTF8(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return -1
}

// describe says in a few words what a JSON value is.
func describe(raw json.RawMessage) string {
	switch {
	case len(raw) == 0:
		return "nothing"
	case raw[0] == '{':
		return "an object"
	case raw[0] == '[':
		return "a list"
	case raw[0] == '"':
		return quote(text(raw))
	case len(raw) > 40:
		return string(raw[:40]) + "..."
	}
	return string(raw)
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || raw[0] == 'n' }

// object is a JSON object with its place in the file.
type object struct {
	p     *parser
	field string
	m     map[string]json.RawMessage
}

// at is the place of a member, or of the object itself for an empty key.
func (o object) at(key string) string {
	if o.field == "" {
		return key
	}
	if key == "" {
		return o.field
	}
	return o.field + "." + key
}

// items calls f with each element of a list, or with each key and each value of an object in turn.
// The value is one that checkJSON has accepted, so that its syntax need not be looked at again.
func items(value json.RawMessage, f func(item json.RawMessage) error) error {
	for pos := 1; ; {
		switch value[pos] {
		case ' ', '\t', '\n', '\r', ',', ':':
			pos++
			continue
		case ']', '}':
			return nil
		}
		end := endOfValue(value, pos)
		if err := f(value[pos:end]); err != nil {
			return err
		}
		pos = end
	}
}

// endOfValue returns where the value that begins at pos ends.
func endOfValue(data []byte, pos int) int {
	depth := 0
	for ; pos < len(data); pos++ {
		switch data[pos] {
		case '"':
			for pos++; data[pos] != '"'; pos++ {
				if data[pos] == '\\' {
					pos++
				}
			}
			if depth == 0 {
				return pos + 1
			}
		case '[', '{':
			depth++
		case ']', '}':
			if depth <= 1 {
				return pos + depth // of a number or word, the bracket is not a part
			}
			depth--
		case ' ', '\t', '\n', '\r', ',', ':':
			if depth == 0 {
				return pos
			}
		}
	}
	return pos
}

// object reads an object; a key that comes twice is an error.
func (p *parser) object(raw json.RawMessage, field string) (object, error) {
	o := object{p, field, map[string]json.RawMessage{}}
	err := p.members(raw, field, func(key string, value json.RawMessage) error {
		if _, twice := o.m[key]; twice {
			return p.errorf(field, "the key "+quote(key)+" twice", "every key once")
		}
		o.m[key] = value
		return nil
	})
	return o, err
}

// members calls f with each key and value of an object.
func (p *parser) members(raw json.RawMessage, field string, f func(key string, value json.RawMessage) error) error {
	if !begins(raw, '{') {
		return p.errorf(field, describe(raw), "an object")
	}
	var key string
	atKey := true
	return items(raw, func(item json.RawMessage) error {
		if atKey {
			key = text(item)
		}
		atKey = !atKey
		if !atKey {
			return nil
		}
		return f(key, item)
	})
}

// list reads a list of values.
func (p *parser) list(raw json.RawMessage, field string) ([]json.RawMessage, error) {
	if !begins(raw, '[') {
		return nil, p.errorf(field, describe(raw), "a list")
	}
	var values []json.RawMessage
	err := items(raw, func(item json.RawMessage) error {
		values = append(values, item)
		return nil
	})
	return values, err
}

func begins(raw json.RawMessage, c byte) bool { return len(raw) > 0 && raw[0] == c }

// text is the content of a JSON string.
func text(raw json.RawMessage) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		panic("tokenizer: a JSON string accepted before: " + err.Error())
	}
	return s
}

// stringAt reads a string.
func (p *parser) stringAt(raw json.RawMessage, field string) (string, error) {
	if !begins(raw, '"') {
		return "", p.errorf(field, describe(raw), "a string")
	}
	return text(raw), nil
}

func (o object) string(key string) (string, error) { return o.p.stringAt(o.m[key], o.at(key)) }

// optString reads a string that may be null or missing, which is the empty string.
func (o object) optString(key string) (s string, ok bool, err error) {
	if isNull(o.m[key]) {
		return "", false, nil
	}
	s, err = o.string(key)
	return s, err == nil, err
}

func (o object) bool(key string) (bool, error) {
	raw := o.m[key]
	if !begins(raw, 't') && !begins(raw, 'f') {
		return false, o.p.errorf(o.at(key), describe(raw), "true or false")
	}
	return raw[0] == 't', nil
}

// optBool reads a value that may be null or missing.
func (o object) optBool(key string, missing bool) (bool, error) {
	if isNull(o.m[key]) {
		return missing, nil
	}
	return o.bool(key)
}

// number reads a whole number from 0 to limit.
func (o object) number(key string, limit int) (int, error) {
	return o.p.numberAt(o.m[key], o.at(key), limit)
}

func (p *parser) numberAt(raw json.RawMessage, field string, limit int) (int, error) {
	n, ok := wholeNumber(raw, limit)
	if !ok {
		return 0, p.errorf(field, describe(raw), fmt.Sprintf("a whole number from 0 to %d", limit))
	}
	return n, nil
}

func wholeNumber(raw json.RawMessage, limit int) (int, bool) {
	n, err := strconv.ParseUint(string(raw), 10, 63)
	return int(n), err == nil && n <= uint64(limit)
}

// char reads a string of one character.
func (o object) char(key string) (rune, error) {
	s, err := o.string(key)
	if err != nil {
		return 0, err
	}
	r, size := utf8.DecodeRuneInString(s)
	if size == 0 || size != len(s) {
		return 0, o.p.errorf(o.at(key), quote(s), "one character")
	}
	return r, nil
}

// member reads an object within an object.
func (o object) member(key string) (object, error) { return o.p.object(o.m[key], o.at(key)) }

// kind reads the field type and checks it against the kinds that are supported.
func (o object) kind(supported ...string) (string, error) {
	kind, err := o.string("type")
	if err != nil {
		return "", err
	}
	for _, s := range supported {
		if s == kind {
			return kind, nil
		}
	}
	return "", o.p.unsupported(o.at("type"), quote(kind), strings.Join(supported, ", "))
}

// components reads a component of tokenizer.json that may be a Sequence of others, flattened. The
// list of the parts is under key, as in {"type": "Sequence", "normalizers": [...]}. A null gives none.
func components[T any](p *parser, raw json.RawMessage, field, key string, one func(object) (T, error)) ([]T, error) {
	var out []T
	var walk func(raw json.RawMessage, field string, depth int) error
	walk = func(raw json.RawMessage, field string, depth int) error {
		o, err := p.object(raw, field)
		if err != nil {
			return err
		}
		if kind, _ := o.string("type"); kind != "Sequence" {
			if len(out) == maxComponents {
				return p.unsupported(field, fmt.Sprintf("more than %d components", maxComponents), "fewer")
			}
			c, err := one(o)
			out = append(out, c)
			return err
		}
		if depth == maxDepth {
			return p.unsupported(field, fmt.Sprintf("Sequence nested deeper than %d", maxDepth), "fewer levels")
		}
		parts, err := p.list(o.m[key], o.at(key))
		if err != nil {
			return err
		}
		for i, part := range parts {
			if err := walk(part, fmt.Sprintf("%s[%d]", o.at(key), i), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if isNull(raw) {
		return nil, nil
	}
	return out, walk(raw, field, 0)
}
