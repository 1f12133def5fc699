package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/ui"
)

// checked is a flag that is checked when it is set, so that every wrong value is an error of usage.
type checked[T any] struct {
	to    *T
	parse func(string) (T, error)
	kind  string
	text  string
}

// Set implements pflag.Value.
func (c *checked[T]) Set(s string) error {
	v, err := c.parse(s)
	if err != nil {
		return err
	}
	*c.to, c.text = v, s
	return nil
}

// String implements pflag.Value.
func (c *checked[T]) String() string { return c.text }

// Type implements pflag.Value; it is what help calls the value.
func (c *checked[T]) Type() string { return c.kind }

// intFlag is a whole number of at least least, and a multiple of step.
func intFlag(to *int, least, step int, shown string) *checked[int] {
	return &checked[int]{to: to, kind: "N", text: shown, parse: func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		switch {
		case err != nil || n < least:
			return 0, fmt.Errorf("expected a whole number from %d on", least)
		case n%step != 0:
			return 0, fmt.Errorf("expected a multiple of %d", step)
		}
		return n, nil
	}}
}

// sizeFlag is a number of bytes with its unit.
func sizeFlag(to *int64, shown string) *checked[int64] {
	return &checked[int64]{to: to, kind: "SIZE", text: shown, parse: ui.ParseSize}
}

// choiceFlag is one of some words.
func choiceFlag(to *string, choices []string, shown string) *checked[string] {
	return &checked[string]{to: to, kind: strings.Join(choices, "|"), text: shown, parse: func(s string) (string, error) {
		if !slices.Contains(choices, s) {
			return "", fmt.Errorf("expected one of %s", strings.Join(choices, ", "))
		}
		return s, nil
	}}
}

// shareFlag is a number above 0 and at most 1.
func shareFlag(to *float64) *checked[float64] {
	return &checked[float64]{to: to, kind: "SHARE", parse: func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !(v > 0 && v <= 1) {
			return 0, errors.New("expected a share of the source's cache, above 0 and at most 1")
		}
		return v, nil
	}}
}
