//! One party's connection to the broker: mutual TLS 1.3 from the first byte, and errors that say what to do.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Message, RequestErrorKind, ServerError};
use bytes::Bytes;
use protocol::Name;
use rustls::{AlertDescription, CertificateError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::install::{FLOOR, Version};
use crate::quota::Quota;
use crate::reconnect::{Current, KNOCKS, Reconnector};
use crate::refusal::{Refusals, Verb};
use crate::subject;

/// How long a connection with its handshake may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the broker has to answer one request before it is asked again.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a lost connection is noticed without traffic.
const PING: Duration = Duration::from_secs(10);
/// What the broker reports and nobody waits for.
static REPORTED: Quota = Quota::new(20);

/// Where a broker listens.
///
/// ```
/// let here: nats::Endpoint = "localhost:4222".parse()?;
/// assert_eq!((here.host.as_str(), here.port), ("localhost", 4222));
/// assert_eq!("[::1]:4222".parse::<nats::Endpoint>()?.to_string(), "[::1]:4222");
/// # Ok::<(), nats::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A host name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The TCP port, never 0.
    pub port: u16,
}

/// A text that is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no broker's address: write host:port, such as localhost:4222")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.chars().take(100).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
        let host = match bare {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
            None if !host.is_empty() && plain(host) => host,
            _ => return Err(wrong()),
        };
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Why there is no [`Link`].
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nothing listens there, or nothing answers.
    #[error("no broker answers at {endpoint} ({reason}): start it with `ward broker`, or correct the address")]
    NoBroker {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        reason: String,
    },
    /// The broker's certificate is from another CA.
    #[error(
        "the broker at {endpoint} is not of this study: its certificate is from another authority. \
         It may be another home's broker: correct the address, or start this home's with `ward broker`"
    )]
    AnotherStudy {
        /// Where.
        endpoint: Endpoint,
    },
    /// The broker's certificate is from this study's CA, but not good for this address or at this time.
    #[error("the certificate of the broker at {endpoint} does not hold ({reason}): issue it a new one")]
    BrokerCertificate {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong with it.
        reason: String,
    },
    /// The broker takes the certificate, but no such name is listed.
    #[error(
        "the broker at {endpoint} does not list {name}: a party must be enrolled in the broker's home \
         under the very name and role of its certificate"
    )]
    NotListed {
        /// Where.
        endpoint: Endpoint,
        /// Who knocked.
        name: Name,
    },
    /// The party's own certificate has expired.
    #[error("the certificate of {name} has expired: make a new one with `ward certs request` and `ward certs sign`")]
    Expired {
        /// Whose.
        name: Name,
    },
    /// The broker does not take the party's certificate.
    #[error(
        "the broker at {endpoint} refuses the certificate of {name} ({reason}): \
         it must be a client's, signed by the authority of the broker's study"
    )]
    CertificateRefused {
        /// Where.
        endpoint: Endpoint,
        /// Whose.
        name: Name,
        /// The TLS alert.
        reason: String,
    },
    /// What listens there does not begin with TLS 1.3.
    #[error(
        "what answers at {endpoint} does not open with TLS 1.3 ({reason}): it is no broker of Ward's, \
         or older than {FLOOR}; correct the address, or start the broker with `ward broker`"
    )]
    NoTls {
        /// Where.
        endpoint: Endpoint,
        /// What went wrong.
        reason: String,
    },
    /// The broker is too old.
    #[error(
        "the broker at {endpoint} is nats-server {version}: Ward needs {FLOOR} or newer; start it with `ward broker`"
    )]
    TooOld {
        /// Where.
        endpoint: Endpoint,
        /// Its version, as it gives it.
        version: String,
    },
    /// The party's own files cannot be used.
    #[error("the certificate and key of {name} cannot be used: {reason}")]
    Credentials {
        /// Whose.
        name: Name,
        /// What is wrong with them.
        reason: String,
    },
}

impl LinkError {
    /// Whether the broker may just not be there yet, so that trying again is sensible.
    pub fn may_pass(&self) -> bool {
        matches!(self, LinkError::NoBroker { .. })
    }
}

/// Why one exchange with the broker failed. [`CallError::may_pass`] tells what is worth repeating.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The broker's permissions forbid it.
    #[error(
        "the broker does not let {name} use {subject}: its certificate's role does not allow it; \
         use the identity whose task it is"
    )]
    Refused {
        /// Who asked.
        name: Name,
        /// What for.
        subject: String,
    },
    /// More than the broker carries in one message.
    #[error("a message of {size} bytes is more than the broker carries: keep it below {limit} bytes")]
    TooLarge {
        /// Its payload's size.
        size: usize,
        /// The broker's limit, headers included.
        limit: usize,
    },
    /// The broker answered with an error of its own.
    #[error("the broker refuses {subject}: {description} (code {code})")]
    Broker {
        /// What was asked.
        subject: String,
        /// The HTTP-like class: 429 and 503 pass.
        class: u16,
        /// nats-server's own error code.
        code: u64,
        /// In its words.
        description: String,
    },
    /// The board has no room left.
    #[error(
        "the board is full: it has room again once a round or a session ends; if it stays full, \
         start `ward broker` again with more `--space`"
    )]
    BoardFull,
    /// Nobody serves that subject: the board is not there yet.
    #[error("the board is not there yet: `ward broker` makes it")]
    NoResponders,
    /// No answer in time.
    #[error("the broker did not answer within {} s", ANSWER.as_secs())]
    TimedOut,
    /// The connection went away before the answer came.
    #[error("the connection to the broker was lost")]
    Lost,
    /// [`Link::close`] was called.
    #[error("the connection to the broker was closed here")]
    Closed,
    /// An answer that is none.
    #[error("the broker's answer on {subject} cannot be read: {reason}")]
    Garbled {
        /// What was asked.
        subject: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl CallError {
    /// The same error with another text in its subject's place.
    fn speaking_of(mut self, what: &str) -> Self {
        if let CallError::Refused { subject, .. }
        | CallError::Broker { subject, .. }
        | CallError::Garbled { subject, .. } = &mut self
        {
            what.clone_into(subject);
        }
        self
    }

    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            CallError::NoResponders | CallError::TimedOut | CallError::Lost | CallError::BoardFull => true,
            CallError::Broker { class, .. } => matches!(class, 429 | 503),
            CallError::Refused { .. } | CallError::TooLarge { .. } | CallError::Closed | CallError::Garbled { .. } => {
                false
            }
        }
    }
}

/// A party's connection. Clones share it. It reconnects by itself for ever and ends when the last clone is dropped.
#[derive(Clone)]
pub struct Link {
    current: Arc<Current>,
    name: Name,
    endpoint: Endpoint,
    refusals: Arc<Refusals>,
    /// How often the connection was lost; every change of state touches it.
    losses: watch::Receiver<u64>,
}

impl Link {
    /// Connects with the party's certificate. Tries once: [`LinkError::may_pass`] says whether waiting may help.
    ///
    /// [`certs::install_provider`] must have been called before, or TLS has no algorithms.
    pub async fn connect(endpoint: &Endpoint, credentials: &certs::Credentials) -> Result<Self, LinkError> {
        let there = endpoint.clone();
        Self::connect_following(endpoint, credentials, move || Some(there.clone())).await
    }

    /// As [`Link::connect`]; but each time that a lost connection is made again, `whereabouts` says where the broker is:
    /// one that is started again may listen elsewhere. `None` means that nobody knows yet: it is asked again soon.
    pub async fn connect_following(
        endpoint: &Endpoint,
        credentials: &certs::Credentials,
        whereabouts: impl Fn() -> Option<Endpoint> + Send + Sync + 'static,
    ) -> Result<Self, LinkError> {
        let name = credentials.identity().name.clone();
        let refusals = Arc::new(Refusals::default());
        let (losses_sender, losses) = watch::channel(0);
        let ended = Arc::new(Notify::new());
        let options = options(&name, credentials).max_reconnects(KNOCKS).event_callback({
            let (refusals, name) = (Arc::clone(&refusals), name.clone());
            let (losses, ended) = (losses_sender.clone(), Arc::clone(&ended));
            move |event| {
                if matches!(event, Event::Closed) {
                    ended.notify_one();
                }
                on_event(&name, &event, &refusals, &losses);
                std::future::ready(())
            }
        });
        let client = options
            .clone()
            .connect(format!("tls://{endpoint}"))
            .await
            .map_err(|error| explain(endpoint, &name, &error))?;
        check_version(endpoint, &client.server_info().version)?;
        let current = Arc::new(Current::new(client));
        let reconnector = Reconnector {
            name: name.clone(),
            current: Arc::downgrade(&current),
            options,
            whereabouts,
            ended,
            losses: losses_sender,
        };
        tokio::spawn(reconnector.run());
        Ok(Self { current, name, endpoint: endpoint.clone(), refusals, losses })
    }

    /// Whose connection it is.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Where it led at first.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends what is queued and closes the connection.
    pub async fn close(&self) {
        if let Err(error) = self.current.close().drain().await {
            tracing::debug!(name = %self.name, %error, "the connection was closed already");
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.current.get()
    }

    pub(crate) fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Counts lost connections; changes at every loss and every reconnection.
    pub(crate) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.clone()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client().connection_state() == State::Connected
    }

    /// Returns as soon as there is a connection; an error if there will be none any more.
    pub(crate) async fn connected(&self) -> Result<(), CallError> {
        let mut changes = self.losses();
        loop {
            if self.current.is_closed() {
                return Err(CallError::Closed);
            }
            if self.is_connected() {
                return Ok(());
            }
            // An event may be dropped when many come at once: look again after a while.
            let change = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
            // The sender is the connection's own.
            if let Ok(Err(_)) = change {
                return Err(CallError::Closed);
            }
        }
    }

    /// Asks anything of the broker by its bare subject and returns the answer's payload: for tools, and for tests of what
    /// a party may not do. The board's own calls are [`crate::Board`]'s.
    pub async fn ask(&self, subject: &str, payload: Bytes) -> Result<Bytes, CallError> {
        self.request(subject.into(), None, payload).await.map(|answer| answer.payload)
    }

    /// Sends one request and returns its answer, whatever it says.
    pub(crate) async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, CallError> {
        let size = payload.len();
        let mut expected = self.refusals.expect(Verb::Publish, subject.clone());
        let mut losses = self.losses();
        let before = *losses.borrow_and_update();
        let mut request = async_nats::Request::new().payload(payload).timeout(Some(ANSWER));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let client = self.client();
        let answer = tokio::time::timeout(ANSWER, client.send_request(subject.clone(), request));
        tokio::select! {
            biased;
            () = expected.refused() => Err(CallError::Refused { name: self.name.clone(), subject }),
            answer = answer => match answer {
                Err(_) => Err(CallError::TimedOut),
                Ok(answer) => answer.map_err(|error| self.call_error(subject, size, &error)),
            },
            _ = losses.wait_for(|&now| now != before) => Err(CallError::Lost),
        }
    }

    fn call_error(&self, subject: String, size: usize, error: &async_nats::RequestError) -> CallError {
        match error.kind() {
            RequestErrorKind::TimedOut => CallError::TimedOut,
            RequestErrorKind::NoResponders => CallError::NoResponders,
            RequestErrorKind::MaxPayloadExceeded => CallError::TooLarge { size, limit: self.client().max_payload() },
            RequestErrorKind::InvalidSubject => CallError::Garbled { subject, reason: error.to_string() },
            RequestErrorKind::Other => CallError::Lost,
        }
    }

    /// As [`Link::api`], of a subject with a consumer's secret name in it: an error speaks of `name` instead.
    pub(crate) async fn api_named<T: DeserializeOwned>(
        &self,
        name: &str,
        subject: String,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.api(subject, body).await.map_err(|error| error.speaking_of(&format!("the consumer of {name}")))
    }

    /// Sends one request of the JetStream API and reads its answer.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        subject: String,
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        let garbled =
            |error: serde_json::Error| CallError::Garbled { subject: subject.clone(), reason: error.to_string() };
        let body = serde_json::to_vec(body).map_err(garbled)?;
        let answer = self.request(subject.clone(), None, body.into()).await?;
        match serde_json::from_slice(&answer.payload).map_err(garbled)? {
            Answer::Ok(value) => Ok(value),
            Answer::Err { error } => Err(error.about(subject)),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("name", &self.name).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// An answer of JetStream's.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Answer<T> {
    Err { error: ApiError },
    Ok(T),
}

/// An error of JetStream's.
#[derive(Deserialize)]
pub(crate) struct ApiError {
    code: u16,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

impl ApiError {
    pub(crate) fn about(self, subject: impl Into<String>) -> CallError {
        let Self { code, err_code, description } = self;
        CallError::Broker { subject: subject.into(), class: code, code: err_code, description }
    }
}

/// The form with paths, not with a rustls configuration: the latter reads the platform's certificates at every
/// connection and fails where they cannot be read, though nothing uses them.
fn options(name: &Name, credentials: &certs::Credentials) -> ConnectOptions {
    ConnectOptions::new()
        .name(name)
        .require_tls(true)
        .tls_first()
        .add_root_certificates(credentials.ca_path())
        .add_client_certificate(credentials.certificate_path(), credentials.key_path())
        .custom_inbox_prefix(subject::inbox_prefix(name))
        .connection_timeout(CONNECT)
        .request_timeout(None)
        .ping_interval(PING)
        .ignore_discovered_servers()
        // Each queued command may be a chunk of 512 KiB.
        .client_capacity(64)
        .reconnect_delay_callback(|attempts| {
            Duration::from_millis(25 << attempts.saturating_sub(1).min(6)).min(Duration::from_secs(1))
        })
}

fn on_event(name: &Name, event: &Event, refusals: &Refusals, losses: &watch::Sender<u64>) {
    match event {
        Event::ServerError(ServerError::Other(line)) if refusals.report(line) => {}
        Event::Disconnected => losses.send_modify(|count| *count += 1),
        Event::Connected => losses.send_modify(|_| ()),
        Event::ServerError(error) => {
            if let Some(note) = REPORTED.pass() {
                tracing::warn!(%name, "the broker reports an error: {error}{note}");
            }
        }
        other => tracing::debug!(%name, event = %other, "connection"),
    }
}

pub(crate) fn check_version(endpoint: &Endpoint, version: &str) -> Result<(), LinkError> {
    match version.parse::<Version>() {
        Ok(parsed) if parsed >= FLOOR => Ok(()),
        _ => Err(LinkError::TooOld { endpoint: endpoint.clone(), version: version.into() }),
    }
}

/// Finds out what stands behind async-nats' error: the broker's refusal, TLS, or the network.
fn explain(endpoint: &Endpoint, name: &Name, error: &async_nats::ConnectError) -> LinkError {
    let (endpoint, name) = (endpoint.clone(), name.clone());
    if let Some(tls) = find::<rustls::Error>(error) {
        return explain_tls(endpoint, name, tls);
    }
    let reason = innermost(error);
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            LinkError::NotListed { endpoint, name }
        }
        ConnectErrorKind::Tls => LinkError::Credentials { name, reason },
        // Whatever accepts the connection and then says nothing that NATS knows.
        ConnectErrorKind::Io if find::<io::Error>(error).is_none() => LinkError::NoTls { endpoint, reason },
        _ => LinkError::NoBroker { endpoint, reason },
    }
}

fn explain_tls(endpoint: Endpoint, name: Name, error: &rustls::Error) -> LinkError {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            LinkError::AnotherStudy { endpoint }
        }
        rustls::Error::InvalidCertificate(reason) => {
            LinkError::BrokerCertificate { endpoint, reason: reason.to_string() }
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => LinkError::Expired { name },
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateRequired),
        ) => LinkError::CertificateRefused { endpoint, name, reason: format!("{alert:?}") },
        other => LinkError::NoTls { endpoint, reason: other.to_string() },
    }
}

/// The first `E` among an error and its sources, also inside an [`io::Error`], which does not name what it wraps as its source.
fn find<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    if let Some(found) = error.downcast_ref::<E>() {
        return Some(found);
    }
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.and_then(|inner| find::<E>(inner)).or_else(|| error.source().and_then(find::<E>))
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_endpoint_has_a_host_and_a_port() {
        for good in ["localhost:4222", "127.0.0.1:1", "[::1]:4222", "broker.example.org:65535"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "localhost",
            ":4222",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "a b:1",
            "::1:4222",
            "[x]:1",
            "tls://h:1",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_broker_below_the_floor_is_refused() {
        let here: Endpoint = "localhost:4222".parse().unwrap();
        assert!(check_version(&here, "2.14.0").is_ok());
        assert!(check_version(&here, "3.0.0-beta.1").is_ok());
        for old in ["2.9.10", "2.13.99", "", "what"] {
            let error = check_version(&here, old).unwrap_err();
            assert!(error.to_string().contains("2.14"), "{error}");
        }
    }
}
