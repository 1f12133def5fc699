package tokens

import "github.com/mlaconvert/mlaconvert/internal/arch"

// Start returns the token that a model's own texts begin with, and what it is: BOS, or where the configuration names
// none, the first EOS, which such models have between documents, or else token 0, where tokenizers keep a special one.
func Start(s *arch.Shape) (id int, what string) {
	switch {
	case len(s.BOS) > 0:
		return s.BOS[0], "BOS"
	case len(s.EOS) > 0:
		return s.EOS[0], "EOS"
	}
	return 0, "token 0"
}
