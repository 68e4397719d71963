//! Where the server is, and how to open a channel to it.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;
use crate::promise::lock;
use crate::proto::headway::v1::job_service_client::JobServiceClient;

const DEFAULT: &str = "127.0.0.1:50051";
const MAX_RECEIVED_BYTES: usize = 8 * 1024 * 1024;

/// The generated client over a channel that sends the token.
pub(crate) type Stub = JobServiceClient<InterceptedService<Channel, Bearer>>;

/// A server's address, and the options to connect to it.
#[derive(Clone)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) address: String,
    /// Whether the connection is encrypted.
    pub(crate) tls: bool,
    bearer: Bearer,
    endpoint: Endpoint,
}

impl Target {
    /// Takes the given values, else those of the environment, else 127.0.0.1:50051.
    pub(crate) fn find(target: Option<String>, token: Option<String>, ca: Option<PathBuf>) -> Result<Self, Error> {
        let text = target
            .filter(|target| !target.is_empty())
            .or_else(|| variable("HEADWAY_TARGET"))
            .unwrap_or_else(|| DEFAULT.to_owned());
        let ca = ca.or_else(|| variable("HEADWAY_CA").map(PathBuf::from));
        let (scheme, address) = parse(&text).ok_or_else(|| {
            Error::misuse(format!(
                "The target must be host:port or https://host:port, such as {DEFAULT}; not {text:?}."
            ))
        })?;
        if scheme == Some("http") && ca.is_some() {
            return Err(Error::misuse(
                "The target says http:// (plain text), but there is a CA file: write https://, or drop it.",
            ));
        }
        let tls = scheme == Some("https") || ca.is_some();
        Ok(Self {
            endpoint: endpoint(&address, tls, ca)?,
            address,
            tls,
            bearer: Bearer::new(token.filter(|token| !token.is_empty()).or_else(|| variable("HEADWAY_TOKEN")))?,
        })
    }

    /// Opens a channel; it sends nothing before the first call. Runs in the engine's runtime.
    pub(crate) fn open(&self) -> Stub {
        JobServiceClient::with_interceptor(self.endpoint.connect_lazy(), self.bearer.clone())
            .max_decoding_message_size(MAX_RECEIVED_BYTES)
    }
}

/// The channel for calls that a caller waits for, opened when it is needed.
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<Option<Stub>>>);

impl Line {
    /// Runs in the engine's runtime.
    pub(crate) fn stub(&self, target: &Target) -> Stub {
        lock(&self.0).get_or_insert_with(|| target.open()).clone()
    }

    /// A connection without an answer is not trusted any more. The next call opens another.
    pub(crate) fn heed<T>(&self, answer: &Result<T, Error>) {
        if let Err(error) = answer
            && error.reason().is_empty()
            && error.code() != Code::Unavailable
        {
            lock(&self.0).take();
        }
    }
}

/// A variable of the environment that is not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn parse(text: &str) -> Option<(Option<&str>, String)> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
        Some(_) => return None,
        None => (None, text),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':')?;
    let sound = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && !host.contains(|character: char| character.is_whitespace() || ":/[]@?#".contains(character))
        }
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    (sound && digits && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| (scheme, rest.to_owned()))
}

fn endpoint(address: &str, tls: bool, ca: Option<PathBuf>) -> Result<Endpoint, Error> {
    let scheme = if tls { "https" } else { "http" };
    let plain = Endpoint::from_shared(format!("{scheme}://{address}"))
        .and_then(|endpoint| endpoint.user_agent(concat!("headway-rust/", env!("CARGO_PKG_VERSION"))))
        .map_err(|error| Error::misuse(format!("The target {address:?} is no address: {error}.")))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(false);
    if tls { encrypted(plain, ca) } else { Ok(plain) }
}

#[cfg(feature = "tls")]
fn encrypted(endpoint: Endpoint, ca: Option<PathBuf>) -> Result<Endpoint, Error> {
    use tonic::transport::{Certificate, ClientTlsConfig};

    let config = match ca {
        None => ClientTlsConfig::new().with_native_roots(),
        Some(path) => {
            let pem = std::fs::read(&path)
                .map_err(|error| Error::misuse(format!("The CA file {} cannot be read: {error}.", path.display())))?;
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
        }
    };
    endpoint.tls_config(config).map_err(|error| Error::misuse(format!("The connection cannot be encrypted: {error}.")))
}

#[cfg(not(feature = "tls"))]
fn encrypted(_: Endpoint, _: Option<PathBuf>) -> Result<Endpoint, Error> {
    Err(Error::misuse(
        "An https:// target or a CA file needs the feature `tls` of the crate headway: turn it on in Cargo.toml.",
    ))
}

/// Adds the token to each call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn new(token: Option<String>) -> Result<Self, Error> {
        let Some(token) = token else {
            return Ok(Self(None));
        };
        let mut value = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Error::misuse("The token holds characters that no header can carry."))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Target").field("address", &self.address).field("tls", &self.tls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_they_should_be() {
        for good in ["localhost:50051", "127.0.0.1:1", "[::1]:50051", "http://a.b:1/", "https://a.b:65535"] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in
            ["", "localhost", ":1", "a:0", "a:65536", "a:+1", "::1:50051", "ftp://a:1", "a b:1", "a:1/x", "u@a:1"]
        {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn encryption_says_what_it_needs() {
        let error = Target::find(Some("https://localhost:50051".into()), None, None).unwrap_err();
        assert!(error.message().contains("feature `tls`"));
    }
}
