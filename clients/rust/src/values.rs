//! Converts texts and JSON values for the server and back.
//!
//! Nothing here fails: an odd result must never make a worker fail.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Timestamp, Value as Wire};
use serde::Serialize;
use serde_json::{Map, Number, Value};

const MAX_EXACT_INTEGER: u64 = 1 << 53;
/// The maximum depth of lists and objects: protobuf reads 100 levels, of which an object takes three.
const MAX_DEPTH: usize = 32;

/// Makes a text that the server accepts: without U+0000, at most `limit` characters.
pub(crate) fn clean(text: &str, limit: usize) -> String {
    text.chars()
        .take(limit)
        .map(|file| match file {
            '\0' => char::REPLACEMENT_CHARACTER,
            other => other,
        })
        .collect()
}

/// The same for anything that can be displayed.
pub(crate) fn clean_text(text: impl Display, limit: usize) -> String {
    clean(&text.to_string(), limit)
}

/// Converts anything that serializes to JSON; or why it cannot.
pub(crate) fn json(data: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(data).map_err(|error| error.to_string())
}

/// JSON as it is sent. Integers beyond 2⁵³, which doubles cannot hold, become text. Values nested deeper than 32 levels
/// become "…": the server could not read them, nor anything else in the same message.
pub(crate) fn to_wire(value: &Value) -> Wire {
    wire(value, 0)
}

fn wire(value: &Value, depth: usize) -> Wire {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => number_kind(number),
        Value::String(text) => Kind::StringValue(clean(text, usize::MAX)),
        Value::Array(_) | Value::Object(_) if depth >= MAX_DEPTH => Kind::StringValue("…".to_owned()),
        Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.iter().map(|item| wire(item, depth + 1)).collect() })
        }
        Value::Object(entries) => Kind::StructValue(Struct { fields: fields(entries, depth) }),
    };
    Wire { kind: Some(kind) }
}

/// A JSON object as it is sent.
pub(crate) fn to_fields(entries: &Map<String, Value>) -> BTreeMap<String, Wire> {
    fields(entries, 0)
}

fn fields(entries: &Map<String, Value>, depth: usize) -> BTreeMap<String, Wire> {
    entries.iter().map(|(name, value)| (clean(name, usize::MAX), wire(value, depth + 1))).collect()
}

fn number_kind(number: &Number) -> Kind {
    let exact = match (number.as_u64(), number.as_i64()) {
        (Some(whole), _) => whole <= MAX_EXACT_INTEGER,
        (_, Some(whole)) => whole.unsigned_abs() <= MAX_EXACT_INTEGER,
        _ => true,
    };
    match number.as_f64() {
        Some(double) if exact => Kind::NumberValue(double),
        _ => Kind::StringValue(number.to_string()),
    }
}

/// Received JSON; whole numbers as integers.
pub(crate) fn from_wire(value: &Wire) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(truth)) => Value::Bool(*truth),
        Some(Kind::NumberValue(double)) => number(*double),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(from_wire).collect(),
        Some(Kind::StructValue(object)) => Value::Object(from_fields(&object.fields)),
    }
}

/// A received JSON object.
pub(crate) fn from_fields(fields: &BTreeMap<String, Wire>) -> Map<String, Value> {
    fields.iter().map(|(name, value)| (name.clone(), from_wire(value))).collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn number(double: f64) -> Value {
    if double.fract() == 0.0 && double.abs() <= MAX_EXACT_INTEGER as f64 {
        Value::from(double as i64)
    } else {
        Number::from_f64(double).map_or(Value::Null, Value::Number)
    }
}

/// A duration as it is sent.
pub(crate) fn to_duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

/// A received duration; a negative one is zero.
pub(crate) fn from_duration(span: &prost_types::Duration) -> Duration {
    Duration::new(u64::try_from(span.seconds).unwrap_or(0), u32::try_from(span.nanos).unwrap_or(0).min(999_999_999))
}

/// A received moment, if the system's clock can show it.
pub(crate) fn from_timestamp(moment: Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(moment).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_come_back_as_they_went() {
        let value = json!({"a": [1, -2.5, true, null, "x"], "b": {"c": 9_007_199_254_740_992_u64}});
        assert_eq!(from_wire(&to_wire(&value)), value);
    }

    #[test]
    fn what_is_nested_too_deep_ends() {
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([{ "a": deep }]);
        }
        let mut levels = 0;
        let mut left = &from_wire(&to_wire(&deep));
        while let Some(inner) = left.get(0).or_else(|| left.get("a")) {
            levels += 1;
            left = inner;
        }
        assert_eq!((levels, left), (MAX_DEPTH, &json!("…")));
    }

    #[test]
    fn what_a_double_does_not_hold_becomes_text() {
        let back = from_wire(&to_wire(&json!([u64::MAX, i64::MIN])));
        assert_eq!(back, json!([u64::MAX.to_string(), i64::MIN.to_string()]));
    }

    #[test]
    fn text_is_cut_in_characters_and_cleaned() {
        assert_eq!(clean("äöü\0", 2), "äö");
        assert_eq!(clean("a\0b", 9), "a\u{fffd}b");
    }
}
