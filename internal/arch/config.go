package arch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// configFile is the name used in errors about the configuration.
const configFile = "config.json"

// config is a parsed config.json whose fields are read one by one, so that every error names its field.
// The first error sticks; the readers after it return zero values.
type config struct {
	fields map[string]any
	err    error
}

func parseConfig(data []byte) (*config, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var fields map[string]any
	if err := dec.Decode(&fields); err != nil {
		return nil, bad("", err.Error(), "a JSON object")
	}
	if fields == nil {
		return nil, bad("", "null", "a JSON object")
	}
	if dec.More() {
		return nil, bad("", "more data after the object", "one JSON object")
	}
	return &config{fields: fields}, nil
}

func bad(field, got, want string) error {
	return &checkpoint.Error{Kind: checkpoint.BadSource, File: configFile, Tensor: field, Got: got, Want: want}
}

func unsupported(field, got, want, hint string) error {
	return &checkpoint.Error{Kind: checkpoint.Unsupported, File: configFile, Tensor: field, Got: got, Want: want, Hint: hint}
}

func (c *config) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// has reports whether the field is present and not null.
func (c *config) has(field string) bool { return c.fields[field] != nil }

// sub returns the object in a field; nil if the field is absent or null.
func (c *config) sub(field string) *config {
	v := c.fields[field]
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		c.fail(bad(field, show(v), "an object"))
		return nil
	}
	return &config{fields: m}
}

// number returns a finite number, or def if the field is absent.
func (c *config) number(field string, def float64) float64 {
	v := c.fields[field]
	if v == nil {
		return def
	}
	n, ok := v.(json.Number)
	if ok {
		if f, err := n.Float64(); err == nil && !math.IsInf(f, 0) {
			return f
		}
	}
	c.fail(bad(field, show(v), "a finite number"))
	return def
}

// positive returns a number above zero, or def if the field is absent.
func (c *config) positive(field string, def float64) float64 {
	f := c.number(field, def)
	if f <= 0 {
		c.fail(bad(field, show(c.fields[field]), "a number above 0"))
		return def
	}
	return f
}

// maxSize bounds every dimension that a configuration may claim, so that products of two stay far from overflow.
const maxSize = 1 << 28

// size returns an integer in [1, maxSize]; def stands for an absent field, and an absent field without one is an error.
func (c *config) size(field string, def int) int {
	v := c.fields[field]
	if v == nil {
		if def == 0 {
			c.fail(bad(field, "no such field", "a whole number above 0"))
			return 1
		}
		return def
	}
	if n, ok := v.(json.Number); ok {
		if i, err := n.Int64(); err == nil && i >= 1 && i <= maxSize {
			return int(i)
		}
	}
	c.fail(bad(field, show(v), fmt.Sprintf("a whole number from 1 to %d", maxSize)))
	return 1
}

func (c *config) boolean(field string, def bool) bool {
	switch v := c.fields[field].(type) {
	case nil:
		return def
	case bool:
		return v
	default:
		c.fail(bad(field, show(v), "true or false"))
		return def
	}
}

func (c *config) text(field, def string) string {
	switch v := c.fields[field].(type) {
	case nil:
		return def
	case string:
		return v
	default:
		c.fail(bad(field, show(v), "a string"))
		return def
	}
}

func (c *config) texts(field string) []string {
	v := c.fields[field]
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		c.fail(bad(field, show(v), "a list of strings"))
		return nil
	}
	var out []string
	for _, x := range list {
		s, ok := x.(string)
		if !ok {
			c.fail(bad(field, show(v), "a list of strings"))
			return nil
		}
		out = append(out, s)
	}
	return out
}

// ids reads a token id or a list of them.
func (c *config) ids(field string, vocab int) []int {
	v := c.fields[field]
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	var out []int
	for _, x := range list {
		n, ok := x.(json.Number)
		var i int64
		var err error
		if ok {
			i, err = n.Int64()
		}
		if !ok || err != nil || i < 0 || i >= int64(vocab) {
			c.fail(bad(field, show(v), fmt.Sprintf("token ids from 0 to %d", vocab-1)))
			return nil
		}
		out = append(out, int(i))
	}
	return out
}

// show renders a JSON value for an error, cut to a readable length.
func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	const most = 80
	if s := string(b); len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(string(b[:most]), "") + "..."
}
