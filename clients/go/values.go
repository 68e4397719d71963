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
	maxExactInteger = 1 << 53
	maxDepth        = 32
	ellipsis        = "…"
	// maxValues is how many values fit in 1 MiB of JSON.
	maxValues = 1 << 19
	noLimit   = math.MaxInt
)

// clean makes a text that the server accepts: without U+0000 and invalid UTF-8, at most limit characters.
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
			// Copy, so that a short text does not keep a long one in memory.
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

// inText is the printed form. Unlike the value's own method, fmt survives a nil pointer in an error.
func inText(data any) string { return fmt.Sprint(data) }

// toValue converts any value to JSON. What JSON cannot express (channels, integers beyond 2⁵³, NaN) becomes its text.
// Values nested deeper than 32 levels, such as cycles, become "…". Results must never make a worker fail.
func toValue(data any, depth int) *structpb.Value {
	return (&reader{left: maxValues}).value(data, depth)
}

// reader reads one value. It bounds the number of values, since a cycle that branches would never end.
type reader struct{ left int }

func (r *reader) value(data any, depth int) *structpb.Value {
	if r.left--; r.left < 0 {
		return text(ellipsis)
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
		if number := value.Int(); -maxExactInteger <= number && number <= maxExactInteger {
			return structpb.NewNumberValue(float64(number))
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if number := value.Uint(); number <= maxExactInteger {
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
		if depth < maxDepth {
			return r.value(value.Elem().Interface(), depth+1)
		}
		return text(ellipsis)
	case reflect.Map:
		if depth < maxDepth && value.Len() <= maxValues {
			fields := make(map[string]*structpb.Value, value.Len())
			for entries := value.MapRange(); entries.Next(); {
				fields[clean(fmt.Sprint(entries.Key().Interface()), noLimit)] = r.value(entries.Value().Interface(), depth+1)
			}
			return structpb.NewStructValue(&structpb.Struct{Fields: fields})
		}
		return text(ellipsis)
	case reflect.Slice, reflect.Array:
		if value.Type().Elem().Kind() == reflect.Uint8 {
			return r.viaJSON(data, depth)
		}
		if depth < maxDepth && value.Len() <= maxValues {
			items := make([]*structpb.Value, value.Len())
			for i := range items {
				items[i] = r.value(value.Index(i).Interface(), depth+1)
			}
			return structpb.NewListValue(&structpb.ListValue{Values: items})
		}
		return text(ellipsis)
	case reflect.Struct:
		return r.viaJSON(data, depth)
	}
	return text(inText(data))
}

// viaJSON is for values that define their own JSON form.
func (r *reader) viaJSON(data any, depth int) *structpb.Value {
	var plain any
	encoded, err := json.Marshal(data)
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(encoded))
		decoder.UseNumber()
		err = decoder.Decode(&plain)
	}
	if fault := (*json.UnsupportedValueError)(nil); errors.As(err, &fault) && strings.Contains(fault.Str, "cycle") {
		return text(ellipsis)
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
		if depth >= maxDepth {
			return text(ellipsis)
		}
		fields := make(map[string]*structpb.Value, len(known))
		for key, value := range known {
			fields[clean(key, noLimit)] = r.decoded(value, depth+1)
		}
		return structpb.NewStructValue(&structpb.Struct{Fields: fields})
	case []any:
		if depth >= maxDepth {
			return text(ellipsis)
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
	return structpb.NewStringValue(clean(text, noLimit))
}

// toFields converts a map to the fields of a JSON object.
func toFields(data map[string]any) map[string]*structpb.Value {
	fields := make(map[string]*structpb.Value, len(data))
	read := reader{left: maxValues}
	for key, value := range data {
		fields[clean(key, noLimit)] = read.value(value, 1)
	}
	return fields
}
