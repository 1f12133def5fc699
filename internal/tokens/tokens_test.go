package tokens

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantError fails unless err is a BadSource error that names the file and says every one of the words.
func wantError(t *testing.T, err error, path string, says ...string) {
	t.Helper()
	var e *checkpoint.Error
	if !errors.As(err, &e) || e.Kind != checkpoint.BadSource || e.File != path {
		t.Fatalf("got %v, want an error of kind BadSource about %s", err, path)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("got %q, want it to say %q", err, s)
		}
	}
}

// runes encodes a text as its code points, after a special token 1 where that is asked for.
type runes struct{ calls int }

func (r *runes) Encode(text string, addSpecial bool) ([]int, error) {
	r.calls++
	if strings.Contains(text, "!") {
		return nil, errors.New("no rule for !")
	}
	var ids []int
	if addSpecial {
		ids = append(ids, 1)
	}
	for _, c := range text {
		ids = append(ids, int(c))
	}
	return ids, nil
}

func TestIDLines(t *testing.T) {
	path := write(t, "ids.jsonl", "[1,2,3]\n\n [ 4 ]\r\n[5, 6, 7, 8, 9]")
	for _, c := range []struct {
		context, most int
		want          string
	}{
		{0, 0, "[[1 2 3] [4] [5 6 7 8 9]]"},
		{2, 0, "[[1 2] [4] [5 6] [7 8]]"}, // remainders go where a window came before them
		{3, 0, "[[1 2 3] [4] [5 6 7]]"},
		{0, 4, "[[1 2 3] [4]]"},
		{0, 8, "[[1 2 3] [4]]"}, // the third does not fit
		{0, 2, "[[1 2]]"},       // nothing fits whole
		{2, 5, "[[1 2] [4] [5 6]]"},
	} {
		got, err := IDs(path, Options{Context: c.context, MaxTokens: c.most, Vocab: 10})
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("context %d, at most %d: got %v, %v; want %s", c.context, c.most, got, err, c.want)
		}
	}
}

func TestIDLinesRefuses(t *testing.T) {
	for _, c := range []struct {
		content string
		says    []string
	}{
		{"", []string{"no tokens"}},
		{" \n\n", []string{"no tokens"}},
		{"[1]\n[]\n", []string{"line 2", "empty list"}},
		{"[1]\n[2,10]\n", []string{"line 2", "position 1", "id 10", "0 to 9"}},
		{"[-1]", []string{"line 1", "position 0", "id -1"}},
		{"[1]\n\n[2,null]", []string{"line 3", "position 1", "null", "whole number"}},
		{"[1,2.0]", []string{"position 1", "2.0", "whole number"}},
		{"[1,1e1]", []string{"1e1"}},
		{`["1"]`, []string{`"1"`, "whole number"}},
		{"[99999999999999999999]", []string{"99999999999999999999"}},
		{"[1,[2]]", []string{"position 1"}},
		{"null", []string{"line 1", "null", "list of token ids"}},
		{`{"ids":[1]}`, []string{"line 1", "list of token ids"}},
		{"[1] [2]", []string{"line 1"}},
		{"[1", []string{"line 1"}},
		{"[1]\n\xff", []string{"line 2", "0xff", "offset 0", "UTF-8"}},
		{"[1]\n[" + strings.Repeat(" ", maxLine) + "1]", []string{"line 2", "more than"}},
	} {
		path := write(t, "ids.jsonl", c.content)
		_, err := IDs(path, Options{Vocab: 10})
		wantError(t, err, path, c.says...)
	}
	path := write(t, "ids.txt", "1 2 3")
	_, err := IDs(path, Options{Vocab: 10})
	wantError(t, err, path, "neither .npy nor .jsonl")
	missing := filepath.Join(t.TempDir(), "a.jsonl")
	_, err = IDs(missing, Options{Vocab: 10})
	wantError(t, err, missing, "no such file")
	if strings.Count(err.Error(), missing) != 1 {
		t.Errorf("the path is named twice: %v", err)
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		name, content string
		context, most int
		want          string
	}{
		{"a.txt", "abcdefg", 3, 0, "[[1 97 98] [99 100 101]]"},
		{"a.txt", "abcdefg", 4, 0, "[[1 97 98 99] [100 101 102 103]]"},
		{"a.txt", "ab", 8, 0, "[[1 97 98]]"}, // shorter than a window, and all there is
		{"a.txt", "abcdefg", 3, 5, "[[1 97 98]]"},
		{"a.txt", "abcdefg", 3, 2, "[[1 97]]"},
		{"a.txt", "abc", 0, 0, "[[1 97 98 99]]"},
		{"a.raw", "\ufeffé\n", 8, 0, "[[1 233 10]]"},
		{"a.jsonl", `{"text":"ab","id":7}` + "\n\n" + `{"text":"cde"}`, 3, 0, "[[1 97 98] [1 99 100]]"},
		{"a.jsonl", `{"text":""}` + "\n" + `{"text":"\u00e9"}`, 9, 0, "[[1 1 233]]"},
	} {
		got, err := Text(write(t, c.name, c.content), &runes{}, Options{Context: c.context, MaxTokens: c.most, Vocab: 300})
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%s %q: got %v, %v; want %s", c.name, c.content, got, err, c.want)
		}
	}
}

func TestTextRefuses(t *testing.T) {
	for _, c := range []struct {
		name, content string
		says          []string
	}{
		{"a.txt", "ab\xc3", []string{"0xc3", "offset 2", "UTF-8"}},
		{"a.txt", "h\xe9llo", []string{"0xe9", "offset 1"}},
		{"a.txt", "\xff\xfea\x00", []string{"0xff", "offset 0"}},
		{"a.txt", "ok!", []string{"no rule for !"}},
		{"a.txt", "a\u0400", []string{"position 2", "id 1024", "0 to 299"}},
		{"a.npy", "\x93NUMPY", []string{"NumPy"}},
		{"a.jsonl", "", []string{"no tokens"}},
		{"a.jsonl", `{"text":"a"}` + "\n[1,2]", []string{"line 2", "text"}},
		{"a.jsonl", `{"txt":"a"}`, []string{"line 1", `"text"`}},
		{"a.jsonl", `{"text":null}`, []string{"line 1"}},
		{"a.jsonl", `{"text":7}`, []string{"line 1"}},
		{"a.jsonl", `{"text":"a"} x`, []string{"line 1"}},
		{"a.jsonl", "{\"text\":\"\xff\"}", []string{"line 1", "0xff", "offset 9"}},
	} {
		path := write(t, c.name, c.content)
		_, err := Text(path, &runes{}, Options{Context: 4, Vocab: 300})
		wantError(t, err, path, c.says...)
	}
	path := write(t, "empty.txt", "")
	_, err := Text(path, silent{}, Options{Context: 4, Vocab: 300})
	wantError(t, err, path, "no tokens")
	folder := t.TempDir()
	_, err = Text(folder, silent{}, Options{Context: 4, Vocab: 300})
	wantError(t, err, folder, "directory")
}

// silent makes no tokens of anything.
type silent struct{}

func (silent) Encode(string, bool) ([]int, error) { return nil, nil }

// packed makes one token of every 100 characters.
type packed struct{}

func (packed) Encode(text string, _ bool) ([]int, error) {
	ids := make([]int, len(text)/100)
	for i := range ids {
		ids[i] = int(text[100*i])
	}
	return ids, nil
}

// TestTextPrefix: the beginning of a long text gives the tokens of the whole, also when a character lies across the cut,
// when more text is needed than was guessed, and when a fault lies behind what is needed.
func TestTextPrefix(t *testing.T) {
	var b strings.Builder
	for b.Len() < 1<<20 {
		b.WriteString("aéa€a😀bc")
	}
	whole := b.String() + "\xff"
	path := write(t, "long.txt", whole)
	for most := leastText - 3; most <= leastText+3; most++ {
		got, err := Text(path, packed{}, Options{MaxTokens: most / 32, Vocab: 256})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := packed{}.Encode(whole[:100*(most/32)], false)
		if len(got) != 1 || !slices.Equal(got[0], want) {
			t.Fatalf("at most %d: the tokens of a part differ from those of the whole", most/32)
		}
	}
	r := &runes{}
	if _, err := Text(path, r, Options{Context: 100, MaxTokens: 1000, Vocab: 1 << 21}); err != nil || r.calls != 1 {
		t.Errorf("%d calls, %v; want one call", r.calls, err)
	}
	_, err := Text(path, packed{}, Options{Vocab: 256})
	wantError(t, err, path, "0xff", fmt.Sprintf("offset %d", len(whole)-1))
}

func TestWholeRunes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "a": "a", "é": "é", "a\xc3": "a", "a\xe2\x82": "a", "a\xf0\x9f\x98": "a", "😀": "😀", "a\x80": "a\x80", "\x80\x80\x80\x80": "\x80\x80\x80\x80",
	} {
		if got := string(wholeRunes([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestAreIDs(t *testing.T) {
	for _, c := range []struct {
		name, content string
		want          bool
	}{
		{"a.npy", "", true}, {"a.NPY", "", true}, {"a.txt", "[1]", false}, {"a.jsonl", "\n [1]", true},
		{"a.jsonl", `{"text":"[1]"}`, false}, {"a.jsonl", "", false},
	} {
		if got, err := AreIDs(write(t, c.name, c.content)); err != nil || got != c.want {
			t.Errorf("%s %q: got %v, %v", c.name, c.content, got, err)
		}
	}
}

func TestStart(t *testing.T) {
	for _, c := range []struct {
		shape arch.Shape
		id    int
		what  string
	}{
		{arch.Shape{BOS: []int{5}, EOS: []int{6}}, 5, "BOS"},
		{arch.Shape{EOS: []int{6, 7}}, 6, "EOS"},
		{arch.Shape{}, 0, "token 0"},
	} {
		if id, what := Start(&c.shape); id != c.id || what != c.what {
			t.Errorf("got %d, %s", id, what)
		}
	}
}

func FuzzIDLines(f *testing.F) {
	f.Add("[1,2]\n[3]")
	f.Add("[null]")
	f.Fuzz(func(t *testing.T, content string) {
		got, err := IDs(write(t, "a.jsonl", content), Options{Context: 3, MaxTokens: 10, Vocab: 10})
		checkSequences(t, got, err)
	})
}

// checkSequences: what was accepted is not empty, within the vocabulary and within the bounds.
func checkSequences(t *testing.T, got [][]int, err error) {
	t.Helper()
	var e *checkpoint.Error
	if err != nil {
		if !errors.As(err, &e) {
			t.Fatalf("got %v, want an error of package checkpoint", err)
		}
		return
	}
	total := 0
	for _, s := range got {
		total += len(s)
		if len(s) == 0 || len(s) > 3 || slices.Min(s) < 0 || slices.Max(s) > 9 {
			t.Fatalf("accepted %v", got)
		}
	}
	if len(got) == 0 || total > 10 || reflect.DeepEqual(got, [][]int{nil}) {
		t.Fatalf("accepted %v", got)
	}
}
