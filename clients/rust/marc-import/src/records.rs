//! Reads MARC 21 files record by record, and checks each.

use std::ops::Range;

use marc::Record;

const END_OF_RECORD: u8 = 0x1d;
const LEADER: usize = 24;
const ENTRY: usize = 12;
const RECORD_TYPES: &[u8] = b"acdefgijkmoprt";

/// Why a record cannot be imported.
#[derive(Debug, PartialEq)]
pub struct Fault {
    /// The record's own name, if it has one.
    pub control_number: Option<String>,
    pub code: &'static str,
    pub message: String,
}

/// Each record's bytes and the offset where it begins.
///
/// Splits at the record terminator, whatever length a record claims, so that a broken record does not damage others.
/// Line ends and blanks before a record are dropped.
pub fn split(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut offset = 0;
    bytes.split_inclusive(|byte| *byte == END_OF_RECORD).filter_map(move |raw| {
        let start = offset;
        offset += raw.len();
        let blanks = raw.iter().take_while(|byte| b"\r\n ".contains(byte)).count();
        (blanks < raw.len()).then(|| (start, &raw[blanks..]))
    })
}

/// The record's control number, or why it cannot be imported.
pub fn check(raw: &[u8]) -> Result<String, Fault> {
    let nameless = |code, message: &str| Fault { control_number: None, code, message: message.to_owned() };
    if raw.last() != Some(&END_OF_RECORD) {
        return Err(nameless("TRUNCATED", "the file ends within the record"));
    }
    let sound =
        with_true_length(raw).ok_or_else(|| nameless("BAD_STRUCTURE", "the directory does not fit the record"))?;
    let record = Record::parse(&sound).map_err(|error| nameless("BAD_STRUCTURE", &error.to_string()))?;
    if raw[9] == b'a' {
        record.is_unicode().map_err(|error| nameless("BAD_STRUCTURE", &error.to_string()))?;
    }
    let control_number = record.field(b"001").first().map(|field| text(field.get_data::<[u8]>()));
    let control_number = control_number.filter(|number| !number.is_empty());
    let fault = |code, message: String| Fault { control_number: control_number.clone(), code, message };
    if !RECORD_TYPES.contains(&raw[6]) {
        let kind = char::from(raw[6]);
        return Err(fault("BAD_LEADER", format!("type of record {kind:?} is not MARC 21")));
    }
    if control_number.is_none() {
        return Err(fault("NO_CONTROL_NUMBER", "field 001 is missing or empty".to_owned()));
    }
    if !has_title(&record) {
        return Err(fault("NO_TITLE", "field 245 is missing or empty".to_owned()));
    }
    Ok(control_number.unwrap_or_default())
}

fn has_title(record: &Record<'_>) -> bool {
    let fields = record.field(b"245");
    let mut titles = fields.first().into_iter().flat_map(marc::Field::subfields);
    titles.any(|subfield| b"ab".contains(&subfield.get_identifier().0) && !subfield.get_data::<[u8]>().is_empty())
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).trim().to_owned()
}

/// The record with its actual length, since the library trusts the stored one; none if its directory points outside,
/// which the library does not check.
fn with_true_length(raw: &[u8]) -> Option<Vec<u8>> {
    let base = number(raw, 12..17)?;
    let directory = raw.get(LEADER..base.checked_sub(1)?)?;
    if directory.is_empty() || !directory.len().is_multiple_of(ENTRY) {
        return None;
    }
    for entry in directory.chunks(ENTRY) {
        let (length, start) = (number(entry, 3..7)?, number(entry, 7..12)?);
        if length == 0 || base + start + length > raw.len() {
            return None;
        }
    }
    let length = Some(raw.len()).filter(|length| *length <= 99_999)?;
    let mut sound = raw.to_vec();
    sound[..5].copy_from_slice(format!("{length:05}").as_bytes());
    Some(sound)
}

fn number(bytes: &[u8], place: Range<usize>) -> Option<usize> {
    let digits = bytes.get(place)?;
    let sound = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| sound)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: char, fields: &[(&str, &str)]) -> Vec<u8> {
        let (mut directory, mut data) = (String::new(), String::new());
        for (tag, content) in fields {
            directory.extend([tag.to_string(), format!("{:04}{:05}", content.len() + 1, data.len())]);
            data += content;
            data.push('\x1e');
        }
        let base = LEADER + directory.len() + 1;
        format!("99999n{kind}m a22{base:05} a 4500{directory}\x1e{data}\x1d").into_bytes()
    }

    fn code(raw: &[u8]) -> &'static str {
        check(raw).map_or_else(|fault| fault.code, |_| "")
    }

    #[test]
    fn records_are_checked_in_order() {
        let good = record('a', &[("001", " 7 "), ("245", "10\x1faA title")]);
        assert_eq!(check(&good), Ok("7".to_owned()));
        assert_eq!(code(&good[..good.len() - 1]), "TRUNCATED");
        assert_eq!(code(&record('z', &[("001", "7"), ("245", "10\x1faA title")])), "BAD_LEADER");
        assert_eq!(code(&record('a', &[("001", " "), ("245", "10\x1faA title")])), "NO_CONTROL_NUMBER");
        assert_eq!(code(&record('a', &[("001", "7"), ("245", "10\x1fcNobody")])), "NO_TITLE");
        assert_eq!(code(b"00005\x1d"), "BAD_STRUCTURE");
        let mut far = good.clone();
        far[LEADER + 3..LEADER + 7].copy_from_slice(b"9999");
        assert_eq!(code(&far), "BAD_STRUCTURE");
    }

    #[test]
    fn files_are_split_at_terminators() {
        let bytes = b"one\x1d\r\n two\x1d\nrest\n";
        let found: Vec<_> = split(bytes).collect();
        assert_eq!(found, [(0, &b"one\x1d"[..]), (4, b"two\x1d"), (11, b"rest\n")]);
        assert_eq!(split(b"one\x1d\r\n").count(), 1);
    }
}
