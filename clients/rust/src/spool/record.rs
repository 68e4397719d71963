//! The content of a spool file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Value, json};

use super::MAX_FILE_BYTES;
use crate::pending_call::Request;

const VERSION: u64 = 1;

/// What one job has left to send, in order, and to which server. Reports keep their sequences, so that a report that
/// did arrive does not count twice.
pub(crate) struct SpoolRecord {
    pub(crate) address: String,
    pub(crate) tls: bool,
    pub(crate) job_id: String,
    pub(crate) name: String,
    pub(crate) requests: Vec<Request>,
}

impl SpoolRecord {
    /// JSON of at most 8 MiB. If there is no room, it drops record errors, the last ones first.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut requests: Vec<_> = self.requests.iter().map(packed).collect();
        let mut size: usize = requests.iter().map(|(_, data)| length(data)).sum();
        for (request, (_, data)) in self.requests.iter().zip(&mut requests).rev() {
            if size > MAX_FILE_BYTES - 4096
                && let Request::Report(report) = request
            {
                let mut short = report.clone();
                short.record_errors.clear();
                size -= length(data);
                *data = short.encode_to_vec();
                size += length(data);
            }
        }
        let requests: Vec<_> = requests.into_iter().map(|(kind, data)| (kind, STANDARD.encode(data))).collect();
        let file = json!({
            "version": VERSION,
            "target": self.address,
            "tls": self.tls,
            "job": self.job_id,
            "name": self.name,
            "requests": requests,
        });
        file.to_string().into_bytes()
    }

    /// Reads what `encode` made; or why this is something else.
    pub(crate) fn decode(data: &[u8]) -> Result<Self, String> {
        let file: Value = serde_json::from_slice(data).map_err(|error| format!("it is damaged: {error}"))?;
        if file["version"] != VERSION {
            return Err(format!("it is of version {}", file["version"]));
        }
        let text = |name: &str| file[name].as_str().map(str::to_owned).ok_or(format!("it is damaged: {name}"));
        let requests = file["requests"].as_array().ok_or("it is damaged: requests")?;
        Ok(Self {
            address: text("target")?,
            tls: file["tls"].as_bool().ok_or("it is damaged: tls")?,
            job_id: text("job")?,
            name: text("name")?,
            requests: requests.iter().map(unpacked).collect::<Option<_>>().ok_or("it is damaged: requests")?,
        })
    }
}

fn packed(request: &Request) -> (&'static str, Vec<u8>) {
    match request {
        Request::Create(request) => ("CreateJobRequest", request.encode_to_vec()),
        Request::Start(request) => ("StartJobRequest", request.encode_to_vec()),
        Request::Update(request) => ("UpdateJobRequest", request.encode_to_vec()),
        Request::Report(request) => ("ReportProgressRequest", request.encode_to_vec()),
        Request::Finish(request) => ("FinishJobRequest", request.encode_to_vec()),
        Request::Fail(request) => ("FailJobRequest", request.encode_to_vec()),
    }
}

fn unpacked(entry: &Value) -> Option<Request> {
    fn read<M: Message + Default>(data: &[u8], wrap: impl Fn(M) -> Request) -> Option<Request> {
        M::decode(data).ok().map(wrap)
    }
    let data = STANDARD.decode(entry[1].as_str()?).ok()?;
    match entry[0].as_str()? {
        "CreateJobRequest" => read(&data, Request::Create),
        "StartJobRequest" => read(&data, Request::Start),
        "UpdateJobRequest" => read(&data, Request::Update),
        "ReportProgressRequest" => read(&data, Request::Report),
        "FinishJobRequest" => read(&data, Request::Finish),
        "FailJobRequest" => read(&data, Request::Fail),
        _ => None,
    }
}

fn length(data: &[u8]) -> usize {
    data.len().div_ceil(3) * 4 + 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::headway::v1::{CreateJobRequest, RecordError, ReportProgressRequest};

    fn record(requests: Vec<Request>) -> SpoolRecord {
        SpoolRecord {
            address: "127.0.0.1:50051".into(),
            tls: false,
            job_id: "0190".into(),
            name: "Import \u{1f4da}".into(),
            requests,
        }
    }

    #[test]
    fn words_come_back_as_they_were_written() {
        let create = Request::Create(CreateJobRequest { session_id: "s".into(), size: 3, ..Default::default() });
        let read = SpoolRecord::decode(&record(vec![create.clone()]).encode()).unwrap();
        assert_eq!((read.address.as_str(), read.tls, read.job_id.as_str()), ("127.0.0.1:50051", false, "0190"));
        assert_eq!(read.name, "Import \u{1f4da}");
        assert!(read.requests == vec![create]);
    }

    #[test]
    fn what_the_python_client_wrote_is_understood() {
        let file = br#"{"version": 1, "target": "h:1", "tls": true, "job": "j", "name": "n \u00e4",
            "requests": [["ReportProgressRequest", "CgFzEgFqGAEoBzAD"]]}"#;
        let read = SpoolRecord::decode(file).unwrap();
        assert_eq!(read.name, "n ä");
        let Request::Report(report) = &read.requests[0] else {
            panic!("another request");
        };
        assert_eq!((report.session_id.as_str(), report.sequence), ("s", 7));
    }

    #[test]
    fn what_is_damaged_or_newer_is_said_to_be() {
        assert!(SpoolRecord::decode(b"{").is_err());
        assert!(SpoolRecord::decode(br#"{"version": 2}"#).err().unwrap().contains("version 2"));
        assert!(
            SpoolRecord::decode(
                br#"{"version": 1, "target": "h:1", "tls": false, "job": "j", "name": "n", "requests": [["X", ""]]}"#
            )
            .is_err()
        );
    }

    #[test]
    fn record_errors_give_way_where_there_is_no_room() {
        let bad = RecordError { record: "x".repeat(200), message: "y".repeat(1000), ..Default::default() };
        let report = ReportProgressRequest {
            counters: [("added".to_owned(), 1)].into(),
            record_errors: vec![bad; 3000],
            ..Default::default()
        };
        let requests = vec![Request::Report(report.clone()), Request::Report(report)];
        let encoded = record(requests).encode();
        assert!(encoded.len() <= MAX_FILE_BYTES);
        let read = SpoolRecord::decode(&encoded).unwrap();
        let [Request::Report(first), Request::Report(last)] = &read.requests[..] else {
            panic!("other requests");
        };
        assert_eq!((first.record_errors.len(), last.record_errors.len()), (3000, 0));
        assert_eq!(last.counters["added"], 1);
    }
}
