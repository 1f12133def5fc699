package cmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

func TestExitCodes(t *testing.T) {
	of := func(k checkpoint.Kind) error {
		return &checkpoint.Error{Kind: k, Got: "x", Hint: "hint of " + k.String()}
	}
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{errors.New("a\nb"), 1, "mlaconvert: error: a\nmlaconvert: error: b\n"},
		{usagef("x"), 64, "mlaconvert: error: x\n"},
		{&codedError{3, errors.New("failed"), "look"}, 3, "mlaconvert: error: failed\nhint: look\n"},
		{of(checkpoint.BadSource), 10, "mlaconvert: error: x\nhint: hint of bad source\n"},
		{fmt.Errorf("layer 3: %w", of(checkpoint.Unsupported)), 11, "mlaconvert: error: layer 3: x\nhint: hint of unsupported\n"},
		{of(checkpoint.Exists), 12, ""}, {of(checkpoint.NoSpace), 13, ""},
		{convert.Problems{of(checkpoint.Unsupported), of(checkpoint.BadSource), of(checkpoint.BadSource)}, 10,
			"mlaconvert: error: x\nmlaconvert: error: x\nmlaconvert: error: x\nhint: hint of unsupported\nhint: hint of bad source\n"},
		{convert.Problems{of(checkpoint.Unsupported), errors.New("and 3 more")}, 11, ""},
		{fmt.Errorf("x: %w", context.Canceled), 130, "mlaconvert: error: x: interrupted\n"},
		{errors.Join(&convert.Interrupted{Done: 1, Layers: 2, Cause: context.Canceled}, of(checkpoint.NoSpace)), 130, "mlaconvert: error: interrupted after 1 of 2 layers\nmlaconvert: error: x\nhint: hint of no space\n"},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.code)
		}
		var b bytes.Buffer
		if printError(&b, nil, c.err); c.text != "" && b.String() != c.text {
			t.Errorf("%v: printed %q, want %q", c.err, b.String(), c.text)
		}
	}
}
