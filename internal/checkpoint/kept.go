package checkpoint

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// keptFolder is the part of the staging folder that never becomes output: what a run keeps for the one that resumes it. Its
// files end with the CRC-32C of what is before it, and have their names when they are whole.
const keptFolder = ".kept"

const (
	keptSumSize = 4
	keptPartial = ".partial" // behind the name of a file that is being written
)

func (w *Writer) keptPath(name string) string { return filepath.Join(w.staging, keptFolder, name) }

// Keep makes durable what write writes, under a plain file name, for a run that resumes this output; what was kept under that
// name is replaced. On error that stays. An error of Kind NoSpace also says that the disk would have no space left for what
// is still to be written of the output; it is no reason to end the work.
func (w *Writer) Keep(name string, write func(io.Writer) error) (err error) {
	if err := w.checkFileName(name); err != nil {
		return err
	}
	w.mu.Lock()
	failed := w.failed
	w.mu.Unlock()
	if failed != nil {
		return failed
	}
	path := w.keptPath(name)
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return writeError(path, err)
	}
	partial := path + keptPartial
	f, err := os.Create(partial)
	if err != nil {
		return writeError(partial, err)
	}
	defer func() {
		if err != nil {
			err = writeError(partial, errors.Join(err, f.Close(), os.Remove(partial)))
		}
	}()
	buffer, sum := bufio.NewWriterSize(f, chunkBytes), crc32.New(castagnoli)
	if err := write(io.MultiWriter(buffer, sum)); err != nil {
		return err
	}
	if _, err := buffer.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return err
	}
	if err := errors.Join(buffer.Flush(), f.Sync()); err != nil {
		return err
	}
	if err := w.checkSpace(); err != nil {
		return err
	}
	crashPoint("kept")
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Kept gives read what [Writer.Keep] kept under a name, in this run or the one that it resumes. It returns false if there is
// nothing, or nothing whole.
func (w *Writer) Kept(name string, read func(io.Reader) error) (bool, error) {
	path := w.keptPath(name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	size := info.Size() - keptSumSize
	if size < 0 {
		return false, nil
	}
	var want [keptSumSize]byte
	sum, err := sumOf(f, 0, size)
	if err == nil {
		_, err = f.ReadAt(want[:], size)
	}
	if err != nil {
		return false, fmt.Errorf("%s: read: %w", path, cause(err))
	}
	if sum != binary.LittleEndian.Uint32(want[:]) {
		return false, nil
	}
	if err := read(bufio.NewReaderSize(io.NewSectionReader(f, 0, size), chunkBytes)); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}

// Drop removes what is kept under a name, if anything is.
func (w *Writer) Drop(name string) error {
	if err := os.Remove(w.keptPath(name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Keeps reports whether anything is kept.
func (w *Writer) Keeps() bool {
	listing, err := os.ReadDir(w.keptPath("."))
	return err == nil && len(listing) > 0
}
