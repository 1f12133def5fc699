package tokens

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unicode/utf8"
)

// maxLine bounds a line of JSON, and with it the memory that one line can take.
const maxLine = 64 << 20

// eachLine calls f with the lines of a file that are not blank and their numbers, from 1, until f returns false or an
// error. A line is valid UTF-8 and at most maxLine bytes long.
func eachLine(path string, f func(number int, line []byte) (more bool, err error)) error {
	file, err := os.Open(path)
	if err != nil {
		return failed(path, err)
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(make([]byte, 64<<10), maxLine)
	number := 0
	for scanner.Scan() {
		number++
		line := scanner.Bytes()
		if i := invalidUTF8(line); i >= 0 {
			return notUTF8(path, fmt.Sprintf("line %d: byte 0x%02x at offset %d of the line", number, line[i], i))
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		more, err := f(number, line)
		if err != nil || !more {
			return err
		}
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		return bad(path, fmt.Sprintf("line %d: more than %d bytes", number+1, maxLine), "JSON lines")
	}
	if err := scanner.Err(); err != nil {
		return failed(path, err)
	}
	return nil
}

// invalidUTF8 returns the offset of the first byte that is not part of valid UTF-8, or -1.
func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

func notUTF8(path, got string) error {
	e := bad(path, got, "UTF-8 text")
	e.Hint = "convert the file to UTF-8 first, for example with iconv"
	return e
}

// pathless takes the path off a file system error; the message names it already.
func pathless(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
