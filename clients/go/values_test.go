package headway

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
)

func TestTextIsCleanedAndCut(t *testing.T) {
	for _, c := range []struct {
		given string
		limit int
		want  string
	}{
		{"plain", 10, "plain"},
		{"plain", 3, "pla"},
		{"žluťoučký", 4, "žluť"},
		{"a\x00b", 10, "a\uFFFDb"},
		{"a\xffb", 10, "a\uFFFDb"},
		{strings.Repeat("é", 2000), 1024, strings.Repeat("é", 1024)},
	} {
		if got := clean(c.given, c.limit); got != c.want {
			t.Errorf("clean(%q, %d) = %q", c.given, c.limit, got)
		}
	}
}

func TestAnyValueBecomesJSON(t *testing.T) {
	type point struct {
		X int `json:"x"`
	}
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	three := 3
	for _, c := range []struct {
		given any
		want  string
	}{
		{nil, "null"},
		{true, "true"},
		{int64(1) << 53, "9007199254740992"},
		{int64(1)<<53 + 1, `"9007199254740993"`},
		{uint64(math.MaxUint64), `"18446744073709551615"`},
		{math.NaN(), `"NaN"`},
		{1.5, "1.5"},
		{"text", `"text"`},
		{[]int{1, 2}, "[1,2]"},
		{[]byte("ab"), `"YWI="`},
		{map[int]string{1: "a"}, `{"1":"a"}`},
		{point{1}, `{"x":1}`},
		{&three, "3"},
		{when, `"2026-01-02T03:04:05Z"`},
		{errors.New("why"), `"why"`},
		{struct{ N int64 }{1<<53 + 1}, `{"N":"9007199254740993"}`},
		{(*broken)(nil), `"<nil>"`},
		{level(3), `"three"`},
		{struct{ F float64 }{math.NaN()}, `"{NaN}"`},
	} {
		got, err := toValue(c.given, 0).MarshalJSON()
		if compact := strings.ReplaceAll(string(got), " ", ""); err != nil || compact != c.want {
			t.Errorf("%v: %s, %v", c.given, compact, err)
		}
	}
	if text := toValue(func() {}, 0).GetStringValue(); text == "" {
		t.Error("no text for a function")
	}
	if toValue(map[string]any{"a": make(chan int)}, 0) == nil {
		t.Error("no value for a channel")
	}
}

// broken is an error whose method fails on a nil pointer.
type broken struct{ why string }

func (b *broken) Error() string { return b.why }

// level defines its own text form.
type level int

func (level) MarshalText() ([]byte, error) { return []byte("three"), nil }

func TestWhatHasNoEndEnds(t *testing.T) {
	type node struct {
		Up   *node
		More any
	}
	up := &node{}
	up.Up = up
	branching := map[string]any{}
	branching["left"], branching["right"] = branching, []any{branching}
	list := make([]any, 1)
	list[0] = list
	var deep any = node{}
	for range 100 {
		deep = node{More: deep}
	}
	for name, endless := range map[string]any{"struct": up, "map": branching, "slice": list, "deep": deep} {
		value := toValue(map[string]any{"a": endless}, 0)
		if levels := depthOf(value); levels > maxDepth+1 {
			t.Errorf("%s: %d levels", name, levels)
		}
	}
}

func depthOf(value *structpb.Value) (levels int) {
	for _, field := range value.GetStructValue().GetFields() {
		levels = max(levels, depthOf(field))
	}
	for _, item := range value.GetListValue().GetValues() {
		levels = max(levels, depthOf(item))
	}
	return levels + 1
}
