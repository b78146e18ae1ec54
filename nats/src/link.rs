//! One party's connection to the broker: mutual TLS 1.3 from the first byte, and errors that say what to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, RequestErrorKind, ServerError};
use bytes::Bytes;
use protocol::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};

use crate::call_error::{ANSWER, Answer, CallError};
use crate::endpoint::Endpoint;
use crate::link_error::{LinkError, check_version, explain};
use crate::quota::Quota;
use crate::reconnect::{Current, KNOCKS, Reconnector};
use crate::refusal::{Refusals, Verb};
use crate::subject;

/// How long a connection with its handshake may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a lost connection is noticed without traffic.
const PING: Duration = Duration::from_secs(10);
/// What the broker reports and nobody waits for.
static REPORTED: Quota = Quota::new(20);

/// A party's connection. Clones share it. It reconnects by itself for ever, unless the broker
/// has taken it off its list, and ends when the last clone is dropped.
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
            if let Some(end) = self.current.end(&self.name) {
                return Err(end);
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
