package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// OutputFile is one file in the making. It takes shape beside its place, as PATH.partial, which is also the lock that keeps a
// second process away; Commit puts it there. Until then whatever is at PATH stays as it is.
type OutputFile struct {
	path, partial string
	force         bool
	f             *os.File
	parents       []string // made by CreateFile, deepest first
}

// CreateFile begins a file of size bytes at path, and the folders above it. A path that exists is an error of Kind Exists
// unless force says that a file there may be replaced, and none of those to protect; a disk too small for it is one of Kind NoSpace.
func CreateFile(path string, size int64, force bool, protect []string) (_ *OutputFile, err error) {
	path = filepath.Clean(path)
	o := &OutputFile{path: path, partial: path + ".partial", force: force}
	if err := o.checkPlace(); err != nil {
		return nil, err
	}
	for _, p := range protect {
		for _, place := range []string{o.path, o.partial} {
			if realPath(p) == realPath(place) {
				return nil, &Error{Kind: Exists, File: place, Got: "is being read", Hint: "choose another output with --out"}
			}
		}
	}
	dir := filepath.Dir(path)
	if o.parents, err = makeParents(dir); err != nil {
		return nil, writeError(path, err)
	}
	defer func() {
		if err != nil {
			o.removeParents()
		}
	}()
	if o.f, err = openLocked(o.partial); err != nil {
		return nil, err
	}
	left, err := o.f.Stat()
	if err == nil { // what a killed run left is used again
		err = checkSpace(dir, path, size-min(allocated(left), size))
	}
	if err != nil {
		return nil, errors.Join(err, o.discard())
	}
	if err := errors.Join(o.f.Truncate(0), reserve(o.f, size)); err != nil {
		return nil, errors.Join(o.writeError(err), o.discard())
	}
	crashPoint("begun")
	return o, nil
}

// checkPlace refuses a path that is taken.
func (o *OutputFile) checkPlace() error {
	info, err := os.Lstat(o.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return writeError(o.path, err)
	case !o.force:
		return &Error{Kind: Exists, File: o.path, Got: "exists already", Hint: "replace it with --force, or choose another output with --out"}
	case !info.Mode().IsRegular():
		return &Error{Kind: Exists, File: o.path, Got: "no regular file", Want: "a file, which is what --force may replace", Hint: "choose another output with --out"}
	}
	return nil
}

// openLocked opens a file for writing, made if it is not there, and takes its lock.
func openLocked(path string) (*os.File, error) {
	inUse := &Error{Kind: Exists, File: path, Got: "in use by another process", Hint: "wait for it, or choose another output with --out"}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, &Error{Kind: Exists, File: path, Got: "in the way", Want: "no such file, or what a killed run left", Hint: "remove it, or choose another output with --out"}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, writeError(path, err)
	}
	if err := lockFile(f); err != nil {
		f.Close()
		if errors.Is(err, errLocked) {
			return nil, inUse
		}
		return nil, writeError(path, err)
	}
	// Whoever held the lock may have renamed or removed the file since it was opened: then the lock is on another one.
	mine, err := f.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(path); err == nil && os.SameFile(mine, there) {
			return f, nil
		}
	}
	f.Close()
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil, inUse
	}
	return nil, writeError(path, err)
}

// Write implements io.Writer.
func (o *OutputFile) Write(p []byte) (int, error) {
	n, err := o.f.Write(p)
	if err != nil {
		return n, o.writeError(err)
	}
	return n, nil
}

// Commit checks that the file has the given size, makes it durable and renames it to its place. An error leaves the place as
// it was and removes the file.
func (o *OutputFile) Commit(size int64) error {
	crashPoint("written")
	err := func() error {
		at, err := o.f.Seek(0, 1)
		if err != nil {
			return err
		}
		info, err := o.f.Stat()
		if err != nil {
			return err
		}
		if at != size || info.Size() != size {
			return fmt.Errorf("wrote %d bytes of a file of %d, expected %d", at, info.Size(), size)
		}
		return o.f.Sync()
	}()
	if err != nil {
		return errors.Join(o.writeError(err), o.Abort())
	}
	crashPoint("synced")
	if !removeOpen { // where an open file cannot be renamed
		if err := o.f.Close(); err != nil {
			return errors.Join(o.writeError(err), o.Abort())
		}
	}
	if err = o.checkPlace(); err == nil { // again: something may have appeared there
		err = os.Rename(o.partial, o.path)
	}
	if err != nil {
		return errors.Join(o.writeError(err), o.Abort())
	}
	crashPoint("renamed")
	if removeOpen {
		if err := o.f.Close(); err != nil {
			return o.writeError(err)
		}
	}
	return writeError(filepath.Dir(o.path), syncDir(filepath.Dir(o.path)))
}

// Abort removes the unfinished file and the folders that were made for it.
func (o *OutputFile) Abort() error {
	err := o.discard()
	o.removeParents()
	return err
}

func (o *OutputFile) discard() error {
	if !removeOpen {
		o.f.Close() // a file that is removed next
	}
	err := os.Remove(o.partial)
	if removeOpen {
		o.f.Close()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.partial, cause(err))
	}
	return nil
}

func (o *OutputFile) removeParents() {
	for _, dir := range o.parents {
		if os.Remove(dir) != nil { // in use by others by now
			return
		}
	}
}

// writeError is writeError without its advice to resume, which there is not for one file.
func (o *OutputFile) writeError(err error) error {
	err = writeError(o.path, err)
	var e *Error
	if errors.As(err, &e) && e.Kind == NoSpace {
		e.Hint = "free some space, or put the output on another disk with --out"
	}
	return err
}
