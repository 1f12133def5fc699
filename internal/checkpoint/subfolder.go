package checkpoint

import (
	"os"
	"path/filepath"
)

// CopyInto copies a file, byte for byte and under its own base name, into a folder of the checkpoint, which it makes. The
// folder is a plain name. See [Writer.WriteFile].
func (w *Writer) CopyInto(folder, src string) error {
	name := filepath.Base(src)
	for _, plain := range []string{folder, name} {
		if err := w.checkFileName(plain); err != nil {
			return err
		}
	}
	f, _, err := openRegular(src)
	if err != nil {
		return err
	}
	defer f.Close()
	dir := filepath.Join(w.staging, folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return writeError(dir, err)
	}
	if err := w.writeFile(filepath.Join(folder, name), f); err != nil {
		return err
	}
	return writeError(dir, syncDir(dir))
}
