package tokens

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
)

// npyFile writes an array as NumPy does: the header padded with spaces to a multiple of 64 and ended by a newline.
func npyFile(descr, order, shape string, data []byte) string {
	dict := fmt.Sprintf("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }", descr, order, shape)
	for (10+len(dict)+1)%64 != 0 {
		dict += " "
	}
	dict += "\n"
	head := append([]byte("\x93NUMPY\x01\x00"), byte(len(dict)), byte(len(dict)>>8))
	return string(head) + dict + string(data)
}

func encoded(order binary.AppendByteOrder, values any) []byte {
	var b bytes.Buffer
	if err := binary.Write(&b, order.(binary.ByteOrder), values); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestNumPy(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	for _, c := range []struct {
		descr, order, shape string
		data                []byte
	}{
		{"<u2", "False", "(2, 3)", encoded(le, []uint16{1, 2, 3, 4, 5, 6})},
		{"|u1", "False", "(2, 3)", []byte{1, 2, 3, 4, 5, 6}},
		{"|i1", "False", "(2, 3)", []byte{1, 2, 3, 4, 5, 6}},
		{"<i2", "False", "(2, 3)", encoded(le, []int16{1, 2, 3, 4, 5, 6})},
		{"<i4", "False", "(2, 3)", encoded(le, []int32{1, 2, 3, 4, 5, 6})},
		{"<i8", "False", "(2, 3)", encoded(le, []int64{1, 2, 3, 4, 5, 6})},
		{"<u4", "False", "(2, 3)", encoded(le, []uint32{1, 2, 3, 4, 5, 6})},
		{"<u8", "False", "(2, 3)", encoded(le, []uint64{1, 2, 3, 4, 5, 6})},
		{">u2", "False", "(2, 3)", encoded(be, []uint16{1, 2, 3, 4, 5, 6})},
		{">i8", "False", "(2, 3)", encoded(be, []int64{1, 2, 3, 4, 5, 6})},
		{"<i4", "True", "(2, 3)", encoded(le, []int32{1, 4, 2, 5, 3, 6})},
	} {
		path := write(t, "a.npy", npyFile(c.descr, c.order, c.shape, c.data))
		for most, want := range map[int]string{0: "[[1 2 3] [4 5 6]]", 3: "[[1 2 3]]", 5: "[[1 2 3]]", 2: "[[1 2]]", 6: "[[1 2 3] [4 5 6]]"} {
			got, err := IDs(path, Options{MaxTokens: most, Vocab: 7})
			if err != nil || fmt.Sprint(got) != want {
				t.Errorf("%s, Fortran order %s, at most %d: got %v, %v; want %s", c.descr, c.order, most, got, err, want)
			}
		}
	}
	for _, order := range []string{"True", "False"} {
		path := write(t, "a.npy", npyFile("<i2", order, "(5,)", encoded(le, []int16{1, 2, 3, 4, 5})))
		got, err := IDs(path, Options{Context: 2, Vocab: 7})
		if err != nil || fmt.Sprint(got) != "[[1 2] [3 4]]" {
			t.Errorf("one dimension: got %v, %v", got, err)
		}
	}
}

func TestNumPyVersion2(t *testing.T) {
	one := npyFile("<i2", "False", "(1, 2)", encoded(binary.LittleEndian, []int16{3, 4}))
	two := "\x93NUMPY\x02\x00" + one[8:10] + "\x00\x00" + one[10:]
	got, err := IDs(write(t, "a.npy", two), Options{Vocab: 5})
	if err != nil || fmt.Sprint(got) != "[[3 4]]" {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestNumPyGolden reads a file that NumPy wrote.
func TestNumPyGolden(t *testing.T) {
	got, err := IDs("../../testdata/gqa/golden/ids.npy", Options{Vocab: 1024})
	if err != nil || len(got) != 2 || len(got[0]) != 96 || len(got[1]) != 96 || got[0][0] != 0 || got[1][0] != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNumPyRefuses(t *testing.T) {
	good := npyFile("<i2", "False", "(2, 2)", encoded(binary.LittleEndian, []int16{1, 2, 3, 4}))
	for _, c := range []struct {
		content string
		says    []string
	}{
		{"", []string{"no NumPy header"}},
		{"\x93NUMPY", []string{"no NumPy header"}},
		{"PK\x03\x04aaaaaaaaaaaa", []string{"no NumPy header"}},
		{"\x93NUMPY\x03\x00\x10\x00\x00\x00", []string{"version 3"}},
		{"\x93NUMPY\x02\x00\xff\xff\xff\xffaaaa", []string{"header of 4294967295 bytes"}},
		{"\x93NUMPY\x01\x00\xff\xffaaaa", []string{"header of 65535 bytes"}},
		{"\x93NUMPY\x01\x00\x04\x00aaaaaaaa", []string{"the NumPy header aaaa"}},
		{strings.Replace(good, "'descr'", "'descx'", 1), []string{"the NumPy header"}},
		{strings.Replace(good, "\n", " ", 1), []string{"the NumPy header"}},
		{npyFile("<i2", "None", "(2, 2)", nil), []string{"the NumPy header"}},
		{npyFile("<f4", "False", "(1, 1)", make([]byte, 4)), []string{`"<f4"`, "integers"}},
		{npyFile("|b1", "False", "(1, 1)", make([]byte, 1)), []string{`"|b1"`, "integers"}},
		{npyFile("<i3", "False", "(1, 1)", make([]byte, 3)), []string{`"<i3"`}},
		{npyFile("<i2", "False", "()", make([]byte, 2)), []string{"0 dimensions", "[sequences, length]"}},
		{npyFile("<i2", "False", "(1, 1, 1)", make([]byte, 2)), []string{"3 dimensions"}},
		{npyFile("<i2", "False", "(0,)", nil), []string{"no tokens"}},
		{npyFile("<i2", "False", "(5, 0)", nil), []string{"no tokens"}},
		{npyFile("<i2", "False", "(99999999999999999999, 2)", nil), []string{"99999999999999999999"}},
		{npyFile("<i2", "False", "(4294967296, 4294967296)", nil), []string{"0 bytes of data"}},
		{npyFile("<i2", "False", "(3037000500, 6074001000)", nil), []string{"0 bytes of data"}},
		{good[:len(good)-1], []string{"7 bytes of data", "2 x 2 elements of 2 bytes"}},
		{good + "x", []string{"9 bytes of data"}},
		{good + "xx", []string{"10 bytes of data"}},
		{npyFile("<i2", "False", "(2, 2)", encoded(binary.LittleEndian, []int16{1, 2, 3, -4})), []string{"sequence 1, position 1", "id -4"}},
		{npyFile("<i2", "True", "(2, 2)", encoded(binary.LittleEndian, []int16{1, 2, 300, 4})), []string{"sequence 0, position 1", "id 300"}},
		{npyFile("<u8", "False", "(1, 1)", encoded(binary.LittleEndian, []uint64{math.MaxUint64})), []string{"sequence 0, position 0"}},
	} {
		path := write(t, "a.npy", c.content)
		_, err := IDs(path, Options{Vocab: 10})
		wantError(t, err, path, c.says...)
	}
}

func FuzzNumPy(f *testing.F) {
	le := binary.LittleEndian
	f.Add([]byte(npyFile("<i2", "False", "(2, 2)", encoded(le, []int16{1, 2, 3, 4}))))
	f.Add([]byte(npyFile("<u8", "True", "(2, 2)", encoded(le, []uint64{1, 2, 3, 4}))))
	f.Add([]byte(npyFile("|u1", "False", "(4,)", []byte{1, 2, 3, 4})))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := write(t, "a.npy", "")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := IDs(path, Options{Context: 3, MaxTokens: 10, Vocab: 10})
		checkSequences(t, got, err)
	})
}
