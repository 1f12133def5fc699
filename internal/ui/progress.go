package ui

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Unit says what a phase counts.
type Unit string

// Bytes is the unit of phases whose counts are written as sizes.
const Bytes Unit = "bytes"

const (
	redraw    = 100 * time.Millisecond
	lineEvery = 2 * time.Second
)

// Progress shows how far a command has got: a bar on a terminal, plain lines elsewhere. Its methods may be called from
// many goroutines; those of a nil Progress do nothing.
type Progress struct {
	mu    sync.Mutex
	w     io.Writer
	bars  bool
	now   func() time.Time
	bar   *progressbar.ProgressBar
	name  string
	unit  Unit
	total int64
	done  int64
	shown time.Time
	tenth int64 // tenths of the phase that the last line showed
}

// NewProgress returns progress on w, or nil, which is silent, if quiet. Bars are drawn only if w is a terminal that can
// move its cursor.
func NewProgress(w io.Writer, quiet bool) *Progress {
	if quiet {
		return nil
	}
	return &Progress{w: w, bars: isTerminal(w) && os.Getenv("TERM") != "dumb", now: time.Now}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Phase ends the phase before it and begins one of total units.
func (p *Progress) Phase(name string, total int64, unit Unit) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
	p.name, p.unit, p.total, p.done, p.tenth, p.shown = name, unit, total, 0, 0, p.now()
	if !p.bars {
		fmt.Fprintf(p.w, "%s: %s\n", name, p.amount(total))
		return
	}
	p.bar = progressbar.NewOptions64(max(1, total),
		progressbar.OptionSetWriter(p.w),
		progressbar.OptionSetDescription(name),
		progressbar.OptionShowBytes(unit == Bytes),
		progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(redraw),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
	)
	_ = p.bar.RenderBlank() // at once: the first step of a phase may take minutes
}

// Done says how much of the phase is done. It never goes back.
func (p *Progress) Done(done int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if done <= p.done {
		return
	}
	p.done = done
	if p.bar != nil {
		// An error here is one of drawing, and a command does not fail because its bar cannot be drawn.
		_ = p.bar.Set64(done)
		return
	}
	if p.bars || p.total <= 0 {
		return
	}
	now := p.now()
	tenth := 10 * done / p.total
	if tenth > p.tenth && now.Sub(p.shown) >= lineEvery {
		fmt.Fprintf(p.w, "%s: %s of %s (%d %%)\n", p.name, p.number(done), p.amount(p.total), 100*done/p.total)
		p.tenth, p.shown = tenth, now
	}
}

// Note writes a line that stays.
func (p *Progress) Note(text string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintln(p.w, text)
}

// End ends the phase and takes its bar away.
func (p *Progress) End() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

func (p *Progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
		_ = p.bar.Exit()
		p.bar = nil
	}
}

func (p *Progress) number(n int64) string {
	if p.unit == Bytes {
		return FormatSize(n)
	}
	return strconv.FormatInt(n, 10)
}

func (p *Progress) amount(n int64) string {
	if p.unit == Bytes {
		return FormatSize(n)
	}
	return p.number(n) + " " + string(p.unit)
}
