package tokenizer

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Error says what is wrong with a tokenizer.json, or with a text or id list given to a tokenizer.
type Error struct {
	File  string // file name as given to Load or Parse; empty for an error about a text or ids
	Field string // where it is, such as model.merges[3] or text
	Got   string // what was found
	Want  string // what was expected, or what is supported
	// Unsupported is set where the file is well-formed but asks for something that this package
	// does not do.
	Unsupported bool
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		b.WriteString(": ")
	}
	want := ", expected "
	if e.Unsupported {
		b.WriteString("unsupported ")
		want = ", supported "
	}
	b.WriteString(e.Field)
	b.WriteString(": found ")
	b.WriteString(e.Got)
	if e.Want != "" {
		b.WriteString(want)
		b.WriteString(e.Want)
	}
	return b.String()
}

// mostBytes bounds what the components of a file make of n bytes, which a small file could have them double a hundred times.
// Unicode's forms make 11 bytes of one at most (NFKC of U+FDFA), and the characters for bytes two.
func mostBytes(n int) int { return growth*n + 1<<18 }

const growth = 64

var errGrowth = fmt.Errorf("a text made more than %d times as long", growth)

// quote shows s in an error message, shortened so that a hostile file cannot fill the screen.
func quote(s string) string {
	const limit = 80
	if len(s) <= limit {
		return strconv.Quote(s)
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "... (" + strconv.Itoa(len(s)) + " bytes)"
}
