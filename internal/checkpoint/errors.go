package checkpoint

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind says what a user can do about an [Error], and with it the exit code.
type Kind uint8

const (
	// BadSource is a source that is damaged, incomplete or contradicts itself.
	BadSource Kind = iota + 1
	// Unsupported is a source that may be sound but holds what this tool cannot convert.
	Unsupported
	// Exists is an output or a staging folder that is in the way, in use, or belongs to another conversion.
	Exists
	// NoSpace is a disk too small for the output, or a memory too small for the work.
	NoSpace
)

// String returns the kind in words.
func (k Kind) String() string {
	switch k {
	case BadSource:
		return "bad source"
	case Unsupported:
		return "unsupported"
	case Exists:
		return "output exists"
	case NoSpace:
		return "no space"
	}
	return "kind " + strconv.Itoa(int(k))
}

// ExitCode returns the process exit code that stands for the kind.
func (k Kind) ExitCode() int {
	switch k {
	case BadSource:
		return 10
	case Unsupported:
		return 11
	case Exists:
		return 12
	case NoSpace:
		return 13
	}
	return 1
}

// Error is a problem with a checkpoint that its owner can understand: where it is, what is there and what should be.
type Error struct {
	Kind   Kind
	File   string // file or folder, "" if none
	Tensor string // tensor name or field, "" if none
	Got    string // what was found
	Want   string // what was expected, "" if Got says it all
	Hint   string // what to do about it, "" if nothing is known; not part of Error()
	Err    error  // underlying error, nil if none
}

// Error returns one line: file: tensor: got, expected want.
func (e *Error) Error() string {
	var b strings.Builder
	part := func(s string) {
		if s == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(s)
	}
	part(oneLine(e.File))
	part(oneLine(e.Tensor))
	part(oneLine(e.Got))
	if e.Want != "" {
		if e.Got != "" {
			b.WriteString(", expected ")
			b.WriteString(oneLine(e.Want))
		} else {
			part("expected " + oneLine(e.Want))
		}
	}
	if e.Err != nil {
		part(oneLine(e.Err.Error()))
	}
	if b.Len() == 0 {
		return e.Kind.String()
	}
	return b.String()
}

// Unwrap returns the underlying error.
func (e *Error) Unwrap() error { return e.Err }

// maxShown bounds each part of a message: a hostile header can hold names of many megabytes.
const maxShown = 300

// oneLine makes s fit to be printed: clipped, and quoted if it holds what could break a line or a terminal.
func oneLine(s string) string {
	if len(s) > maxShown {
		cut := maxShown
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// badSource is the short way to the commonest error; want may be "".
func badSource(file, tensor, got, want string) *Error {
	return &Error{Kind: BadSource, File: file, Tensor: tensor, Got: got, Want: want}
}

// inFile gives an Error that names no file yet the file's name; other errors pass unchanged.
func inFile(file string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.File == "" {
		e.File = file
	}
	return err
}

// formatShape writes a shape as [2, 3].
func formatShape(shape []int) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ", ")
}
