package checkpoint

import (
	"fmt"
	"strings"
)

// DType is the type of a tensor's elements. The zero value is no type.
type DType uint8

// The types that weights may have. A [Source] also lists tensors of the other types of the safetensors format, so that
// a plan can drop or refuse them by name; [DType.IsFloat] is false for those and reading them is an error.
const (
	F32 DType = iota + 1
	F16
	BF16

	f64
	c64
	boolean
	u8
	i8
	u16
	i16
	u32
	i32
	u64
	i64
	f8e5m2
	f8e4m3
	f8e8m0
	f8e5m2fnuz
	f8e4m3fnuz
	f6e2m3
	f6e3m2
	f4
)

// dtypes holds, for every DType, its name in a safetensors header and the bits of one element.
var dtypes = [...]struct {
	name string
	bits int
}{
	F32: {"F32", 32}, F16: {"F16", 16}, BF16: {"BF16", 16},
	f64: {"F64", 64}, c64: {"C64", 64}, boolean: {"BOOL", 8},
	u8: {"U8", 8}, i8: {"I8", 8}, u16: {"U16", 16}, i16: {"I16", 16},
	u32: {"U32", 32}, i32: {"I32", 32}, u64: {"U64", 64}, i64: {"I64", 64},
	f8e5m2: {"F8_E5M2", 8}, f8e4m3: {"F8_E4M3", 8}, f8e8m0: {"F8_E8M0", 8},
	f8e5m2fnuz: {"F8_E5M2FNUZ", 8}, f8e4m3fnuz: {"F8_E4M3FNUZ", 8},
	f6e2m3: {"F6_E2M3", 6}, f6e3m2: {"F6_E3M2", 6}, f4: {"F4", 4},
}

// headerDTypes is the inverse of dtypes' names.
var headerDTypes = func() map[string]DType {
	m := make(map[string]DType, len(dtypes))
	for d, x := range dtypes {
		if x.name != "" {
			m[x.name] = DType(d)
		}
	}
	return m
}()

// String returns the name that safetensors headers use, such as BF16.
func (d DType) String() string {
	if int(d) < len(dtypes) && dtypes[d].name != "" {
		return dtypes[d].name
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// IsFloat reports whether d is F32, F16 or BF16, the types that this package converts.
func (d DType) IsFloat() bool { return d == F32 || d == F16 || d == BF16 }

// Size returns the bytes of one element of F32, F16 or BF16, and 0 for any other type.
func (d DType) Size() int {
	if !d.IsFloat() {
		return 0
	}
	return dtypes[d].bits / 8
}

// ParseDType returns the type named f32, f16 or bf16, in either case.
func ParseDType(s string) (DType, error) {
	if d, ok := headerDTypes[strings.ToUpper(s)]; ok && d.IsFloat() {
		return d, nil
	}
	return 0, fmt.Errorf("dtype %q: expected f32, f16 or bf16", oneLine(s))
}
