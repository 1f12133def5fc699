package tokens

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"

	"github.com/sbinet/npyio/npy"
)

// maxNumPyHeader bounds the claimed length of a header before anything is allocated for it.
const maxNumPyHeader = 64 << 10

// numPyHeader is the dictionary as NumPy writes it. Package npy finds its parts by searching for substrings, and runs
// out of bounds where they are missing or in another order.
var numPyHeader = regexp.MustCompile(`^\{'descr': '([^']*)', 'fortran_order': (?:True|False), 'shape': \([0-9, ]*\), \} *\n$`)

// numPyInteger is an integer's descr.
var numPyInteger = regexp.MustCompile(`^[<>|]?([iu]([1248]))$`)

// numPy is an integer array [rows, cols]; next fills dst with the elements that follow in the file.
type numPy struct {
	path       string
	rows, cols int
	fortran    bool
	next       func(dst []int) error
}

// readNumPy reads an integer array of shape [sequences, length], or [length] for one sequence.
func readNumPy(path string, c *collector) error {
	f, err := os.Open(path)
	if err != nil {
		return failed(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return failed(path, err)
	}
	a, err := openNumPy(path, bufio.NewReaderSize(f, 1<<20), info.Size())
	if err != nil {
		return err
	}
	if a.rows == 0 || a.cols == 0 {
		return nil
	}
	if a.fortran {
		return a.readColumns(c)
	}
	return a.readRows(c)
}

func (a *numPy) readRows(c *collector) error {
	for row := 0; row < a.rows && !c.full(); row++ {
		// What is past the bound is never looked at, in a row as in the file.
		n := a.cols
		if c.MaxTokens > 0 {
			n = min(n, c.MaxTokens)
		}
		ids := make([]int, n)
		if err := a.next(ids); err != nil {
			return failed(a.path, err)
		}
		if err := c.check(a.path, fmt.Sprintf("sequence %d", row), ids); err != nil {
			return err
		}
		c.add(ids)
		if n < a.cols {
			break
		}
	}
	return nil
}

// readColumns reads an array in Fortran order, the first index fastest, of which only whole reading gives a row.
func (a *numPy) readColumns(c *collector) error {
	keep := a.rows
	if c.MaxTokens > 0 {
		keep = min(keep, c.MaxTokens/a.cols+1)
	}
	ids := make([]int, keep*a.cols)
	column := make([]int, a.rows)
	for j := range a.cols {
		if err := a.next(column); err != nil {
			return failed(a.path, err)
		}
		for i := range keep {
			ids[i*a.cols+j] = column[i]
		}
	}
	for i := 0; i < keep && !c.full(); i++ {
		row := ids[i*a.cols : (i+1)*a.cols]
		if err := c.check(a.path, fmt.Sprintf("sequence %d", i), row); err != nil {
			return err
		}
		c.add(row)
	}
	return nil
}

// openNumPy reads the header and checks that the file, of size bytes, holds just the array that it describes.
func openNumPy(path string, r *bufio.Reader, size int64) (*numPy, error) {
	const want = "a NumPy array of token ids"
	prefix, err := r.Peek(12)
	if err != nil || !bytes.Equal(prefix[:6], npy.Magic[:]) {
		return nil, bad(path, "no NumPy header", want)
	}
	begin, length := int64(10), int64(binary.LittleEndian.Uint16(prefix[8:]))
	switch prefix[6] {
	case 1:
	case 2:
		begin, length = 12, int64(binary.LittleEndian.Uint32(prefix[8:]))
	default:
		return nil, bad(path, fmt.Sprintf("NumPy format version %d", prefix[6]), "version 1 or 2")
	}
	if length > maxNumPyHeader || begin+length > size {
		return nil, bad(path, fmt.Sprintf("a header of %d bytes in a file of %d", length, size), want)
	}
	header := make([]byte, begin+length)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, failed(path, err)
	}
	dict := numPyHeader.FindSubmatch(header[begin:])
	if dict == nil {
		return nil, bad(path, "the NumPy header "+clip(bytes.TrimSpace(header[begin:])), want)
	}
	integer := numPyInteger.FindSubmatch(dict[1])
	if integer == nil {
		return nil, bad(path, fmt.Sprintf("elements of type %q", dict[1]), "integers")
	}
	n, err := npy.NewReader(full{io.MultiReader(bytes.NewReader(header), r)})
	if err != nil {
		return nil, bad(path, err.Error(), want)
	}
	a := &numPy{path: path, rows: 1, fortran: n.Header.Descr.Fortran}
	switch shape := n.Header.Descr.Shape; len(shape) {
	case 1:
		a.cols, a.fortran = shape[0], false
	case 2:
		a.rows, a.cols = shape[0], shape[1]
	default:
		return nil, bad(path, fmt.Sprintf("an array of %d dimensions", len(shape)), "two, [sequences, length]")
	}
	data, width := size-begin-length, int64(integer[2][0]-'0')
	if data%width != 0 || !isProduct(data/width, int64(a.rows), int64(a.cols)) {
		return nil, bad(path, fmt.Sprintf("%d bytes of data", data), fmt.Sprintf("%d x %d elements of %d bytes", a.rows, a.cols, width))
	}
	a.next = integers[string(integer[1])](n)
	return a, nil
}

// isProduct reports whether n = a*b, for a and b of any size above 0.
func isProduct(n, a, b int64) bool {
	if a == 0 || b == 0 {
		return n == 0
	}
	return n%a == 0 && n/a == b
}

// integers are the integer types by the end of their descr.
var integers = map[string]func(*npy.Reader) func(dst []int) error{
	"i1": elements[int8], "i2": elements[int16], "i4": elements[int32], "i8": elements[int64],
	"u1": elements[uint8], "u2": elements[uint16], "u4": elements[uint32], "u8": elements[uint64],
}

// elements returns a function that reads elements of type T.
func elements[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64](r *npy.Reader) func(dst []int) error {
	var buf []T
	return func(dst []int) error {
		if len(buf) != len(dst) {
			buf = make([]T, len(dst))
		}
		if err := r.Read(&buf); err != nil {
			return err
		}
		for i, v := range buf {
			id := int(v)
			if T(id) != v || (id < 0) != (v < 0) {
				id = math.MaxInt // larger than any vocabulary, as v is
			}
			dst[i] = id
		}
		return nil
	}
}

// full makes every Read fill its slice, and a file that ends too early an error: package npy takes a short read for a
// whole one.
type full struct{ r io.Reader }

func (f full) Read(p []byte) (int, error) {
	n, err := io.ReadFull(f.r, p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
