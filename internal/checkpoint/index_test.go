package checkpoint

import (
	"maps"
	"strings"
	"testing"
)

var hostileIndexes = []struct {
	name   string
	text   string
	kind   Kind
	tensor string
	says   []string
}{
	{"empty", ``, BadSource, "", []string{"not JSON"}},
	{"not JSON", `{"weight_map":`, BadSource, "", []string{"not JSON"}},
	{"array", `[]`, BadSource, "", []string{"an array", "a JSON object"}},
	{"null", `null`, BadSource, "", []string{"null"}},
	{"text", `"weight_map"`, BadSource, "", []string{"a JSON object"}},
	{"bad UTF-8", "{\"weight_map\":{\"a\xff\":\"m.safetensors\"}}", BadSource, "", []string{"UTF-8"}},
	{"no weight_map", `{"metadata":{}}`, BadSource, "", []string{"weight_map"}},
	{"empty weight_map", `{"weight_map":{}}`, BadSource, "", []string{"empty weight_map"}},
	{"weight_map is no object", `{"weight_map":["m.safetensors"]}`, BadSource, "", []string{"weight_map", "an array"}},
	{"two weight_maps", `{"weight_map":{"a":"m.safetensors"},"weight_map":{"b":"m.safetensors"}}`, BadSource, "", []string{"duplicate key", "weight_map"}},
	{"duplicate tensor", `{"weight_map":{"a":"m.safetensors","a":"n.safetensors"}}`, BadSource, "", []string{"duplicate key", `"a"`}},
	{"shard is no text", `{"weight_map":{"a":1}}`, BadSource, "a", []string{"the number 1"}},
	{"parent", `{"weight_map":{"a":"../m.safetensors"}}`, BadSource, "a", []string{"../m.safetensors", "same folder"}},
	{"dots", `{"weight_map":{"a":".."}}`, BadSource, "a", []string{`".."`}},
	{"dot", `{"weight_map":{"a":"."}}`, BadSource, "a", []string{`"."`}},
	{"empty name", `{"weight_map":{"a":""}}`, BadSource, "a", []string{`""`}},
	{"absolute", `{"weight_map":{"a":"/etc/m.safetensors"}}`, BadSource, "a", []string{"/etc"}},
	{"subfolder", `{"weight_map":{"a":"sub/m.safetensors"}}`, BadSource, "a", []string{"sub/"}},
	{"backslash", `{"weight_map":{"a":"..\\m.safetensors"}}`, BadSource, "a", []string{"plain name"}},
	{"drive", `{"weight_map":{"a":"C:m.safetensors"}}`, BadSource, "a", []string{"C:m"}},
	{"NUL", `{"weight_map":{"a":"m\u0000.safetensors"}}`, BadSource, "a", []string{"plain name"}},
	{"newline", `{"weight_map":{"a":"m\n.safetensors"}}`, BadSource, "a", []string{"plain name"}},
	{"pickle", `{"weight_map":{"a":"pytorch_model-00001-of-00002.bin"}}`, Unsupported, "a", []string{"pytorch_model-00001-of-00002.bin", "safetensors"}},
}

func TestHostileIndexes(t *testing.T) {
	good := string(rawFile(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4))
	for _, c := range hostileIndexes {
		t.Run(c.name, func(t *testing.T) {
			dir := folder(t, map[string]string{"config.json": "{}", "m.safetensors": good, indexFile: c.text})
			_, err := Open(dir)
			wantError(t, err, c.kind, append(c.says, indexFile)...)
			wantTensor(t, err, c.tensor)
		})
	}
}

func TestParseIndex(t *testing.T) {
	got, err := parseIndex([]byte(`{"metadata":{"total_size":12.0,"x":[1,{"weight_map":{}}]},"weight_map":{"b":"m-2.safetensors","a":"m-1.safetensors"},"z":null}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"a": "m-1.safetensors", "b": "m-2.safetensors"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestShardNumber(t *testing.T) {
	for name, want := range map[string][3]any{
		"model-00001-of-00003.safetensors":   {"model", 1, 3},
		"a-b-00012-of-00012.safetensors":     {"a-b", 12, 12},
		"model-100000-of-100001.safetensors": {"model", 100000, 100001},
	} {
		prefix, i, n, ok := shardNumber(name)
		if !ok || prefix != want[0] || i != want[1] || n != want[2] {
			t.Errorf("%s: %q %d %d %v", name, prefix, i, n, ok)
		}
	}
	for _, name := range []string{
		"model.safetensors", "model-00001-of-00003.bin", "model-00000-of-00003.safetensors", "model-00004-of-00003.safetensors",
		"model-1-of-3.safetensors", "model-00001-of-0003.safetensors", "model-+0001-of-00003.safetensors", "-of-.safetensors", "",
		strings.Repeat("-of-", 1000) + ".safetensors",
	} {
		if _, _, _, ok := shardNumber(name); ok {
			t.Errorf("%s: taken for a shard", name)
		}
	}
}
