package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// WriterOptions say what [Create] may do to what is there already.
type WriterOptions struct {
	// Force replaces an output that exists, at Commit and not before, and without Resume starts an unfinished one again.
	Force bool
	// Resume continues an unfinished output if there is one.
	Resume bool
	// Identity stands for everything that the output depends on, such as a digest of recipe, source and version. An
	// unfinished output of another identity cannot be resumed.
	Identity string
	// Pending says that the identity is not known yet, for an output that resumes none: [Writer.Identify] gives it before the
	// first unit is done. What a crash leaves before that is not resumed.
	Pending bool
	// Extra is the space needed besides the tensors and their index, in bytes.
	Extra int64
	// Protect lists paths that the output must not replace, such as the source.
	Protect []string
}

// Writer fills a [Layout]. Its methods may be called from many goroutines at once, except for Commit and Abort. The files
// do not depend on the order of the calls.
//
// The output takes shape in a staging folder, OUT.partial, beside a journal, OUT.partial.journal, which also is the lock
// that keeps a second process away. A crash at any moment leaves these, to be resumed, and never a part of OUT. What costs
// much and is no part of the output goes with them as well, see [Writer.Keep].
type Writer struct {
	paths
	layout  *Layout
	opts    WriterOptions
	parents []string // made by Create, deepest first
	journal *journal
	files   []*os.File // one for each shard
	direct  []*os.File // the same past the page cache, nil where that is not possible

	mu     sync.Mutex
	states map[string]*tensorState
	done   map[string][]byte // payloads of finished units
	failed error             // a failed sync: what is on disk is unknown from then on
	closed bool              // no more writing
	over   bool              // the journal is given back

	marking sync.Mutex     // held from a unit's sync to its line in the journal
	pending *journalHeader // as long as its identity is; guarded by marking
	dirty   []bool         // shards written to since their last sync; guarded by mu
}

type tensorState struct {
	busy    bool   // being written
	written bool   // whole, by this process
	onDisk  bool   // vouched for by the journal, from this process or an earlier one
	sum     uint32 // CRC-32C of the bytes, if written or onDisk
}

// crashPoint is called at the moments after which a crash leaves different things behind; tests kill the process there.
var crashPoint = func(string) {}

// Check returns what [Create] would refuse, as far as that shows without the identity. It leaves the disk as it is.
func Check(out string, layout *Layout, opts WriterOptions) error {
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	w := &Writer{paths: pathsFor(out), layout: layout, opts: opts}
	if err := w.checkPlaces(); err != nil {
		return err
	}
	known, err := exists(w.journalPath)
	if err != nil {
		return err
	}
	if known {
		j, err := openJournal(w.journalPath)
		if err != nil {
			return err
		}
		known = !j.empty()
		if err := j.close(); err != nil {
			return err
		}
	}
	if _, err := w.checkStaging(known); err != nil {
		return err
	}
	return w.checkSpace()
}

// Create starts or resumes a checkpoint at out. What a user can cause are errors of Kind Exists or NoSpace; they leave the
// disk as it was.
func Create(out string, layout *Layout, opts WriterOptions) (_ *Writer, err error) {
	out, err = filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	w := &Writer{
		paths: pathsFor(out), layout: layout, opts: opts,
		states: make(map[string]*tensorState, len(layout.place)), done: make(map[string][]byte),
		files: make([]*os.File, len(layout.Shards)), direct: make([]*os.File, len(layout.Shards)), dirty: make([]bool, len(layout.Shards)),
	}
	for name := range layout.place {
		w.states[name] = &tensorState{}
	}
	if err := w.checkPlaces(); err != nil {
		return nil, err
	}
	if w.parents, err = makeParents(filepath.Dir(out)); err != nil {
		return nil, fmt.Errorf("create the output's parent: %w", err)
	}
	defer func() {
		if err != nil {
			w.removeParents()
		}
	}()
	if w.journal, err = openJournal(w.journalPath); err != nil {
		return nil, err
	}
	units, resumed, err := w.claim()
	if err == nil {
		if err = w.prepare(); err == nil {
			if err = w.recover(units); err == nil {
				return w, nil
			}
		}
		return nil, errors.Join(err, w.Abort(resumed))
	}
	if staged, _ := exists(w.staging); w.journal.empty() || !staged { // it was not there before, or has nothing to say
		return nil, errors.Join(err, w.journal.remove())
	}
	return nil, errors.Join(err, w.journal.close())
}

// claim decides, with the lock held, what becomes of what is there. It returns whether an unfinished output is resumed, and
// the units that its journal names.
func (w *Writer) claim() (units []journalUnit, resumed bool, err error) {
	header := journalHeader{Format: journalFormat, Identity: w.opts.Identity, Layout: w.layout.digest(), Pending: w.opts.Pending}
	known := !w.journal.empty()
	found, units, end, err := w.journal.read()
	if err != nil {
		return nil, false, fmt.Errorf("%s: read: %w", w.journalPath, cause(err))
	}
	if err := w.recoverOld(known, w.opts.Force); err != nil {
		return nil, false, err
	}
	if err := w.checkOut(w.opts.Force); err != nil { // again: it may have appeared before the lock was ours
		return nil, false, err
	}
	staged, err := w.checkStaging(known)
	if err != nil {
		return nil, false, err
	}
	resumed = staged && end > 0 && w.opts.Resume
	if resumed && found != header {
		return nil, false, &Error{Kind: Exists, File: w.staging, Got: "an unfinished output of another recipe, source or version", Hint: "start again with --force and without --resume, or choose another output with --out"}
	}
	if err := w.checkSpace(); err != nil {
		return nil, false, err
	}
	if resumed {
		err = w.journal.cut(end)
		return units, true, writeError(w.journalPath, err)
	}
	if err := os.RemoveAll(w.staging); err != nil {
		return nil, false, err
	}
	if err := w.journal.reset(header); err != nil {
		return nil, false, writeError(w.journalPath, err)
	}
	if header.Pending {
		w.pending = &header
	}
	crashPoint("journal")
	return nil, false, nil
}

// checkPlaces refuses an output that must not be replaced, or holds what must not be.
func (w *Writer) checkPlaces() error {
	if err := w.checkOut(w.opts.Force); err != nil {
		return err
	}
	return w.checkProtected(w.opts.Protect)
}

// checkStaging reports whether there is a staging folder, and refuses one that is not ours to use.
func (w *Writer) checkStaging(known bool) (staged bool, err error) {
	info, err := os.Lstat(w.staging)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	listing, err := os.ReadDir(w.staging)
	if !info.IsDir() || err != nil || !known && len(listing) > 0 {
		return false, &Error{Kind: Exists, File: w.staging, Got: "in the way, and not an unfinished output with a journal", Hint: "remove it, or choose another output with --out"}
	}
	if known && !w.opts.Resume && !w.opts.Force {
		return false, &Error{Kind: Exists, File: w.staging, Got: "an unfinished output", Hint: "continue it with --resume, or start again with --force"}
	}
	return true, nil
}

func (w *Writer) checkSpace() error {
	return checkSpace(filepath.Dir(w.out), w.out, w.spaceNeeded())
}

// spaceNeeded is what the output still takes on the disk: all of it, less what a staging folder has already.
func (w *Writer) spaceNeeded() int64 {
	need := w.layout.TotalBytes + w.opts.Extra
	for i := range w.layout.Shards {
		if info, err := os.Lstat(w.shardPath(i)); err == nil && info.Mode().IsRegular() {
			need -= min(allocated(info), w.layout.Shards[i].Size)
		}
	}
	return need
}

// digest stands for every byte of the output that the layout determines.
func (l *Layout) digest() string {
	h := sha256.New()
	for _, s := range l.Shards {
		fmt.Fprintf(h, "%s %d %d\n", s.File, s.Size, len(s.Header))
		h.Write(s.Header)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (w *Writer) shardPath(i int) string { return filepath.Join(w.staging, w.layout.Shards[i].File) }

// prepare brings the staging folder to the state where every shard is there with its header and its size, and nothing else
// is. It does not touch the tensors of shards that are there already.
func (w *Writer) prepare() error {
	if err := os.Mkdir(w.staging, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return writeError(w.staging, err)
	}
	crashPoint("staging")
	listing, err := os.ReadDir(w.staging)
	if err != nil {
		return err
	}
	for _, f := range listing { // files of WriteFile may be torn, and will be written again
		if f.Name() != keptFolder && !slices.ContainsFunc(w.layout.Shards, func(s Shard) bool { return s.File == f.Name() }) {
			if err := os.RemoveAll(filepath.Join(w.staging, f.Name())); err != nil {
				return err
			}
		}
	}
	for i, s := range w.layout.Shards {
		f, err := os.OpenFile(w.shardPath(i), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return writeError(w.shardPath(i), err)
		}
		w.files[i] = f
		if err := reserve(f, s.Size); err != nil {
			return writeError(w.shardPath(i), err)
		}
		if _, err := f.WriteAt(s.Header, 0); err != nil {
			return writeError(w.shardPath(i), err)
		}
		w.direct[i] = openDirect(f)
		w.dirty[i] = true
	}
	if w.layout.Index != nil {
		if err := w.writeFile(indexFile, bytes.NewReader(w.layout.Index)); err != nil {
			return err
		}
	}
	crashPoint("shards")
	return errors.Join(syncDir(w.staging), syncDir(filepath.Dir(w.staging)))
}

// recover takes over the units of which every tensor is still what the journal says it was; the others are done again.
func (w *Writer) recover(units []journalUnit) error {
	sums := make(map[string]uint32) // what lies on disk, read once
	for _, u := range units {
		sound := true
		for _, name := range slices.Sorted(maps.Keys(u.Tensors)) {
			p, ok := w.layout.place[name]
			if !ok {
				sound = false
				break
			}
			sum, ok := sums[name]
			if !ok {
				var err error
				if sum, err = w.sumOnDisk(p); err != nil {
					return err
				}
				sums[name] = sum
			}
			if sum != u.Tensors[name] {
				sound = false
				break
			}
		}
		if !sound {
			delete(w.done, u.Unit)
			continue
		}
		w.done[u.Unit] = u.Payload
		for name, sum := range u.Tensors {
			*w.states[name] = tensorState{onDisk: true, sum: sum}
		}
	}
	return nil
}

func (w *Writer) sumOnDisk(p place) (uint32, error) {
	t := &w.layout.Shards[p.shard].Tensors[p.tensor]
	sum, err := sumOf(w.files[p.shard], t.Offset, t.Size)
	if err != nil {
		return 0, fmt.Errorf("%s: tensor %s: %w", w.shardPath(p.shard), oneLine(t.Name), err)
	}
	return sum, nil
}

// sumOf is the CRC-32C of a part of a file.
func sumOf(f *os.File, offset, size int64) (sum uint32, err error) {
	err = eachChunk(readAtData{f: f}, offset, size, func(_ int64, b []byte) error {
		sum = crc32.Update(sum, castagnoli, b)
		return nil
	})
	return sum, err
}

// pen writes the bytes of one tensor from front to back.
type pen struct {
	w     *Writer
	t     *Placed
	shard int
	state *tensorState
	at    int64
	sum   uint32
	big   *directWriter // what writes it, or nil for the page cache
}

// begin reserves a tensor for the caller, who must call end.
func (w *Writer) begin(name string) (*pen, error) {
	p, ok := w.layout.place[name]
	if !ok {
		return nil, fmt.Errorf("tensor %s: not in the layout", oneLine(name))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.states[name]
	switch {
	case w.closed:
		return nil, errClosed
	case w.failed != nil:
		return nil, w.failed
	case s.busy || s.written:
		return nil, fmt.Errorf("tensor %s: written twice", oneLine(name))
	}
	s.busy, s.onDisk = true, false
	w.dirty[p.shard] = true
	t := &w.layout.Shards[p.shard].Tensors[p.tensor]
	out := &pen{w: w, t: t, shard: p.shard, state: s}
	if f := w.direct[p.shard]; f != nil && t.Size >= directLeast {
		out.big = newDirectWriter(f, w.files[p.shard], t.Offset)
	}
	return out, nil
}

var errClosed = errors.New("the checkpoint writer is closed")

func (p *pen) write(b []byte) error {
	if int64(len(b)) > p.t.Size-p.at {
		return p.errorf("more than %d bytes", p.t.Size)
	}
	var err error
	if p.big != nil {
		err = p.big.write(b)
	} else {
		_, err = p.w.files[p.shard].WriteAt(b, p.t.Offset+p.at)
	}
	if err != nil {
		return writeError(p.w.shardPath(p.shard), err)
	}
	p.at += int64(len(b))
	p.sum = crc32.Update(p.sum, castagnoli, b)
	crashPoint("chunk")
	return nil
}

// end gives the tensor back, as written if err is nil and every byte is there.
func (p *pen) end(err error) error {
	if err == nil && p.at != p.t.Size {
		err = p.errorf("%d bytes, expected %d", p.at, p.t.Size)
	}
	if p.big != nil {
		if err == nil {
			err = writeError(p.w.shardPath(p.shard), p.big.flush())
		}
		p.big.release()
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.w.dirty[p.shard] = true // again: a sync may have come between
	p.state.busy, p.state.written, p.state.sum = false, err == nil, p.sum
	return err
}

func (p *pen) errorf(format string, args ...any) error {
	return fmt.Errorf("tensor %s: %s", oneLine(p.t.Name), fmt.Sprintf(format, args...))
}

// narrow writes data, which begins at element index of the tensor, in the tensor's dtype.
func (p *pen) narrow(data []float32, index int, scratch *[]byte) error {
	d := p.t.DType
	size := d.Size()
	if cap(*scratch) < chunkBytes {
		*scratch = make([]byte, chunkBytes)
	}
	for lo := 0; lo < len(data); lo += chunkBytes / size {
		part := data[lo:min(lo+chunkBytes/size, len(data))]
		b := (*scratch)[:len(part)*size]
		narrow(d, b, part)
		if i := firstNonFinite(d, b); i >= 0 {
			return p.notStorable(part[i], index+lo+i)
		}
		if err := p.write(b); err != nil {
			return err
		}
	}
	return nil
}

// notStorable says why a value became an infinity or a NaN in the tensor's dtype.
func (p *pen) notStorable(value float32, index int) error {
	text := strconv.FormatFloat(float64(value), 'g', -1, 32)
	where := position(index, p.t.Shape)
	if value-value != 0 { // NaN or infinite already
		return p.errorf("%s at %s, expected finite values", text, where)
	}
	return &Error{Kind: Unsupported, Tensor: p.t.Name, Got: text + " at " + where, Want: "a value within the range of " + p.t.DType.String(), Hint: "choose a wider --dtype"}
}

// WriteTensor writes a whole tensor, rounding its values to the planned dtype. Too few or too many values, a NaN, an
// infinity, or a value beyond the range of the dtype are errors, and leave the tensor unwritten.
func (w *Writer) WriteTensor(name string, data []float32) error {
	p, err := w.begin(name)
	if err != nil {
		return err
	}
	if want := p.t.Size / int64(p.t.DType.Size()); int64(len(data)) != want {
		return p.end(p.errorf("%d values, expected %d for shape %s", len(data), want, formatShape(p.t.Shape)))
	}
	return p.end(p.parts(func(put func([]float32) error) error { return put(data) }))
}

// WriteParts is [Writer.WriteTensor] for a tensor that never is in memory as a whole: parts gives its values from front to
// back, as much at a time as it likes, to put, and returns put's error or its own.
func (w *Writer) WriteParts(name string, parts func(put func(data []float32) error) error) error {
	p, err := w.begin(name)
	if err != nil {
		return err
	}
	return p.end(p.parts(parts))
}

// parts writes the values that f puts.
func (p *pen) parts(f func(put func([]float32) error) error) error {
	scratch := scratchPool.Get().(*[]byte)
	defer scratchPool.Put(scratch)
	var writeErr error
	at := 0
	err := f(func(data []float32) error {
		if writeErr == nil {
			writeErr = p.narrow(data, at, scratch)
			at += len(data)
		}
		return writeErr
	})
	if writeErr != nil {
		return inFile(p.w.shardPath(p.shard), writeErr)
	}
	return err
}

// WriteRaw writes a whole tensor given as little-endian bytes of the planned dtype, which must be finite.
func (w *Writer) WriteRaw(name string, b []byte) error {
	p, err := w.begin(name)
	if err != nil {
		return err
	}
	if int64(len(b)) != p.t.Size {
		return p.end(p.errorf("%d bytes, expected %d for %v of shape %s", len(b), p.t.Size, p.t.DType, formatShape(p.t.Shape)))
	}
	return p.end(guardFaults(func() error { // b may be the bytes of a mapped file
		if i := firstNonFinite(p.t.DType, b); i >= 0 {
			return p.notStorable(elementAt(p.t.DType, b, i), i)
		}
		return p.write(b)
	}))
}

// CopyFrom writes a whole tensor from a source, in bounded memory: byte for byte if the dtypes agree, else rounded to the
// planned dtype. The shapes must agree and the values be finite.
func (w *Writer) CopyFrom(name string, t *Tensor) error {
	p, err := w.begin(name)
	if err != nil {
		return err
	}
	if !slices.Equal(t.Shape, p.t.Shape) {
		return p.end(p.errorf("shape %s of %s, expected %s", formatShape(t.Shape), oneLine(t.Name), formatShape(p.t.Shape)))
	}
	scratch := scratchPool.Get().(*[]byte)
	defer scratchPool.Put(scratch)
	var values []float32
	var writeErr error
	readErr := t.stream(func(at int64, b []byte) error {
		if t.DType == p.t.DType {
			writeErr = p.write(b)
			return writeErr
		}
		size := t.DType.Size()
		if values == nil {
			values = make([]float32, len(b)/size)
		}
		values = values[:len(b)/size]
		widen(t.DType, values, b)
		writeErr = p.narrow(values, int(at)/size, scratch)
		return writeErr
	})
	if writeErr != nil {
		return p.end(writeErr)
	}
	return p.end(readErr)
}

// WriteFile writes a file that is no tensor, such as config.json, into the checkpoint. Files are not part of the journal:
// after a resume they must be written again.
func (w *Writer) WriteFile(name string, data []byte) error {
	if err := w.checkFileName(name); err != nil {
		return err
	}
	return w.writeFile(name, bytes.NewReader(data))
}

// CopyFile copies a file into the checkpoint, byte for byte, under its own base name. See WriteFile.
func (w *Writer) CopyFile(src string) error {
	name := filepath.Base(src)
	if err := w.checkFileName(name); err != nil {
		return err
	}
	f, _, err := openRegular(src)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.writeFile(name, f)
}

func (w *Writer) checkFileName(name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return errClosed
	case name == "." || name != filepath.Base(name) || !filepath.IsLocal(name):
		return fmt.Errorf("%s: expected a plain file name", oneLine(name))
	case name == indexFile || strings.HasSuffix(name, weightsSuffix):
		return fmt.Errorf("%s: a name for the layout's own files", oneLine(name))
	}
	return nil
}

func (w *Writer) writeFile(name string, r io.Reader) error {
	path := filepath.Join(w.staging, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return writeError(path, err)
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return writeError(path, errors.Join(err, os.Remove(path))) // no torn file may come into the output
	}
	return nil
}

// Identify gives the identity of an output that was created with it pending.
func (w *Writer) Identify(identity string) error {
	w.marking.Lock()
	defer w.marking.Unlock()
	if w.pending == nil {
		return errors.New("the checkpoint writer has an identity")
	}
	header := *w.pending
	header.Identity, header.Pending = identity, false
	if err := w.journal.append(header); err != nil {
		return w.fail(writeError(w.journalPath, err))
	}
	w.pending = nil
	return nil
}

// MarkDone makes a unit of work durable: it syncs the files that hold its tensors and records the unit in the journal, with
// a payload for the caller's own use. The tensors of the unit must be written; if none are named, the unit takes all that are
// written and in no unit yet.
func (w *Writer) MarkDone(unit string, payload []byte, tensors ...string) error {
	w.marking.Lock()
	defer w.marking.Unlock()
	if w.pending != nil {
		return fmt.Errorf("unit %s: done before the output has an identity", oneLine(unit))
	}
	entry := journalUnit{Unit: unit, Payload: payload, Tensors: make(map[string]uint32)}
	sync, err := w.take(&entry, tensors)
	if err != nil {
		return err
	}
	for _, i := range sync {
		if err := w.files[i].Sync(); err != nil {
			return w.fail(writeError(w.shardPath(i), err))
		}
	}
	crashPoint("synced")
	if err := w.journal.append(entry); err != nil {
		return w.fail(writeError(w.journalPath, err))
	}
	crashPoint("marked")
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range entry.Tensors {
		w.states[name].onDisk = true
	}
	w.done[unit] = slices.Clone(payload)
	return nil
}

// take fills in the tensors of a unit and returns the shards to sync.
func (w *Writer) take(entry *journalUnit, tensors []string) ([]int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errClosed
	}
	if w.failed != nil {
		return nil, w.failed
	}
	if _, twice := w.done[entry.Unit]; twice {
		return nil, fmt.Errorf("unit %s: done twice", oneLine(entry.Unit))
	}
	for _, name := range tensors {
		s := w.states[name]
		if s == nil || !s.written && !s.onDisk {
			return nil, fmt.Errorf("unit %s: tensor %s is not written", oneLine(entry.Unit), oneLine(name))
		}
		entry.Tensors[name] = s.sum
	}
	if len(tensors) == 0 {
		for name, s := range w.states {
			if s.written && !s.onDisk {
				entry.Tensors[name] = s.sum
			}
		}
	}
	var sync []int
	for name := range entry.Tensors {
		if i := w.layout.place[name].shard; w.dirty[i] {
			w.dirty[i] = false
			sync = append(sync, i)
		}
	}
	return sync, nil
}

// fail remembers an error after which nothing is known about what is on disk.
func (w *Writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = err
	}
	return err
}

// Done returns the payload of a unit that is in the journal, from this process or the one it resumes.
func (w *Writer) Done(unit string) (payload []byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	payload, ok = w.done[unit]
	return slices.Clone(payload), ok
}

// Commit checks that every tensor is written, makes everything durable and renames the staging folder to the output. An
// output that is replaced is moved aside first, back if that fails, and removed last.
func (w *Writer) Commit() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return errClosed
	}
	if w.failed != nil {
		return w.failed
	}
	var missing []string
	for name, s := range w.states {
		if !s.written && !s.onDisk {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d of %d tensors not written, the first being %s", len(missing), len(w.states), oneLine(slices.Min(missing)))
	}
	for i, f := range w.files {
		info, err := f.Stat()
		if err == nil && info.Size() != w.layout.Shards[i].Size {
			err = fmt.Errorf("%d bytes, expected %d", info.Size(), w.layout.Shards[i].Size)
		}
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			w.failed = writeError(w.shardPath(i), err)
			return w.failed
		}
	}
	w.closed = true
	if err := w.closeFiles(); err != nil {
		return err
	}
	if err := os.RemoveAll(w.keptPath(".")); err != nil {
		return err
	}
	if err := syncDir(w.staging); err != nil {
		return writeError(w.staging, err)
	}
	crashPoint("complete")
	return w.replace()
}

// replace puts the staging folder in the place of the output.
func (w *Writer) replace() error {
	if err := w.checkOut(w.opts.Force); err != nil {
		return err
	}
	replacing, err := exists(w.out)
	if err != nil {
		return err
	}
	if replacing {
		if err := os.Rename(w.out, w.old); err != nil {
			return err
		}
		crashPoint("aside")
	}
	if err := os.Rename(w.staging, w.out); err != nil {
		if replacing {
			err = errors.Join(err, os.Rename(w.old, w.out))
		}
		return err
	}
	crashPoint("renamed")
	if err := syncDir(filepath.Dir(w.out)); err != nil {
		return writeError(w.out, err)
	}
	if replacing {
		if err := os.RemoveAll(w.old); err != nil {
			return fmt.Errorf("the output is complete, but the one it replaces cannot be removed: %w", err)
		}
		crashPoint("removed")
	}
	w.over = true
	return w.journal.remove()
}

// Abort ends the work without an output. With keep the staging folder and its journal stay, to be resumed; else they are
// removed, and so are the parents that Create made. After a Commit that succeeded it does nothing, so that it can be
// deferred.
func (w *Writer) Abort(keep bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil
	}
	w.over = true
	var errs []error
	if !w.closed {
		w.closed = true
		errs = append(errs, w.closeFiles())
	}
	if keep {
		return errors.Join(append(errs, w.journal.close())...)
	}
	errs = append(errs, os.RemoveAll(w.staging), w.journal.remove())
	w.removeParents()
	return errors.Join(errs...)
}

func (w *Writer) closeFiles() error {
	var errs []error
	for _, f := range slices.Concat(w.direct, w.files) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// removeParents removes the parents that Create made, as far as they are empty.
func (w *Writer) removeParents() {
	for _, dir := range w.parents {
		if os.Remove(dir) != nil {
			return
		}
	}
}
