//! The arguments of an operation. The driver leaves out what the case leaves out.

use std::time::Duration;

use headway::{JobFilter, JobOptions, JobStatus};
use serde_json::Value;

pub struct Arguments<'a>(pub &'a Value);

impl<'a> Arguments<'a> {
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.value(name)?.as_str()
    }

    pub fn number(&self, name: &str, default: i64) -> i64 {
        self.value(name).and_then(Value::as_i64).unwrap_or(default)
    }

    pub fn span(&self, name: &str) -> Option<Duration> {
        self.value(name)?.as_f64().map(Duration::from_secs_f64)
    }

    fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let labels = self.value("labels").and_then(Value::as_object);
        labels.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    pub fn options(&self) -> JobOptions {
        let mut options = JobOptions::new(self.text("name").unwrap_or_default());
        for (key, value) in self.labels() {
            options = options.label(key, value);
        }
        if let Some(id) = self.text("job_id") {
            options = options.job_id(id);
        }
        if let Some(invoker) = self.text("invoker") {
            options = options.invoker(invoker);
        }
        if self.value("size").is_some() {
            options = options.size(self.number("size", 0));
        }
        if let Some(unit) = self.text("unit") {
            options = options.unit(unit);
        }
        if let Some(span) = self.span("heartbeat_timeout") {
            options = options.heartbeat_timeout(span);
        }
        if let Some(span) = self.span("stall_timeout") {
            options = options.stall_timeout(span);
        }
        if let Some(span) = self.span("retention") {
            options = options.retention(span);
        }
        if self.value("pending") == Some(&Value::Bool(true)) {
            options = options.pending();
        }
        if let Some(id) = self.text("continues") {
            options = options.continues(id);
        }
        if let Some(key) = self.text("key") {
            options = options.key(key);
        }
        options
    }

    pub fn filter(&self) -> JobFilter {
        let mut filter = JobFilter::new();
        for (key, value) in self.labels() {
            filter = filter.label(key, value);
        }
        for status in self.value("statuses").and_then(Value::as_array).into_iter().flatten() {
            let name = format!("JOB_STATUS_{}", status.as_str().unwrap_or_default());
            filter = filter.status(JobStatus::from_str_name(&name).unwrap_or_default());
        }
        if let Some(name) = self.text("name") {
            filter = filter.name(name);
        }
        if let Some(invoker) = self.text("invoker") {
            filter = filter.invoker(invoker);
        }
        if let Some(stalled) = self.value("stalled").and_then(Value::as_bool) {
            filter = filter.stalled(stalled);
        }
        let page = self.number("page_size", 0);
        filter.page_size(i32::try_from(page).unwrap_or(i32::MAX))
    }
}
