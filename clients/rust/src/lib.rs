#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod batch;
mod calls;
mod cancellation;
mod client;
mod connection_state;
mod engine;
mod error;
mod error_policy;
mod ids;
mod job;
mod job_end;
mod job_finder;
mod job_state;
mod meter;
mod options;
mod part;
mod pending_call;
mod promise;
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic, missing_docs)]
mod proto;
mod reads;
mod report_stream;
mod reporter;
mod scope;
mod spool;
mod spool_sender;
mod target;
mod track;
mod values;
mod watch;

pub use client::{Client, ClientBuilder};
pub use error::{Cancellation, Code, Error, FieldViolation, JobCancelled};
pub use job::Job;
pub use options::{JobFilter, JobOptions};
pub use part::Part;
pub use promise::Answer;
pub use spool_sender::SpoolFlush;
pub use track::{Tracked, TrackedStream};
pub use v1::JobStatus;
pub use watch::{SessionChange, Watch, Watching};

/// The protocol's own messages, in which jobs are read. Their fields are documented there.
pub mod v1 {
    pub use crate::proto::google::rpc::Status;
    pub use crate::proto::headway::v1::{
        Cancellation, ErrorReason, Estimate, Job, JobStatus, ListRecordErrorsResponse, RecordError, StatusChange,
    };
}
