package checkpoint

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestErrorText(t *testing.T) {
	for _, c := range []struct {
		err  Error
		want string
	}{
		{Error{Kind: BadSource, File: "m.safetensors", Tensor: "w", Got: "3 bytes", Want: "4"}, "m.safetensors: w: 3 bytes, expected 4"},
		{Error{Kind: BadSource, File: "m.safetensors", Want: "a header"}, "m.safetensors: expected a header"},
		{Error{Kind: Exists, File: "out", Got: "exists already", Hint: "use --force"}, "out: exists already"},
		{Error{Kind: BadSource, File: "f", Err: fs.ErrNotExist}, "f: file does not exist"},
		{Error{Kind: NoSpace}, "no space"},
		{Error{Kind: BadSource, Tensor: "a\nb\x1b[31m", Got: "x"}, `"a\nb\x1b[31m": x`},
		{Error{Kind: BadSource, Tensor: "\xff", Got: "x"}, `"\xff": x`},
		{Error{Kind: BadSource, Tensor: "poids_é", Got: "x"}, "poids_é: x"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	long := &Error{Kind: BadSource, Tensor: strings.Repeat("é", 1<<20), Got: "x"}
	if n := len(long.Error()); n > 400 {
		t.Errorf("a long name gives a message of %d bytes", n)
	}
}

func TestErrorChain(t *testing.T) {
	var err error = &Error{Kind: Unsupported, Err: fs.ErrPermission}
	if !errors.Is(err, fs.ErrPermission) {
		t.Error("the underlying error is lost")
	}
	for kind, code := range map[Kind]int{BadSource: 10, Unsupported: 11, Exists: 12, NoSpace: 13, 0: 1} {
		if got := kind.ExitCode(); got != code {
			t.Errorf("%v: exit code %d, want %d", kind, got, code)
		}
	}
}
