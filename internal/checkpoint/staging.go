package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// errLocked is what lockFile returns when another process holds the lock.
var errLocked = errors.New("locked by another process")

// paths are the names that a checkpoint in the making uses; they are siblings, so that renames stay in one file system.
type paths struct {
	out         string // the finished checkpoint
	staging     string // the folder that will be renamed to out
	journalPath string // journal and lock
	old         string // where Commit puts the folder that it replaces
}

func pathsFor(out string) paths {
	return paths{out: out, staging: out + ".partial", journalPath: out + ".partial.journal", old: out + ".partial.old"}
}

// exists reports whether there is anything of that name, a dangling link included.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// checkOut refuses an output that exists, or with force one that must not be replaced.
func (p paths) checkOut(force bool) error {
	there, err := exists(p.out)
	if err != nil || !there {
		return err
	}
	if !force {
		return &Error{Kind: Exists, File: p.out, Got: "exists already", Hint: "replace it with --force, or choose another output with --out"}
	}
	refuse := func(got string) error {
		return &Error{Kind: Exists, File: p.out, Got: got, Want: "a model folder, which is what --force may replace", Hint: "choose another output with --out"}
	}
	info, err := os.Lstat(p.out)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return refuse("no folder")
	}
	if wd, err := os.Getwd(); err == nil && isInside(wd, p.out) {
		return refuse("the working directory is inside")
	}
	listing, err := os.ReadDir(p.out)
	if err != nil {
		return err
	}
	isModel := func(f fs.DirEntry) bool {
		return f.Name() == configFile || strings.HasSuffix(f.Name(), weightsSuffix)
	}
	if len(listing) > 0 && !slices.ContainsFunc(listing, isModel) {
		return refuse("a folder without config.json and *.safetensors")
	}
	return nil
}

// checkProtected refuses to replace or clear a folder that holds what the caller still needs.
func (p paths) checkProtected(protect []string) error {
	for _, path := range protect {
		for _, folder := range []string{p.out, p.staging, p.old} {
			if isInside(path, folder) {
				return &Error{Kind: Exists, File: folder, Got: "holds " + path + ", which is being read", Hint: "choose another output with --out"}
			}
		}
	}
	return nil
}

// isInside reports whether path is folder or lies in it, links followed.
func isInside(path, folder string) bool {
	rel, err := filepath.Rel(realPath(folder), realPath(path))
	return err == nil && filepath.IsLocal(rel)
}

// realPath is path made absolute with its links resolved, as far as it exists.
func realPath(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real
	}
	if parent := filepath.Dir(abs); parent != abs {
		return filepath.Join(realPath(parent), filepath.Base(abs))
	}
	return abs
}

// recoverOld ends a Commit that was killed while it replaced the output: what it had put aside goes back if the new output
// was not in place yet, and is removed with force if it was. known says that a journal vouches for the names being ours.
func (p paths) recoverOld(known, force bool) error {
	there, err := exists(p.old)
	if err != nil || !there {
		return err
	}
	outThere, err := exists(p.out)
	switch {
	case err != nil:
		return err
	case known && !outThere:
		return os.Rename(p.old, p.out)
	case known && force:
		return os.RemoveAll(p.old)
	case force:
		return &Error{Kind: Exists, File: p.old, Got: "in the way", Hint: "remove it, or choose another output with --out"}
	}
	return nil
}

// makeParents creates the missing parents of the output and returns those it made, deepest first.
func makeParents(dir string) (made []string, err error) {
	for at := dir; ; at = filepath.Dir(at) {
		there, err := exists(at)
		if err != nil {
			return nil, err
		}
		if there || filepath.Dir(at) == at {
			break
		}
		made = append(made, at)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return made, nil
}

// checkSpace compares the free space below dir with what is still to be written.
func checkSpace(dir, out string, need int64) error {
	free, ok := freeSpace(dir)
	if !ok || free >= need {
		return nil
	}
	return &Error{Kind: NoSpace, File: out, Got: fmt.Sprintf("%d bytes free", free), Want: fmt.Sprintf("%d for the output", need), Hint: "free some space, or put the output on another disk with --out"}
}

// writeError gives an error from writing its path and, if the disk is full, its kind.
func writeError(path string, err error) error {
	if err == nil {
		return nil
	}
	if isNoSpace(err) {
		return &Error{Kind: NoSpace, File: path, Err: cause(err), Hint: "free some space and continue with --resume"}
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("%s: %w", path, cause(err))
}
