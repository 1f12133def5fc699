package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// Exit codes besides those of [checkpoint.Kind]. 2 is left to Go's panics.
const (
	exitOK           = 0
	exitOther        = 1
	exitVerification = 3
	exitLimits       = 4
	exitUsage        = 64
	exitInterrupted  = 130
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// codedError is an error with an exit code of its own and, unless it is empty, a hint.
type codedError struct {
	code int
	err  error
	hint string
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var usage usageError
	var coded *codedError
	var problems convert.Problems
	var source *checkpoint.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &problems):
		return problems.Kind().ExitCode()
	case errors.As(err, &source):
		return source.Kind.ExitCode()
	}
	return exitOther
}

// printError writes an error and its hints, a line each.
func printError(w io.Writer, c *cobra.Command, err error) {
	text := strings.ReplaceAll(err.Error(), context.Canceled.Error(), "interrupted")
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(w, "mlaconvert: error: %s\n", line)
	}
	for _, hint := range hints(c, err) {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// hints collects what is known about the way out of an error.
func hints(c *cobra.Command, err error) []string {
	var out []string
	add := func(s string) {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	var usage usageError
	if errors.As(err, &usage) && c != nil {
		add("see " + c.CommandPath() + " --help")
	}
	var coded *codedError
	if errors.As(err, &coded) {
		add(coded.hint)
	}
	var interrupted *convert.Interrupted
	if errors.As(err, &interrupted) && interrupted.Kept {
		add("what is done is kept; continue with the same command and --resume")
	}
	each(err, func(e *checkpoint.Error) { add(e.Hint) })
	return out
}

// each calls f with every checkpoint error in the tree of err.
func each(err error, f func(*checkpoint.Error)) {
	if e, ok := err.(*checkpoint.Error); ok {
		f(e)
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		each(e.Unwrap(), f)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			each(err, f)
		}
	}
}

// printWarnings writes warnings, a line each.
func printWarnings(w io.Writer, warnings []string) {
	for _, s := range warnings {
		fmt.Fprintf(w, "mlaconvert: warning: %s\n", s)
	}
}
