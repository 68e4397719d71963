package main

import (
	"fmt"
	"strings"
	"testing"
)

// marc makes a record of these fields, each "TAG data"; in data, $ begins a subfield.
func marc(kind byte, fields ...string) string {
	var directory, data strings.Builder
	for _, field := range fields {
		text := strings.ReplaceAll(field[4:], "$", string(rune(subfieldStart))) + string(rune(fieldEnd))
		fmt.Fprintf(&directory, "%s%04d%05d", field[:3], len(text), data.Len())
		data.WriteString(text)
	}
	base := leaderLength + directory.Len() + 1
	return fmt.Sprintf("%05dn%cm a22%05d a 4500%s%c%s%c", base+data.Len()+1, kind, base, &directory, fieldEnd, &data, recordEnd)
}

func TestEachRecordIsJudged(t *testing.T) {
	good := marc('a', "001 1", "245 10$aTitle")
	file := strings.Join([]string{
		good, "\n " + good,
		marc('a', "001 1", "245 10$bOther"),
		marc('x', "001 2", "245 10$aTitle"),
		marc('a', "001  ", "245 10$aTitle"),
		marc('a', "001 3", "245 10$cNobody"),
		marc('a', "001 4"),
		good[:30] + "x" + good[31:],
		"junk\x1d",
		good[:len(good)-1],
	}, "")
	want := []string{"", "", "", "BAD_LEADER", "NO_CONTROL_NUMBER", "NO_TITLE", "NO_TITLE", "BAD_STRUCTURE", "BAD_STRUCTURE", "TRUNCATED"}
	var got []string
	for raw := range split([]byte(file)) {
		code := ""
		if _, wrong := check(raw.data); wrong != nil {
			code = wrong.code
		}
		got = append(got, code)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q\nwanted %q", got, want)
	}
	if count := countRecords([]byte(file + "\n\n")); count != int64(len(want)) {
		t.Errorf("%d records", count)
	}
}
