package report

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Table is rows of cells under column titles. The first column is aligned left if Names is set; all others, numbers, are
// aligned right.
type Table struct {
	Head  []string
	Rows  [][]string
	Names bool
}

// Add appends a row; it must have as many cells as Head.
func (t *Table) Add(cells ...string) {
	if len(cells) != len(t.Head) {
		panic("report: row length")
	}
	t.Rows = append(t.Rows, cells)
}

func (t *Table) left(column int) bool { return t.Names && column == 0 }

// Text writes the table with its columns aligned, two spaces apart.
func (t *Table) Text(w io.Writer) error {
	widths := make([]int, len(t.Head))
	all := append([][]string{t.Head}, t.Rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range all {
		line := len(row) - 1
		for i, cell := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case !t.left(i):
				b.WriteString(pad + cell)
			case i < line:
				b.WriteString(cell + pad)
			default:
				b.WriteString(cell)
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Markdown writes the table in the syntax of GitHub.
func (t *Table) Markdown(w io.Writer) error {
	var b strings.Builder
	row := func(cells []string) {
		b.WriteByte('|')
		for _, cell := range cells {
			b.WriteString(" " + markdownCell.Replace(cell) + " |")
		}
		b.WriteByte('\n')
	}
	row(t.Head)
	b.WriteByte('|')
	for i := range t.Head {
		if t.left(i) {
			b.WriteString(":---|")
		} else {
			b.WriteString("---:|")
		}
	}
	b.WriteByte('\n')
	for _, cells := range t.Rows {
		row(cells)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var markdownCell = strings.NewReplacer("|", `\|`, "\n", " ", "\r", " ")
