package tokenizer

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func splitBy(t testing.TB, expression, text string) []string {
	t.Helper()
	re, err := newRegex(expression)
	if err != nil {
		t.Fatalf("%q: %v", expression, err)
	}
	pieces, err := (&splitter{re, isolated}).preTokenize(nil, piece{text: text})
	if err != nil {
		t.Fatalf("%q on %q: %v", expression, text, err)
	}
	out := []string{}
	for _, pc := range pieces {
		out = append(out, pc.text)
	}
	return out
}

// TestSplits splits as the real engine did; testdata/make.py lists the expressions.
func TestSplits(t *testing.T) {
	data, err := os.ReadFile("testdata/splits.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Texts  []string
		Splits []struct {
			Expression string
			Pieces     [][]string
		}
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden.Splits) < 80 {
		t.Fatalf("%d expressions, want more", len(golden.Splits))
	}
	for _, s := range golden.Splits {
		for i, text := range golden.Texts {
			if got := splitBy(t, s.Expression, text); !slices.Equal(got, s.Pieces[i]) {
				t.Errorf("%q on %q:\n got %q\nwant %q", s.Expression, text, got, s.Pieces[i])
			}
		}
	}
}

// TestRefusedExpressions are expressions that are wrong, or that no tokenizer has.
func TestRefusedExpressions(t *testing.T) {
	for expression, want := range map[string]string{
		"(":                           "unclosed group",
		"a)":                          "unmatched )",
		"[a":                          "unclosed class",
		"[]":                          "empty class",
		"[z-a]":                       "ends reversed",
		`[\d-a]`:                      "begins with a set",
		`[a-\d]`:                      "ends with a set",
		"*a":                          "nothing to repeat",
		"a|+":                         "nothing to repeat",
		"{2}":                         "nothing to repeat",
		"(?=a)*":                      "matches no character",
		`\`:                           `ends in \`,
		`\x{110000}`:                  "code point",
		`\x{D800}`:                    "code point",
		`\u12`:                        "four digits",
		`\xE9`:                        "byte that is no character",
		`\p{Nonsense}`:                "character property",
		`\pL`:                         "without a name",
		"[[:nonsense:]]":              "POSIX class",
		"a{1001}":                     "repeat count",
		"(?:(?:a{1000}){1000}){1000}": "nested repeats",
		"a{3,2}":                      "ends reversed",
		`(a)\1`:                       `\1`,
		`\k<n>`:                       `\k`,
		`\X`:                          `\X`,
		`\K`:                          `\K`,
		`\G`:                          `\G`,
		"(?~a)":                       "(?~",
		"(?x: a)":                     "(?x",
		"(?(1)a|b)":                   "(?(",
		"(*FAIL)":                     "callout",
		"(?i:ß)":                      "U+00DF",
		"(?i:pass)":                   "U+00DF",
		"(?i:[a-zß])":                 "U+00DF",
		"(?<=a++)b":                   "look-behind",
		strings.Repeat("(", 1000) + strings.Repeat(")", 1000):       "nested deeper",
		strings.Repeat("[", 1000) + "a" + strings.Repeat("]", 1000): "nested deeper",
		strings.Repeat("a", maxPatternBytes+1):                      "bytes",
	} {
		_, err := newRegex(expression)
		var syntax *syntaxError
		if !errors.As(err, &syntax) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want one with %q", expression, err, want)
		}
	}
}

// TestRegexWithoutEnd gives an expression that backtracks without end a text where it does.
func TestRegexWithoutEnd(t *testing.T) {
	re, err := newRegex(`(?:a|a|b)*(?:a|a|b)*c`)
	if err != nil {
		t.Fatal(err)
	}
	re.re.MatchTimeout = 200 * time.Millisecond
	if _, err := re.spans(strings.Repeat("ab", 500), nil); !errors.Is(err, errRegexTime) {
		t.Errorf("error %v, want %v", err, errRegexTime)
	}
}

// TestSpansCoverText checks for random expressions that matches and what lies between them are the
// whole text in order, cut at character boundaries.
func TestSpansCoverText(t *testing.T) {
	r := newRand(t)
	lines := mixedLines(t)
	checked := 0
	for range 400 {
		re, err := newRegex(randomExpression(r, 2))
		if err != nil {
			continue
		}
		re.re.MatchTimeout = 2 * time.Second
		text := randomText(r, lines)
		spans, err := re.spans(text, nil)
		if err != nil {
			continue
		}
		checked++
		pos := 0
		for _, s := range spans {
			if s.start != pos || s.end < s.start || s.end < len(text) && !utf8.RuneStart(text[s.end]) || s.start == s.end && !s.match {
				t.Fatalf("%v of %q: %v", re.re, text, spans)
			}
			pos = s.end
		}
		if pos != len(text) {
			t.Fatalf("%v of %q: the end is missing: %v", re.re, text, spans)
		}
	}
	if checked < 100 {
		t.Errorf("only %d expressions checked", checked)
	}
}

// TestBehaviors are the examples in the documentation of Hugging Face tokenizers, inverted ones too.
func TestBehaviors(t *testing.T) {
	const text = "the-final--countdown"
	for _, test := range []struct {
		behavior behavior
		invert   bool
		want     string
	}{
		{removed, false, "the final countdown"},
		{isolated, false, "the - final - - countdown"},
		{mergedWithPrevious, false, "the- final- - countdown"},
		{mergedWithNext, false, "the -final - -countdown"},
		{contiguous, false, "the - final -- countdown"},
		{removed, true, "- - -"},
		{contiguous, true, "the - final -- countdown"},
	} {
		var p pattern = literal("-")
		if test.invert {
			p = inverted{p}
		}
		pieces, err := (&splitter{p, test.behavior}).preTokenize(nil, piece{text: text})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, pc := range pieces {
			got = append(got, pc.text)
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%s, invert %v: %q, want %q", behaviors[test.behavior], test.invert, s, test.want)
		}
	}
}
