package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder is one step of the decoder of tokenizer.json: it turns the strings of the tokens into
// others, which are joined in the end.
type decoder interface {
	decode(tokens []string) ([]string, error)
}

// decoderFunc is a decoder that cannot fail.
type decoderFunc func(tokens []string) []string

func (f decoderFunc) decode(tokens []string) ([]string, error) { return f(tokens), nil }

func (p *parser) decoder(o object) (decoder, error) {
	kind, err := o.kind("Sequence", "ByteLevel", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace", "BPEDecoder")
	if err != nil {
		return nil, err
	}
	switch kind {
	case "ByteLevel":
		return decoderFunc(decodeByteLevel), nil
	case "Replace":
		return p.replace(o)
	case "ByteFallback":
		return decoderFunc(decodeByteFallback), nil
	case "Fuse":
		return decoderFunc(func(tokens []string) []string { return []string{strings.Join(tokens, "")} }), nil
	case "Strip":
		return p.stripDecoder(o)
	case "Metaspace":
		m, err := p.metaspace(o)
		if err != nil {
			return nil, err
		}
		return decoderFunc(m.decodeTokens), nil
	default:
		suffix, err := o.string("suffix")
		return decoderFunc(func(tokens []string) []string {
			for i, t := range tokens {
				space := " "
				if i == len(tokens)-1 {
					space = ""
				}
				tokens[i] = strings.ReplaceAll(t, suffix, space)
			}
			return tokens
		}), err
	}
}

func decodeByteLevel(tokens []string) []string {
	var b []byte
	for _, t := range tokens {
		b = decodeByteChars(b, t)
	}
	return []string{validUTF8(b)}
}

// decodeByteFallback joins runs of tokens such as <0xE2> to text, or to a U+FFFD each if they are not
// UTF-8.
func decodeByteFallback(tokens []string) []string {
	var out []string
	var run []byte
	flush := func() {
		if utf8.Valid(run) {
			if len(run) > 0 {
				out = append(out, string(run))
			}
		} else {
			for range run {
				out = append(out, string(utf8.RuneError))
			}
		}
		run = run[:0]
	}
	for _, t := range tokens {
		if b, ok := byteToken(t); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, t)
	}
	flush()
	return out
}

// byteToken reads the byte of a token such as <0xE2>. A sign counts as a digit, as it does for the
// engine.
func byteToken(token string) (byte, bool) {
	if len(token) != 6 || !strings.HasPrefix(token, "<0x") || token[5] != '>' {
		return 0, false
	}
	digits := token[3:5]
	if digits[0] == '+' {
		digits = digits[1:]
	}
	b, err := strconv.ParseUint(digits, 16, 8)
	return byte(b), err == nil
}

// decode makes a Replace a decoder: it replaces within each token.
func (n *replace) decode(tokens []string) ([]string, error) {
	for i, t := range tokens {
		var err error
		if tokens[i], _, err = n.normalize(t, 0, mostBytes(len(t))); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// decodeTokens turns the character for a space back, and drops it from the first token if it was put
// there.
func (m *metaspace) decodeTokens(tokens []string) []string {
	for i, t := range tokens {
		space := " "
		if i == 0 && (m.always || m.first) {
			space = ""
		}
		tokens[i] = strings.ReplaceAll(t, m.replacement, space)
	}
	return tokens
}

// stripDecoder cuts up to start and stop times one character off the ends of every token.
func (p *parser) stripDecoder(o object) (decoder, error) {
	content, err := o.char("content")
	if err != nil {
		return nil, err
	}
	start, err := o.number("start", maxID)
	if err != nil {
		return nil, err
	}
	stop, err := o.number("stop", maxID)
	char := string(content)
	return decoderFunc(func(tokens []string) []string {
		for i, t := range tokens {
			for n := 0; n < start && strings.HasPrefix(t, char); n++ {
				t = t[len(char):]
			}
			for n := 0; n < stop && strings.HasSuffix(t, char); n++ {
				t = t[:len(t)-len(char)]
			}
			tokens[i] = t
		}
		return tokens
	}), err
}
