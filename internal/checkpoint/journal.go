package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// A journal records which units of an unfinished checkpoint are on disk. It lies beside the staging folder, so that the
// folder holds nothing but the output, and the file is also the lock of both: see lockFile.
//
// Every line is a JSON object {"sum":CRC-32C of the entry's bytes,"entry":{...}}. The first entry is a journalHeader, which
// may leave its identity to a second one, each later one a journalUnit, appended and synced after the unit's data. What
// follows the first line that is torn or damaged does not count: those units are done again.
type journal struct {
	f    *os.File
	path string
}

const journalFormat = "mlaconvert.journal/1"

type journalHeader struct {
	Format   string `json:"format"`
	Identity string `json:"identity"`
	Layout   string `json:"layout"` // digest of the layout
	// Pending says that the next line is a header with the identity.
	Pending bool `json:"pending,omitempty"`
}

type journalUnit struct {
	Unit    string            `json:"unit"`
	Payload []byte            `json:"payload"`
	Tensors map[string]uint32 `json:"tensors"` // CRC-32C of each tensor's bytes
}

type journalLine struct {
	Sum   uint32          `json:"sum"`
	Entry json.RawMessage `json:"entry"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal opens or creates the journal and locks it; the error is of Kind Exists if another process holds it.
func openJournal(path string) (*journal, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the journal: %w", err)
		}
		if err := lockFile(f); err != nil {
			f.Close()
			if errors.Is(err, errLocked) {
				return nil, &Error{Kind: Exists, File: path, Got: "locked by another process", Hint: "another conversion is writing the same output; wait for it or choose another output"}
			}
			return nil, fmt.Errorf("%s: lock: %w", path, err)
		}
		// The holder before us may have removed the file between our open and our lock; then the lock is on nothing.
		locked, err1 := f.Stat()
		named, err2 := os.Stat(path)
		if err1 == nil && err2 == nil && os.SameFile(locked, named) {
			return &journal{f: f, path: path}, nil
		}
		f.Close()
		if err := errors.Join(err1, err2); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
}

// read returns what the journal says, up to the offset end of its last good line; end is 0 if not even the header is good
// and whole.
func (j *journal) read() (header journalHeader, units []journalUnit, end int64, err error) {
	if _, err := j.f.Seek(0, io.SeekStart); err != nil {
		return header, nil, 0, err
	}
	text, err := io.ReadAll(j.f)
	if err != nil {
		return header, nil, 0, err
	}
	known := false // the header, with its identity
	for {
		line, _, whole := bytes.Cut(text[end:], []byte("\n"))
		if !whole && !known {
			return journalHeader{}, nil, 0, nil
		}
		if !whole {
			return header, units, end, nil
		}
		if !known {
			header = journalHeader{}
			if !decodeLine(line, &header) || header.Format != journalFormat {
				return journalHeader{}, nil, 0, nil
			}
			known = !header.Pending
		} else {
			var u journalUnit
			if !decodeLine(line, &u) {
				return header, units, end, nil
			}
			units = append(units, u)
		}
		end += int64(len(line)) + 1
	}
}

// cut removes what lies behind the offset end and continues there.
func (j *journal) cut(end int64) error {
	if err := j.f.Truncate(end); err != nil {
		return err
	}
	_, err := j.f.Seek(end, io.SeekStart)
	return err
}

func decodeLine(line []byte, entry any) bool {
	var l journalLine
	return json.Unmarshal(line, &l) == nil && crc32.Checksum(l.Entry, castagnoli) == l.Sum && json.Unmarshal(l.Entry, entry) == nil
}

// reset empties the journal and begins a new one.
func (j *journal) reset(h journalHeader) error {
	if err := j.cut(0); err != nil {
		return err
	}
	if err := j.append(h); err != nil {
		return err
	}
	return syncDir(filepath.Dir(j.path))
}

// append writes one entry and waits until it is on disk.
func (j *journal) append(entry any) error {
	text, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	line, err := json.Marshal(journalLine{Sum: crc32.Checksum(text, castagnoli), Entry: text})
	if err != nil {
		return err
	}
	if _, err := j.f.Write(append(line, '\n')); err != nil {
		return err
	}
	return j.f.Sync()
}

// empty reports whether nothing was ever written to the journal.
func (j *journal) empty() bool {
	info, err := j.f.Stat()
	return err == nil && info.Size() == 0
}

// close gives the lock back and leaves the file.
func (j *journal) close() error { return j.f.Close() }

// remove deletes the journal and gives the lock back.
func (j *journal) remove() error {
	if removeOpen {
		return errors.Join(os.Remove(j.path), j.f.Close())
	}
	return errors.Join(j.f.Close(), os.Remove(j.path))
}
