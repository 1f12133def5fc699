package cmd

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/convert"
	"github.com/mlaconvert/mlaconvert/internal/arch"
	"github.com/mlaconvert/mlaconvert/internal/calibrate"
	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/report"
	"github.com/mlaconvert/mlaconvert/internal/tokens"
)

// calibrationOptions are the flags of a calibrated conversion.
type calibrationOptions struct {
	// Source is convert.CalibrationSelf, convert.CalibrationNone or a file.
	Source string
	Tokens int // 0 for as many as the effort needs
	Effort string
	Seed   uint64
}

func newCalibrationOptions() calibrationOptions {
	return calibrationOptions{Source: convert.CalibrationSelf, Effort: string(calibrate.Balanced), Seed: 1}
}

// AddFlags adds the flags to a command.
func (o *calibrationOptions) AddFlags(c *cobra.Command) {
	var efforts []string
	for _, e := range calibrate.Efforts {
		efforts = append(efforts, string(e))
	}
	f := c.Flags()
	f.StringVar(&o.Source, "calibration", o.Source, "measure the source on tokens that it samples from itself (self), on a `FILE` of text (.txt, .jsonl) or of token ids (.npy, .jsonl), or not at all (none)")
	var tokens []string
	for _, e := range calibrate.Efforts {
		tokens = append(tokens, fmt.Sprintf("%s: %d", e, calibrate.DefaultTokens(e)))
	}
	f.Var(intFlag(&o.Tokens, 2, 1, ""), "calibration-tokens", fmt.Sprintf("calibration tokens, a tenth of which, at most %d sequences, is held out to decide every choice (default: by effort, %s)", calibrate.MostHeldOut, strings.Join(tokens, ", ")))
	f.Var(choiceFlag(&o.Effort, efforts, o.Effort), "effort", "time for accuracy: fast fits and refits each layer, balanced polishes six layers at a time and corrects all together afterwards, best takes longer over both")
	f.Uint64Var(&o.Seed, "seed", o.Seed, "seed of the samples and of the order of the corrections")
}

// apply puts the options into a recipe and reads the calibration file, if there is one.
func (o *calibrationOptions) apply(r *convert.Recipe, src *checkpoint.Source) ([][]int, error) {
	if o.Source == convert.CalibrationNone {
		return nil, nil
	}
	if o.Tokens == 0 {
		o.Tokens = calibrate.DefaultTokens(calibrate.Effort(o.Effort))
	}
	c := &convert.Calibration{
		Source: o.Source, Tokens: o.Tokens, Window: calibrate.Window, Effort: calibrate.Effort(o.Effort), Seed: o.Seed,
	}
	r.Method, r.Calibration = convert.Calibrated, c
	m, err := arch.Parse(src.Config())
	if err != nil {
		return nil, err
	}
	c.Window = min(c.Window, m.Context)
	if o.Source == convert.CalibrationSelf {
		return nil, nil
	}
	sequences, err := o.read(src.Dir(), m, c.Window)
	if err != nil {
		return nil, err
	}
	c.Source, c.Tokens = filepath.Base(o.Source), 0
	h := sha256.New()
	for _, s := range sequences {
		c.Tokens += len(s)
		for _, id := range append([]int{len(s)}, s...) {
			binary.Write(h, binary.LittleEndian, int64(id))
		}
	}
	c.SHA256 = hex.EncodeToString(h.Sum(nil))
	return sequences, nil
}

// read reads a calibration file in windows.
func (o *calibrationOptions) read(dir string, m *arch.Model, window int) ([][]int, error) {
	v := verifyOptions{Context: window, MaxTokens: o.Tokens, IDsHint: "give token ids with --calibration (.npy, .jsonl) instead"}
	ids, err := tokens.AreIDs(o.Source)
	if err != nil {
		return nil, err
	}
	if ids {
		v.Tokens = o.Source
	} else {
		v.Text = o.Source
	}
	sequences, err := readSequences(&v, dir, &m.Shape, &report.Data{})
	if err != nil {
		return nil, err
	}
	longest := 0
	for _, s := range sequences {
		longest = max(longest, len(s))
	}
	id, alike := calibrate.Alike(sequences)
	bad := func(got, want string) error {
		return &checkpoint.Error{Kind: checkpoint.BadSource, File: o.Source, Got: got, Want: want, Hint: "use more text, or --calibration self"}
	}
	switch {
	case !ids && longest < window:
		return nil, bad(fmt.Sprintf("%d tokens", longest), fmt.Sprintf("at least one window of %d", window))
	case len(sequences) < 2:
		return nil, bad(fmt.Sprintf("%d sequence of %d tokens", len(sequences), longest), "at least two, one of which is held out")
	case alike:
		return nil, bad(fmt.Sprintf("no token but id %d", id), "text that varies")
	}
	return sequences, nil
}
