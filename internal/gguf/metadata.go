package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// KV is one entry of the metadata. Value is a string, bool, uint32, int32, float32, []string, []int32 or []float32, which
// stand for GGUF's types of those names.
type KV struct {
	Key   string
	Value any
}

// Numbers of value types in the file.
const (
	typeUint32  = 4
	typeInt32   = 5
	typeFloat32 = 6
	typeBool    = 7
	typeString  = 8
	typeArray   = 9
)

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// appendKV appends an entry: key, type and value; of an array also its elements' type and their number.
func appendKV(b []byte, kv KV) []byte {
	b = appendString(b, kv.Key)
	u32 := binary.LittleEndian.AppendUint32
	array := func(kind uint32, n int) {
		b = u32(u32(b, typeArray), kind)
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	switch v := kv.Value.(type) {
	case string:
		b = appendString(u32(b, typeString), v)
	case bool:
		b = u32(b, typeBool)
		if v {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	case uint32:
		b = u32(u32(b, typeUint32), v)
	case int32:
		b = u32(u32(b, typeInt32), uint32(v))
	case float32:
		b = u32(u32(b, typeFloat32), math.Float32bits(v))
	case []string:
		array(typeString, len(v))
		for _, s := range v {
			b = appendString(b, s)
		}
	case []int32:
		array(typeInt32, len(v))
		for _, n := range v {
			b = u32(b, uint32(n))
		}
	case []float32:
		array(typeFloat32, len(v))
		for _, x := range v {
			b = u32(b, math.Float32bits(x))
		}
	default:
		panic(fmt.Sprintf("gguf: %s has a value of type %T", kv.Key, kv.Value))
	}
	return b
}
