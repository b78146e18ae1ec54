//! The board: a message has a name of its own, is written once, and can be read again by its name (PROTOCOL.md, *The board*).

use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::publish::PublishAck;
use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use protocol::Address;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::call_error::{Answer, CallError};
use crate::inbox::Inbox;
use crate::link::Link;
use crate::quota::Quota;
use crate::stream::Stream;
use crate::subject;

/// Says what a message is, for people and monitors.
pub(crate) const KIND_HEADER: &str = "Ward-Kind";
/// Says which round a message belongs to, for people and monitors.
pub(crate) const ROUND_HEADER: &str = "Ward-Round";

/// JetStream's code for "the store refused it"; only the text says why.
const STORE_REFUSED: u64 = 10_077;
/// The store's text for the second write of a name.
const WRITTEN_BEFORE: &str = "maximum messages per subject exceeded";
/// The store's text when there is no room left.
const FULL: &str = "maximum bytes exceeded";
/// Said while a party waits for room on the board.
static NO_ROOM: Quota = Quota::new(2);
/// JetStream's codes for a consumer, and for a stream, that is not there.
const NOT_THERE: [u64; 2] = [10_014, 10_059];

/// What became of a message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It was written now.
    New,
    /// Its name was taken: an earlier attempt, or an earlier life of this party, had written it.
    Already,
}

/// Why the board could not be used.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The call failed for good.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The deadline passed; the reason is that of the last attempt.
    #[error("the board did not take part in time: {last}")]
    TimedOut {
        /// What went wrong last.
        last: String,
    },
    /// What the board delivered cannot be taken apart.
    #[error("the broker delivered something that is no message of the board: {0}")]
    Garbled(String),
}

impl BoardError {
    /// Whether the broker's permissions forbid the call.
    pub fn is_refused(&self) -> bool {
        matches!(self, BoardError::Call(CallError::Refused { .. }))
    }
}

/// The board over one party's link. Clones share the link; any number of calls may run at once, and the caller bounds
/// what is in flight (64 MiB over all parties, or the broker refuses some, which are then sent again).
#[derive(Clone, Debug)]
pub struct Board {
    link: Link,
}

impl Board {
    /// The board as `link`'s party sees it.
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// The link below.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Counts the losses of the connection; it is made again by itself. A count that grew means that the broker may have
    /// been started again and may have lost what it had acknowledged: publish again what must stand on the board, which
    /// waits for the new connection by itself and does no harm where nothing was lost (PROTOCOL.md, *The board*).
    ///
    /// The receiver is also woken by the new connection, with the count unchanged: compare counts, as
    /// `losses.wait_for(|&now| now != before)` does. It ends when the connection ends for good.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.link.losses()
    }

    /// Writes a message and waits for the broker's acknowledgement, for ever if need be: it outlasts a broker that is
    /// busy, restarting, full or not there yet. Writing is idempotent by name, so a repeated attempt does no harm.
    /// The acknowledgement is no proof of storage.
    pub async fn publish(&self, address: &Address, payload: Bytes) -> Result<Published, BoardError> {
        self.write(address, payload, &LastTrouble::default()).await
    }

    /// As [`Board::publish`], but gives up at `deadline`.
    pub async fn publish_until(
        &self,
        address: &Address,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<Published, BoardError> {
        let last = LastTrouble::default();
        match tokio::time::timeout_at(deadline, self.write(address, payload, &last)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(BoardError::TimedOut { last: last.text() }),
        }
    }

    async fn write(&self, address: &Address, payload: Bytes, last: &LastTrouble) -> Result<Published, BoardError> {
        let subject = subject::subject(address);
        persist(&self.link, last, || self.write_once(&subject, address, payload.clone())).await
    }

    async fn write_once(&self, subject: &str, address: &Address, payload: Bytes) -> Result<Published, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(KIND_HEADER, address.kind.as_str());
        headers.insert(ROUND_HEADER, address.round.to_string().as_str());
        let answer = self.link.request(subject.into(), Some(headers), payload).await?;
        let garbled =
            |error: serde_json::Error| CallError::Garbled { subject: subject.into(), reason: error.to_string() };
        match serde_json::from_slice::<Answer<PublishAck>>(&answer.payload).map_err(garbled)? {
            Answer::Ok(_) => Ok(Published::New),
            Answer::Err { error } if error.err_code == STORE_REFUSED && error.description == WRITTEN_BEFORE => {
                Ok(Published::Already)
            }
            Answer::Err { error } if error.err_code == STORE_REFUSED && error.description == FULL => {
                Err(CallError::BoardFull)
            }
            Answer::Err { error } => Err(error.about(subject)),
        }
    }

    /// Reads the message at `address` by its name; `None` if the board does not have it. Outlasts a broker that is away.
    /// Only servers and the hospital may, see [`crate::permissions`].
    pub async fn read(&self, address: &Address) -> Result<Option<Bytes>, BoardError> {
        let subject = Stream::of(address.kind).direct_get(&subject::subject(address));
        persist(&self.link, &LastTrouble::default(), || self.read_once(&subject)).await
    }

    async fn read_once(&self, subject: &str) -> Result<Option<Bytes>, CallError> {
        let answer = self.link.request(subject.into(), None, Bytes::new()).await?;
        match answer.status {
            None => Ok(Some(answer.payload)),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(CallError::Broker {
                subject: subject.into(),
                class: status.as_u16(),
                code: 0,
                description: answer.description.unwrap_or_default(),
            }),
        }
    }

    /// How many messages for this party the broker has not handed over yet. Tries once.
    pub async fn pending(&self) -> Result<u64, CallError> {
        let me = self.link.name().as_str();
        let mut pending = 0;
        for (stream, consumer) in consumers_of(&self.link).await?.both() {
            let info: Info = self.link.api_named(me, stream.consumer_info(consumer), &json!({})).await?;
            pending += info.num_pending;
        }
        Ok(pending)
    }

    /// The name of this party's consumer of messages, as its signpost says: not to be shown to anybody, see
    /// [`crate::consumers`]. Tries once.
    pub async fn consumer(&self) -> Result<String, CallError> {
        Ok(consumers_of(&self.link).await?.messages)
    }

    /// Follows what is addressed to this party and to everybody, from the last acknowledged message on. Waits until the
    /// operator has made this party's consumer.
    pub async fn follow(&self) -> Result<Inbox, BoardError> {
        Inbox::open(self.link.clone()).await
    }
}

/// The names of a party's consumers.
pub(crate) struct Consumers {
    pub(crate) messages: String,
    /// Of a party that follows chunks too.
    pub(crate) chunks: Option<String>,
}

impl Consumers {
    /// Those that there are, with their streams.
    fn both(&self) -> impl Iterator<Item = (Stream, &str)> {
        let chunks = self.chunks.as_deref().map(|consumer| (Stream::Chunks, consumer));
        std::iter::once((Stream::Messages, self.messages.as_str())).chain(chunks)
    }

    /// That of one stream.
    pub(crate) fn of(self, stream: Stream) -> Option<String> {
        match stream {
            Stream::Messages => Some(self.messages),
            Stream::Chunks => self.chunks,
        }
    }
}

/// Asks the signpost of the link's party for the names of its consumers.
pub(crate) async fn consumers_of(link: &Link) -> Result<Consumers, CallError> {
    let ask = Stream::Messages.consumer_info(link.name().as_str());
    let signpost: Info = not_there_yet(link.api(ask, &json!({})).await)?;
    let named = |key| signpost.config.metadata.get(key).cloned();
    let messages = named(subject::SIGNPOST_KEY).ok_or(CallError::NoResponders)?;
    Ok(Consumers { messages, chunks: named(subject::SIGNPOST_CHUNKS_KEY) })
}

/// A stream or consumer that is not there is one that the operator has not made yet.
pub(crate) fn not_there_yet<T>(answer: Result<T, CallError>) -> Result<T, CallError> {
    match answer {
        Err(CallError::Broker { code, .. }) if NOT_THERE.contains(&code) => Err(CallError::NoResponders),
        other => other,
    }
}

/// The last passing error of a call that is being repeated, for the message when time runs out.
#[derive(Default)]
pub(crate) struct LastTrouble(std::sync::Mutex<Option<String>>);

impl LastTrouble {
    fn set(&self, error: &CallError) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error.to_string());
    }

    fn text(&self) -> String {
        let last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        last.unwrap_or_else(|| "no connection to the broker, or no answer yet".into())
    }
}

/// Repeats a call for as long as its error may pass, with growing pauses.
pub(crate) async fn persist<T, F>(link: &Link, last: &LastTrouble, call: impl Fn() -> F) -> Result<T, BoardError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut pause = Duration::from_millis(10);
    loop {
        link.connected().await?;
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) if error.may_pass() => {
                tracing::debug!(name = %link.name(), %error, "trying again");
                if matches!(error, CallError::BoardFull)
                    && let Some(note) = NO_ROOM.pass()
                {
                    tracing::warn!(name = %link.name(), "{error}{note}");
                }
                last.set(&error);
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
