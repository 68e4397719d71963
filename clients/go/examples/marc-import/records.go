package main

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"strconv"
)

// The marks of ISO 2709, the format of MARC 21 records.
const (
	recordEnd     = 0x1D
	fieldEnd      = 0x1E
	subfieldStart = 0x1F
	leaderLength  = 24
	entryLength   = 12
)

var errStructure = errors.New("the directory does not fit the record")

// raw is a record's bytes, and where in the file they begin.
type raw struct {
	data   []byte
	offset int
}

// split returns the records of a file. They end at the terminator, whatever length they claim, so that a broken record
// does not damage others.
func split(file []byte) iter.Seq[raw] {
	return func(yield func(raw) bool) {
		for offset := 0; offset < len(file); {
			end := bytes.IndexByte(file[offset:], recordEnd) + 1
			if end == 0 {
				end = len(file) - offset
				if len(bytes.TrimSpace(file[offset:])) == 0 {
					return
				}
			}
			if !yield(raw{bytes.TrimLeft(file[offset:offset+end], "\r\n "), offset}) {
				return
			}
			offset += end
		}
	}
}

func countRecords(file []byte) (count int64) {
	for range split(file) {
		count++
	}
	return count
}

// record is a MARC record as far as an import has to know it.
type record struct {
	kind   byte // leader position 6
	fields map[string][]byte
}

// parse reads the leader and the directory of a record, and the first field of each tag.
func parse(data []byte) (*record, error) {
	if len(data) <= leaderLength {
		return nil, io.ErrUnexpectedEOF
	}
	base, err := number(data[12:17])
	if err != nil || base <= leaderLength || base > len(data) || data[base-1] != fieldEnd {
		return nil, errStructure
	}
	directory := data[leaderLength : base-1]
	if len(directory)%entryLength != 0 {
		return nil, errStructure
	}
	found := &record{kind: data[6], fields: map[string][]byte{}}
	for ; len(directory) > 0; directory = directory[entryLength:] {
		tag := string(directory[:3])
		length, badLength := number(directory[3:7])
		start, badStart := number(directory[7:12])
		if badLength != nil || badStart != nil || length < 1 || base+start+length > len(data)-1 {
			return nil, errStructure
		}
		field := data[base+start : base+start+length]
		if field[length-1] != fieldEnd {
			return nil, errStructure
		}
		if _, there := found.fields[tag]; !there {
			found.fields[tag] = field[:length-1]
		}
	}
	return found, nil
}

func number(digits []byte) (int, error) {
	value, err := strconv.ParseUint(string(digits), 10, 32)
	return int(value), err
}

// controlNumber is field 001.
func (r *record) controlNumber() string { return string(bytes.TrimSpace(r.fields["001"])) }

// hasTitle says whether field 245 has something in $a or $b.
func (r *record) hasTitle() bool {
	subfields := bytes.Split(r.fields["245"], []byte{subfieldStart})
	for _, subfield := range subfields[1:] {
		if len(subfield) > 1 && (subfield[0] == 'a' || subfield[0] == 'b') {
			return true
		}
	}
	return false
}
