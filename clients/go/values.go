package headway

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"
)

const (
	exact   = 1 << 53
	deepest = 32
	tooMuch = "…"
	// mostValues is what 1 MiB of JSON has room for.
	mostValues = 1 << 19
	anyLimit   = math.MaxInt
)

// clean is the text as the server takes it: without U+0000 and invalid UTF-8, at most limit characters.
func clean(text string, limit int) string {
	plain := true
	for i := range len(text) {
		if c := text[i]; c == 0 || c >= utf8.RuneSelf {
			plain = false
			break
		}
	}
	if plain {
		if len(text) > limit {
			// A copy, lest what is kept of a text keeps all of it in memory.
			return strings.Clone(text[:limit])
		}
		return text
	}
	count := 0
	for i := range text {
		if count == limit {
			text = strings.Clone(text[:i])
			break
		}
		count++
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// inText is what is printed of it. Unlike its own method, that survives a nil pointer in an error.
func inText(data any) string { return fmt.Sprint(data) }

// toValue is any value as JSON. What JSON has no word for (channels, integers beyond 2⁵³, NaN) becomes its text, and what
// is nested deeper than 32 levels, as a cycle is, "…": a tracker must not stop a worker because of a result.
func toValue(data any, depth int) *structpb.Value {
	return (&reader{left: mostValues}).value(data, depth)
}

// reader reads one value: only so many values in it, lest a cycle that branches takes for ever.
type reader struct{ left int }

func (r *reader) value(data any, depth int) *structpb.Value {
	if r.left--; r.left < 0 {
		return text(tooMuch)
	}
	switch known := data.(type) {
	case nil:
		return structpb.NewNullValue()
	case string:
		return text(known)
	case error:
		return text(inText(known))
	case json.Marshaler, json.Number, encoding.TextMarshaler:
		return r.viaJSON(data, depth)
	}
	value := reflect.ValueOf(data)
	switch value.Kind() {
	case reflect.Bool:
		return structpb.NewBoolValue(value.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if number := value.Int(); -exact <= number && number <= exact {
			return structpb.NewNumberValue(float64(number))
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if number := value.Uint(); number <= exact {
			return structpb.NewNumberValue(float64(number))
		}
	case reflect.Float32, reflect.Float64:
		if number := value.Float(); !math.IsNaN(number) && !math.IsInf(number, 0) {
			return structpb.NewNumberValue(number)
		}
	case reflect.String:
		return text(value.String())
	case reflect.Pointer:
		if value.IsNil() {
			return structpb.NewNullValue()
		}
		if depth < deepest {
			return r.value(value.Elem().Interface(), depth+1)
		}
		return text(tooMuch)
	case reflect.Map:
		if depth < deepest && value.Len() <= mostValues {
			fields := make(map[string]*structpb.Value, value.Len())
			for entries := value.MapRange(); entries.Next(); {
				fields[clean(fmt.Sprint(entries.Key().Interface()), anyLimit)] = r.value(entries.Value().Interface(), depth+1)
			}
			return structpb.NewStructValue(&structpb.Struct{Fields: fields})
		}
		return text(tooMuch)
	case reflect.Slice, reflect.Array:
		if value.Type().Elem().Kind() == reflect.Uint8 {
			return r.viaJSON(data, depth)
		}
		if depth < deepest && value.Len() <= mostValues {
			items := make([]*structpb.Value, value.Len())
			for i := range items {
				items[i] = r.value(value.Index(i).Interface(), depth+1)
			}
			return structpb.NewListValue(&structpb.ListValue{Values: items})
		}
		return text(tooMuch)
	case reflect.Struct:
		return r.viaJSON(data, depth)
	}
	return text(inText(data))
}

// viaJSON is for what says itself how it looks as JSON.
func (r *reader) viaJSON(data any, depth int) *structpb.Value {
	var plain any
	encoded, err := json.Marshal(data)
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(encoded))
		decoder.UseNumber()
		err = decoder.Decode(&plain)
	}
	if fault := (*json.UnsupportedValueError)(nil); errors.As(err, &fault) && strings.Contains(fault.Str, "cycle") {
		return text(tooMuch)
	}
	if err != nil {
		return text(inText(data))
	}
	return r.decoded(plain, depth)
}

func (r *reader) decoded(plain any, depth int) *structpb.Value {
	switch known := plain.(type) {
	case json.Number:
		if whole, err := known.Int64(); err == nil {
			return r.value(whole, depth)
		}
		if number, err := known.Float64(); err == nil && strings.ContainsAny(known.String(), ".eE") {
			return structpb.NewNumberValue(number)
		}
		return text(known.String())
	case map[string]any:
		if depth >= deepest {
			return text(tooMuch)
		}
		fields := make(map[string]*structpb.Value, len(known))
		for key, value := range known {
			fields[clean(key, anyLimit)] = r.decoded(value, depth+1)
		}
		return structpb.NewStructValue(&structpb.Struct{Fields: fields})
	case []any:
		if depth >= deepest {
			return text(tooMuch)
		}
		items := make([]*structpb.Value, len(known))
		for i, item := range known {
			items[i] = r.decoded(item, depth+1)
		}
		return structpb.NewListValue(&structpb.ListValue{Values: items})
	}
	return r.value(plain, depth)
}

func text(text string) *structpb.Value {
	return structpb.NewStringValue(clean(text, anyLimit))
}

// toFields is a mapping as the fields of a JSON object.
func toFields(data map[string]any) map[string]*structpb.Value {
	fields := make(map[string]*structpb.Value, len(data))
	read := reader{left: mostValues}
	for key, value := range data {
		fields[clean(key, anyLimit)] = read.value(value, 1)
	}
	return fields
}
