package main

import (
	"bytes"
	"fmt"
	"strings"
)

// outcome is what came of the records so far.
type outcome struct {
	Added   int64 `json:"added"`
	Updated int64 `json:"updated"`
	Skipped int64 `json:"skipped"`
	Failed  int64 `json:"failed"`
}

func (o *outcome) records() int64 { return o.Added + o.Updated + o.Skipped + o.Failed }

// count counts a record that is now in the catalogue, by what happened to it.
func (o *outcome) count(before []byte, there bool, now []byte) string {
	switch {
	case !there:
		o.Added++
		return "added"
	case bytes.Equal(before, now):
		o.Skipped++
		return "skipped"
	}
	o.Updated++
	return "updated"
}

// fault is why a record cannot be imported.
type fault struct{ code, message string }

// check returns a record's control number, if it has one, and what is wrong with it.
func check(data []byte) (number string, wrong *fault) {
	if len(data) == 0 || data[len(data)-1] != recordEnd {
		return "", &fault{"TRUNCATED", "the file ends within the record"}
	}
	found, err := parse(data)
	if err != nil {
		return "", &fault{"BAD_STRUCTURE", err.Error()}
	}
	number = found.controlNumber()
	switch {
	case !strings.ContainsRune("acdefgijkmoprt", rune(found.kind)):
		return number, &fault{"BAD_LEADER", fmt.Sprintf("type of record %q is not MARC 21", found.kind)}
	case number == "":
		return number, &fault{"NO_CONTROL_NUMBER", "field 001 is missing or empty"}
	case !found.hasTitle():
		return number, &fault{"NO_TITLE", "field 245 is missing or empty"}
	}
	return number, nil
}
