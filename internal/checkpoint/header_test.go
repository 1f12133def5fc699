package checkpoint

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// hostileHeader is a file that must be refused, and what the error must say.
type hostileHeader struct {
	name   string
	header string
	data   int
	kind   Kind
	tensor string
	says   []string
}

const (
	w4   = `"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`
	v4at = `"v":{"dtype":"BF16","shape":[2],"data_offsets":[%d,%d]}`
)

var hostileHeaders = []hostileHeader{
	{"empty header", ``, 0, BadSource, "", []string{"begin with {"}},
	{"leading space", ` {` + w4 + `}`, 4, BadSource, "", []string{"begin with {"}},
	{"array", `[]`, 0, BadSource, "", []string{"begin with {"}},
	{"not JSON", `{"w":`, 4, BadSource, "", []string{"not JSON"}},
	{"two values", `{` + w4 + `}{}`, 4, BadSource, "", []string{"not JSON"}},
	{"trailing comma", `{` + w4 + `,}`, 4, BadSource, "", []string{"not JSON"}},
	{"deep nesting", `{"w":` + strings.Repeat(`[`, 100_000) + strings.Repeat(`]`, 100_000) + `}`, 4, BadSource, "", []string{"not JSON"}},
	{"bad UTF-8", "{\"w\xff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, BadSource, "", []string{"UTF-8"}},
	{"unpaired surrogate", `{"\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, BadSource, "", []string{"surrogate"}},
	{"tensor is no object", `{"w":3}`, 0, BadSource, "w", []string{"the number 3"}},
	{"tensor is null", `{"w":null}`, 0, BadSource, "w", []string{"null"}},
	{"duplicate tensor", `{` + w4 + `,` + w4 + `}`, 4, BadSource, "", []string{"duplicate key", `"w"`}},
	{"duplicate tensor, escaped", `{` + w4 + `,"\u0077":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, BadSource, "", []string{"duplicate key", `"w"`}},
	{"duplicate metadata", `{"__metadata__":{},"__metadata__":{},` + w4 + `}`, 4, BadSource, "", []string{"duplicate key", "__metadata__"}},
	{"duplicate key in metadata", `{"__metadata__":{"a":"1","a":"2"},` + w4 + `}`, 4, BadSource, "", []string{"duplicate key", `"a"`}},
	{"duplicate key in tensor", `{"w":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"duplicate key", "shape"}},
	{"metadata is no object", `{"__metadata__":[],` + w4 + `}`, 4, BadSource, "", []string{"__metadata__", "an array"}},
	{"metadata value is no string", `{"__metadata__":{"a":1},` + w4 + `}`, 4, BadSource, "", []string{"__metadata__.a", "a string"}},
	{"no dtype", `{"w":{"shape":[1],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"dtype"}},
	{"no shape", `{"w":{"dtype":"F32","data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"shape"}},
	{"no offsets", `{"w":{"dtype":"F32","shape":[1]}}`, 4, BadSource, "w", []string{"data_offsets"}},
	{"another key", `{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"stride":[1]}}`, 4, BadSource, "w", []string{"stride"}},
	{"unknown dtype", `{"w":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}`, 4, Unsupported, "w", []string{"F31", "BF16"}},
	{"lower-case dtype", `{"w":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}}`, 4, Unsupported, "w", []string{"f32"}},
	{"dtype is no string", `{"w":{"dtype":32,"shape":[1],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"the number 32"}},
	{"negative dimension", `{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"-1"}},
	{"fractional dimension", `{"w":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"1.0"}},
	{"exponent dimension", `{"w":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"1e0"}},
	{"text dimension", `{"w":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"integers"}},
	{"dimension of 2^63", `{"w":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"9223372036854775808"}},
	{"dimension of 2^64+1", `{"w":{"dtype":"F32","shape":[18446744073709551617],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"18446744073709551617"}},
	{"product overflows to 4 bytes", `{"w":{"dtype":"F32","shape":[4294967296,4294967296,1],"data_offsets":[0,0]}}`, 0, BadSource, "w", []string{"overflow"}},
	{"bytes overflow", `{"w":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}`, 0, BadSource, "w", []string{"overflow"}},
	{"product overflows before a zero", `{"w":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}`, 0, BadSource, "w", []string{"overflow"}},
	{"product overflows behind a zero", `{"w":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}`, 0, BadSource, "w", []string{"overflow"}},
	{"65 dimensions", `{"w":{"dtype":"F32","shape":[1` + strings.Repeat(`,1`, 64) + `],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"64"}},
	{"shape is no array", `{"w":{"dtype":"F32","shape":1,"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"an array"}},
	{"nested shape", `{"w":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"integers"}},
	{"one offset", `{"w":{"dtype":"F32","shape":[1],"data_offsets":[4]}}`, 4, BadSource, "w", []string{"data_offsets"}},
	{"three offsets", `{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}`, 4, BadSource, "w", []string{"2"}},
	{"negative offset", `{"w":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`, 4, BadSource, "w", []string{"-4"}},
	{"end before beginning", `{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 4, BadSource, "w", []string{"[4, 0]"}},
	{"fewer bytes than shape", `{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"4 bytes", "8"}},
	{"more bytes than shape", `{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"4 bytes", "2"}},
	{"bytes for no elements", `{"w":{"dtype":"F32","shape":[0],"data_offsets":[0,4]}}`, 4, BadSource, "w", []string{"4 bytes", "0"}},
	{"no bytes for a scalar", `{"w":{"dtype":"F32","shape":[],"data_offsets":[0,0]}}`, 0, BadSource, "w", []string{"4"}},
	{"half a byte", `{"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}`, 1, BadSource, "w", []string{"whole number of bytes"}},
	{"truncated data", `{` + w4 + `}`, 3, BadSource, "w", []string{"[0, 4]", "3 bytes"}},
	{"data behind the last tensor", `{` + w4 + `}`, 5, BadSource, "", []string{"5 bytes", "4"}},
	{"data without tensors", `{}`, 1, BadSource, "", []string{"1 bytes", "0"}},
	{"gap at the beginning", `{` + fmt.Sprintf(v4at, 2, 6) + `}`, 6, BadSource, "v", []string{"gap of 2"}},
	{"gap between", `{` + w4 + `,` + fmt.Sprintf(v4at, 6, 10) + `}`, 10, BadSource, "v", []string{"gap of 2"}},
	{"overlap", `{` + w4 + `,` + fmt.Sprintf(v4at, 2, 6) + `}`, 6, BadSource, "v", []string{"overlap", "w"}},
	{"same place", `{` + w4 + `,` + fmt.Sprintf(v4at, 0, 4) + `}`, 4, BadSource, "v", []string{"overlap"}},
	{"far out of range", `{"w":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775800,9223372036854775804]}}`, 4, BadSource, "w", []string{"4 bytes of data"}},
}

// lawfulHeader is a file that must be read.
var lawfulHeaders = []struct {
	name   string
	header string
	data   int
	want   string // tensors in the order of their data
}{
	{"no tensors", `{}`, 0, ""},
	{"metadata only", `{"__metadata__":{"format":"pt"}}`, 0, ""},
	{"one", `{` + w4 + `}`, 4, "w F32 [1] 0-4"},
	{"padded", `{` + w4 + "} \n\t ", 4, "w F32 [1] 0-4"},
	{"keys in another order", `{` + fmt.Sprintf(v4at, 4, 8) + `,` + w4 + `}`, 8, "w F32 [1] 0-4; v BF16 [2] 4-8"},
	{"fields in another order", `{"w":{"data_offsets":[0,2],"dtype":"F16","shape":[1,1]}}`, 2, "w F16 [1, 1] 0-2"},
	{"scalar", `{"w":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}`, 2, "w BF16 [] 0-2"},
	{"no elements", `{` + w4 + `,"e":{"dtype":"F32","shape":[3,0],"data_offsets":[4,4]}}`, 4, "w F32 [1] 0-4; e F32 [3, 0] 4-4"},
	{"no elements first", `{` + w4 + `,"e":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`, 4, "e F32 [0] 0-0; w F32 [1] 0-4"},
	{"an odd offset", `{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}`, 5, "b U8 [1] 0-1; w F32 [1] 1-5"},
	{"a type that the library lacks", `{"q":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]}}`, 3, "q F8_E4M3 [3] 0-3"},
	{"six bits", `{"q":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}`, 3, "q F6_E2M3 [4] 0-3"},
	{"a name in escapes", `{"\u0077\n":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4, "w\n F32 [1] 0-4"},
}

func TestHostileHeaders(t *testing.T) {
	for _, c := range hostileHeaders {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(folder(t, map[string]string{"config.json": "{}", "model.safetensors": string(rawFile(c.header, c.data))}), "model.safetensors")
			s, err := Open(path)
			if err == nil {
				s.Close()
			}
			wantError(t, err, c.kind, append(c.says, path)...)
			wantTensor(t, err, c.tensor)
		})
	}
}

func TestLawfulHeaders(t *testing.T) {
	for _, c := range lawfulHeaders {
		t.Run(c.name, func(t *testing.T) {
			entries, err := parseHeader([]byte(c.header), int64(c.data))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, fmt.Sprintf("%s %v %s %d-%d", e.name, e.dtype, formatShape(e.shape), e.begin, e.end))
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
			s, err := Open(folder(t, map[string]string{"config.json": "{}", "model.safetensors": string(rawFile(c.header, c.data))}))
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
		})
	}
}

func TestHostilePrefix(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
		says []string
	}{
		{"empty file", nil, []string{"0 bytes", "8-byte"}},
		{"7 bytes", make([]byte, 7), []string{"7 bytes", "8-byte"}},
		{"header length of zero", make([]byte, 8), []string{"begin with {"}},
		{"10 GB header", binary.LittleEndian.AppendUint64(nil, 10_000_000_000), []string{"10000000000", "100000000"}},
		{"largest length", binary.LittleEndian.AppendUint64(nil, 1<<64-1), []string{"18446744073709551615"}},
		{"header longer than the file", append(binary.LittleEndian.AppendUint64(nil, 100), "{}"...), []string{"100 bytes in a file of 10"}},
		{"header one byte longer than the file", append(binary.LittleEndian.AppendUint64(nil, 3), "{}"...), []string{"3 bytes in a file of 10"}},
		{"largest lawful length in a short file", append(binary.LittleEndian.AppendUint64(nil, maxHeader), "{}"...), []string{"file of 10"}},
		{"git-lfs pointer", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"), []string{"header length"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, map[string]string{"config.json": "{}", "model.safetensors": string(c.file)})
			s, err := Open(dir)
			if err == nil {
				s.Close()
			}
			wantError(t, err, BadSource, append(c.says, "model.safetensors")...)
		})
	}
}
