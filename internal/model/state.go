package model

import (
	"encoding/binary"
	"encoding/gob"
	"fmt"
	"math"
)

// mlaState is an attention without the values of its float32 weights, which follow.
type mlaState struct {
	MLA   MLA
	Sizes [learnedTensors]int
}

// Encode writes the attention, exactly.
func (a *MLA) Encode(to *gob.Encoder) error {
	s := mlaState{MLA: *a}
	for i, v := range s.MLA.learned() {
		s.Sizes[i], *v = len(*v), nil
	}
	if err := to.Encode(&s); err != nil {
		return err
	}
	return a.EachWeight(func(v []float32) error { return EncodeValues(to, v) })
}

// DecodeMLA reads what [MLA.Encode] wrote.
func DecodeMLA(from *gob.Decoder) (*MLA, error) {
	var s mlaState
	if err := from.Decode(&s); err != nil {
		return nil, err
	}
	for i, v := range s.MLA.learned() {
		if s.Sizes[i] > 0 {
			*v = make([]float32, s.Sizes[i])
		}
	}
	return &s.MLA, s.MLA.EachWeight(func(v []float32) error { return DecodeValues(from, v) })
}

// EachWeight calls f with the values of each float32 weight, always in the same order, as far as it returns no error.
func (a *MLA) EachWeight(f func([]float32) error) error {
	for _, v := range a.learned() {
		if err := f(*v); err != nil {
			return err
		}
	}
	return nil
}

// valuesChunk is how many values are encoded in one piece, so that no tensor is in memory twice.
const valuesChunk = 1 << 18

// EncodeValues writes values exactly, and smaller than gob would.
func EncodeValues(to *gob.Encoder, values []float32) error {
	b := make([]byte, 0, 4*min(len(values), valuesChunk))
	for lo := 0; lo < len(values); lo += valuesChunk {
		b = b[:0]
		for _, v := range values[lo:min(len(values), lo+valuesChunk)] {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
		if err := to.Encode(b); err != nil {
			return err
		}
	}
	return nil
}

// DecodeValues sets as many values as [EncodeValues] wrote.
func DecodeValues(from *gob.Decoder, values []float32) error {
	var b []byte
	for lo := 0; lo < len(values); lo += valuesChunk {
		part := values[lo:min(len(values), lo+valuesChunk)]
		if err := from.Decode(&b); err != nil {
			return err
		}
		if len(b) != 4*len(part) {
			return fmt.Errorf("a piece of %d bytes, expected %d", len(b), 4*len(part))
		}
		for i := range part {
			part[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	return nil
}
