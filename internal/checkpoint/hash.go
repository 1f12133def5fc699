package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"sync"
)

// maxHashers is how many files are hashed at once: two keep a disk busy.
const maxHashers = 2

// Hashes returns the SHA-256, in hexadecimal, of every safetensors file of the checkpoint, its config.json and its index
// if it has one, keyed by names relative to Dir. The files are read in bounded memory. progress, unless nil, is called
// with the bytes read so far and their total, never twice at once. A file whose size is not what it was at Open is an
// error; so is a context that is done.
func (s *Source) Hashes(ctx context.Context, progress func(done, total int64)) (map[string]string, error) {
	names := append(s.Files(), configFile)
	if s.index != "" {
		names = append(names, s.index)
	}
	var total int64
	for _, name := range names {
		total += s.sizes[name]
	}
	var (
		mu       sync.Mutex
		done     int64
		firstErr error
		sums     = make(map[string]string, len(names))
		queue    = make(chan string)
		wg       sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		done += int64(n)
		if progress != nil {
			progress(done, total)
		}
	}
	for range min(maxHashers, len(names)) {
		wg.Go(func() {
			for name := range queue {
				sum, err := hashFile(ctx, filepath.Join(s.dir, name), s.sizes[name], count)
				mu.Lock()
				sums[name] = sum
				if err != nil && firstErr == nil {
					firstErr = err
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	for _, name := range names {
		queue <- name
	}
	close(queue)
	wg.Wait()
	if firstErr != nil {
		return nil, firstErr
	}
	return sums, nil
}

func hashFile(ctx context.Context, path string, want int64, count func(n int)) (string, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	var size int64
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		size += int64(n)
		count(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", &Error{Kind: BadSource, File: path, Err: cause(err)}
		}
	}
	if size != want {
		return "", badSource(path, "", fmt.Sprintf("%d bytes", size), fmt.Sprintf("%d as when it was opened", want))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
