package convert

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// Problems is all that is wrong with a source, found from its headers. There is at least one.
type Problems []error

// maxProblems bounds the list: a source of another geometry has something wrong in every layer.
const maxProblems = 40

// Error implements error, with one problem a line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, err := range p {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives [errors.As] and [errors.Is] every problem.
func (p Problems) Unwrap() []error { return p }

// Kind is BadSource if any of the problems is of that kind, else that of the first.
func (p Problems) Kind() checkpoint.Kind {
	var kind checkpoint.Kind
	for _, err := range p {
		var e *checkpoint.Error
		if errors.As(err, &e) && (kind == 0 || e.Kind == checkpoint.BadSource) {
			kind = e.Kind
		}
	}
	return kind
}

// problemList collects problems up to maxProblems and counts the rest.
type problemList struct {
	list Problems
	more int
}

func (p *problemList) add(err error) {
	if err == nil {
		return
	}
	if len(p.list) == maxProblems {
		p.more++
		return
	}
	p.list = append(p.list, err)
}

// err returns the problems, or nil if there are none.
func (p *problemList) err() error {
	if len(p.list) == 0 {
		return nil
	}
	if p.more > 0 {
		return append(p.list, fmt.Errorf("and %d more problems of this kind", p.more))
	}
	return p.list
}
