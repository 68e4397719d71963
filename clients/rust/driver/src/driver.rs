//! One operation after the other.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::time::{Duration, Instant};

use headway::{Client, Code, Error, Job, JobCancelled, Part};
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::shapes;

const LONG: Duration = Duration::from_secs(60);

pub enum Fault {
    Error(Error),
    Unsupported(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

type Answer = Result<Value, Fault>;

#[derive(Default)]
pub struct Driver {
    client: Option<Client>,
    jobs: HashMap<String, Job>,
    /// Jobs whose name in the case now belongs to another: dropping them would end them.
    former: Vec<Job>,
}

impl Driver {
    pub fn close(&self) {
        if let Some(client) = &self.client {
            client.close().wait();
        }
    }

    pub fn heed(&mut self, request: &Value) -> Answer {
        let arguments = Arguments(request);
        match arguments.text("op").unwrap_or_default() {
            "connect" => self.connect(&arguments),
            "close" => {
                self.close();
                Ok(Value::Null)
            }
            "create" => {
                let job = self.client(&arguments)?.create(arguments.options()).wait()?;
                Ok(self.keep(&arguments, job))
            }
            "resume" => {
                let job = self.client(&arguments)?.resume(of(&arguments)).wait()?;
                Ok(self.keep(&arguments, job))
            }
            "fetch" => match self.client(&arguments)?.fetch(of(&arguments)).wait()? {
                Some(job) => Ok(self.keep(&arguments, job)),
                None => Ok(Value::Null),
            },
            operation => match arguments.text("job") {
                Some(name) => self.on_job(operation, name, &arguments),
                None => self.on_server(operation, &arguments),
            },
        }
    }

    fn connect(&mut self, arguments: &Arguments<'_>) -> Answer {
        let mut builder = Client::builder();
        if let Some(target) = arguments.text("target") {
            builder = builder.target(target);
        }
        if let Some(token) = arguments.text("token") {
            builder = builder.token(token);
        }
        if let Some(session) = arguments.text("session") {
            builder = builder.session(session);
        }
        if let Some(timeout) = arguments.span("exit_timeout") {
            builder = builder.exit_timeout(timeout);
        }
        if let Some(timeout) = arguments.span("call_timeout") {
            builder = builder.call_timeout(timeout);
        }
        self.client = Some(builder.connect()?);
        Ok(Value::Null)
    }

    fn client(&self, arguments: &Arguments<'_>) -> Result<Client, Fault> {
        let unconnected = || Fault::Unsupported("there is no connection yet".to_owned());
        let client = self.client.as_ref().ok_or_else(unconnected)?;
        Ok(match arguments.text("session") {
            Some(session) => client.with_session(session),
            None => client.clone(),
        })
    }

    fn keep(&mut self, arguments: &Arguments<'_>, job: Job) -> Value {
        let view = shapes::view(&job);
        let name = arguments.text("job").unwrap_or_default().to_owned();
        self.former.extend(self.jobs.insert(name, job));
        view
    }

    fn on_job(&self, operation: &str, name: &str, arguments: &Arguments<'_>) -> Answer {
        let unknown = || Fault::Unsupported(format!("there is no job {name}"));
        let job = self.jobs.get(name).ok_or_else(unknown)?;
        let value = arguments.value("value").cloned().unwrap_or_default();
        let text = value.as_str().unwrap_or_default();
        match operation {
            "view" => return Ok(shapes::view(job)),
            "refresh" => {
                job.refresh().wait()?;
                return Ok(shapes::view(job));
            }
            "progress" | "advance" | "count" | "record_error" | "checkpoint" => update(job, operation, arguments),
            "track" => return Ok(track(job, arguments)),
            "set" => job.set(arguments.value("variables")),
            "message" => job.set_message(text),
            "size" => job.set_size(value.as_i64().unwrap_or_default()),
            "name" => job.set_name(text),
            "invoker" => job.set_invoker(text),
            "finish" => job.finish(arguments.value("results")).wait(),
            "fail" => {
                let message = arguments.text("message").unwrap_or_default();
                match arguments.text("code") {
                    Some("CANCELLED") => job.fail_with(Code::Cancelled, message).wait(),
                    None => job.fail(message).wait(),
                    Some(code) => return Err(Fault::Unsupported(format!("code {code}"))),
                }
            }
            "leave" => leave(job, arguments),
            "flush" => return Ok(json!(job.flush(arguments.span("timeout").unwrap_or(LONG)).wait())),
            "get" => return Ok(job.get(arguments.text("name").unwrap_or_default()).wait()?.unwrap_or_default()),
            "wait_cancelled" => {
                let cancellation = job.wait_cancelled(arguments.span("timeout").unwrap_or(LONG));
                return Ok(cancellation.as_ref().map_or(Value::Null, shapes::cancellation));
            }
            "wait_stopped" => {
                let error = job.wait_stopped(arguments.span("timeout").unwrap_or(LONG));
                return Ok(error.map_or(Value::Null, |error| json!({"reason": error.reason()})));
            }
            _ => return Err(Fault::Unsupported(operation.to_owned())),
        }
        Ok(Value::Null)
    }

    fn on_server(&self, operation: &str, arguments: &Arguments<'_>) -> Answer {
        let (client, of) = (self.client(arguments)?, of(arguments));
        Ok(match operation {
            "cancel" => {
                let reason = arguments.text("reason").unwrap_or_default();
                shapes::state(&client.cancel(of, reason, arguments.span("grace")).wait()?)
            }
            "clear" => {
                client.clear(of).wait()?;
                Value::Null
            }
            "read" => shapes::state(&client.get(of).wait()?),
            "list" => client.list(arguments.filter()).wait()?.iter().map(shapes::state).collect(),
            "results" => client.results(of).wait()?.unwrap_or_default(),
            "variables" => {
                let names = arguments.value("names").and_then(Value::as_array);
                let names: Vec<&str> = names.into_iter().flatten().filter_map(Value::as_str).collect();
                Value::Object(client.variables(of, &names).wait()?)
            }
            "record_errors" => shapes::record_errors(&client.record_errors(of).wait()?),
            "watch" => watch(&client, of, arguments.span("timeout").unwrap_or(LONG))?,
            "wait" => shapes::state(&client.wait(of, arguments.span("timeout")).wait()?),
            "flush_spool" => {
                let flush = client.flush_spool().wait();
                json!({"sent": flush.sent, "refused": flush.refused, "waiting": flush.waiting})
            }
            _ => return Err(Fault::Unsupported(operation.to_owned())),
        })
    }
}

fn of<'a>(arguments: &Arguments<'a>) -> &'a str {
    arguments.text("of").unwrap_or_default()
}

/// A part, or the job itself without a name.
enum Meter<'a> {
    Job(&'a Job),
    Part(Part),
}

fn update(job: &Job, operation: &str, arguments: &Arguments<'_>) {
    let meter = match arguments.text("part") {
        Some(name) if !name.is_empty() => Meter::Part(job.part(name)),
        _ => Meter::Job(job),
    };
    macro_rules! on {
        ($method:ident($($argument:expr),*)) => {
            match &meter {
                Meter::Job(job) => job.$method($($argument),*),
                Meter::Part(part) => part.$method($($argument),*),
            }
        };
    }
    let (times, by) = (arguments.number("times", 1), arguments.number("by", 1));
    let text = |name| arguments.text(name).unwrap_or_default();
    match operation {
        "progress" => {
            let value = arguments.number("value", 0);
            (value..value + times).for_each(|done| on!(set_progress(done)));
        }
        "advance" => (0..times).for_each(|_| on!(advance(by))),
        "count" => (0..times).for_each(|_| on!(count(text("counter"), by))),
        "record_error" => (0..times).for_each(|_| on!(record_error(text("record"), text("code"), text("message")))),
        _ => on!(checkpoint(arguments.value("variables"))),
    }
}

fn track(job: &Job, arguments: &Arguments<'_>) -> Value {
    let (items, stop_before) = (arguments.number("items", 0), arguments.number("stop_before", 0));
    let mut seen = 0;
    for item in job.track(1..=items) {
        seen += 1;
        if item == stop_before {
            break;
        }
    }
    json!(seen)
}

fn leave(job: &Job, arguments: &Arguments<'_>) {
    let how = arguments.text("how").unwrap_or_default();
    let message = arguments.text("message").unwrap_or_default();
    // The suite checks what happens to the job.
    let _ = job.scope(|job| -> Result<(), Box<dyn StdError + Send + Sync>> {
        match how {
            "error" => Err(message.into()),
            "cancelled" => {
                job.check_cancelled()?;
                Err(JobCancelled::new(message).into())
            }
            _ => Ok(()),
        }
    });
}

fn watch(client: &Client, of: &str, timeout: Duration) -> Result<Value, Fault> {
    let end = Instant::now() + timeout;
    let mut seen = Vec::new();
    for state in client.watch(of) {
        let state = state?;
        seen.push(json!([state.revision, shapes::status(state.status()), state.progress]));
        if Instant::now() > end {
            return Err(Fault::Unsupported("it takes too long".to_owned()));
        }
    }
    Ok(seen.into())
}
