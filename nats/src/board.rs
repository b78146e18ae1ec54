//! The board: a message has a name of its own, is written once, and can be read again by its name (design, section 6).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, Info, pull};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, Message};
use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use protocol::Address;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::link::{Answer, CallError, Link};
use crate::quota::Quota;
use crate::refusal::{Expected, Verb};
use crate::subject;

/// Says what a message is, for people and monitors.
pub(crate) const KIND_HEADER: &str = "Ward-Kind";
/// Says which round a message belongs to, for people and monitors.
pub(crate) const ROUND_HEADER: &str = "Ward-Round";

/// Messages asked for at a time: enough to keep chunks of 512 KiB flowing, few enough to hold in memory.
const BATCH: usize = 32;
/// How long the broker keeps one pull open.
const PULL: Duration = Duration::from_secs(30);
/// How often the broker says that an idle pull is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After so many missed heartbeats in a row the pull is opened anew.
const MISSED: u32 = 2;

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
    /// waits for the new connection by itself and does no harm where nothing was lost (design, section 6).
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
        let subject = subject::direct_get(&subject::subject(address));
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
        let consumer = self.consumer().await?;
        let info: Info = self.link.api_named(me, subject::consumer_info(&consumer), &json!({})).await?;
        Ok(info.num_pending)
    }

    /// The name of this party's consumer, as its signpost says: not to be shown to anybody, see [`crate::consumers`].
    /// Tries once.
    pub async fn consumer(&self) -> Result<String, CallError> {
        consumer_of(&self.link).await
    }

    /// Follows what is addressed to this party and to everybody, from the last acknowledged message on. Waits until the
    /// operator has made this party's consumer.
    pub async fn follow(&self) -> Result<Inbox, BoardError> {
        let mut inbox = Inbox {
            link: self.link.clone(),
            losses: self.link.losses(),
            losses_before: 0,
            pull: None,
            cursor: Arc::default(),
            missed: 0,
        };
        inbox.open().await?;
        Ok(inbox)
    }
}

/// What is addressed to one party, in the order of the board. It survives broken connections and broker restarts:
/// it then goes back to the last acknowledgement, so messages may come again.
pub struct Inbox {
    link: Link,
    losses: watch::Receiver<u64>,
    /// How many there were when the pull was opened.
    losses_before: u64,
    /// None after a loss, until it is opened anew.
    pull: Option<Pull>,
    cursor: Arc<Cursor>,
    missed: u32,
}

/// An open pull from a party's consumer.
struct Pull {
    messages: pull::Stream,
    refused: Expected,
}

/// What happens to one that waits at an inbox.
#[expect(clippy::large_enum_variant, reason = "it lives for one match and is kept nowhere")]
enum Event {
    Refused,
    Lost,
    Item(Option<Result<Message, pull::MessagesError>>),
}

/// How far one inbox is.
#[derive(Debug, Default)]
struct Cursor {
    /// Counts openings: an acknowledgement of an earlier opening is void, as the broker has gone back since.
    epoch: AtomicU64,
    /// The board's sequence number of the last message handed out, in this epoch.
    handed_out: AtomicU64,
    /// The same of the last one acknowledged.
    acknowledged: AtomicU64,
}

impl Inbox {
    /// The next message. Cancel safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Delivery, BoardError> {
        loop {
            let Some(pull) = &mut self.pull else {
                self.open().await?;
                continue;
            };
            let before = self.losses_before;
            let event = tokio::select! {
                biased;
                () = pull.refused.refused() => Event::Refused,
                _ = self.losses.wait_for(|&now| now != before) => Event::Lost,
                item = pull.messages.next() => Event::Item(item),
            };
            match event {
                Event::Refused => return Err(self.refusal()),
                // What was on its way is lost with the connection, and would come again only after the ack wait.
                Event::Lost | Event::Item(None) => self.pull = None,
                Event::Item(Some(Ok(message))) => {
                    self.missed = 0;
                    if let Some(delivery) = self.take(message).await? {
                        return Ok(delivery);
                    }
                }
                Event::Item(Some(Err(error))) => self.on_error(&error),
            }
        }
    }

    fn refusal(&self) -> BoardError {
        let name = self.link.name().clone();
        let subject = subject::consumer_next(name.as_str());
        CallError::Refused { name, subject }.into()
    }

    fn on_error(&mut self, error: &pull::MessagesError) {
        let name = self.link.name();
        if error.kind() == pull::MessagesErrorKind::MissingHeartbeat && self.missed + 1 < MISSED {
            self.missed += 1;
            tracing::debug!(%name, "the board is silent");
        } else {
            tracing::debug!(%name, %error, "following the board anew");
            self.missed = 0;
            self.pull = None;
        }
    }

    /// Goes back to the last acknowledgement and asks for what follows, as often as it takes.
    async fn open(&mut self) -> Result<(), BoardError> {
        self.losses_before = *self.losses.borrow();
        self.cursor.epoch.fetch_add(1, Ordering::AcqRel);
        let pull = persist(&self.link, &LastTrouble::default(), || self.open_once()).await?;
        self.pull = Some(pull);
        self.cursor.handed_out.store(0, Ordering::Relaxed);
        self.cursor.acknowledged.store(0, Ordering::Relaxed);
        Ok(())
    }

    async fn open_once(&self) -> Result<Pull, CallError> {
        let me = self.link.name().as_str();
        let consumer = consumer_of(&self.link).await?;
        let reset = self.link.api_named(me, subject::consumer_reset(&consumer), &json!({ "seq": 0 })).await;
        let info: Info = not_there_yet(reset)?;
        let refused = self.link.refusals().expect(Verb::Publish, subject::consumer_next(&consumer));
        let config = pull::Config { durable_name: Some(consumer), ..Default::default() };
        let messages = Consumer::new(config, info, jetstream::new(self.link.client()))
            .stream()
            .max_messages_per_batch(BATCH)
            .expires(PULL)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|_| CallError::Lost)?;
        Ok(Pull { messages, refused })
    }

    /// A message as a delivery, or `None` if it is junk under a subject that no party of Ward's would write.
    async fn take(&self, message: Message) -> Result<Option<Delivery>, BoardError> {
        let sequence = message.info().map_err(|error| BoardError::Garbled(error.to_string()))?.stream_sequence;
        match subject::parse(&message.subject) {
            Ok(address) => {
                self.cursor.handed_out.store(sequence, Ordering::Relaxed);
                let epoch = self.cursor.epoch.load(Ordering::Acquire);
                let (link, cursor, losses) = (self.link.clone(), Arc::clone(&self.cursor), self.losses_before);
                let ticket = Ticket { link, cursor, epoch, losses, sequence };
                Ok(Some(Delivery { address, payload: message.payload.clone(), message, ticket }))
            }
            Err(error) => {
                tracing::debug!(name = %self.link.name(), %error, "junk on the board");
                // Acknowledging acknowledges all before it: only when nothing before it is still open.
                if self.cursor.nothing_open() {
                    acknowledge(&self.link, &message).await;
                }
                Ok(None)
            }
        }
    }
}

impl Cursor {
    fn nothing_open(&self) -> bool {
        self.acknowledged.load(Ordering::Relaxed) >= self.handed_out.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("link", &self.link).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// A message from the board, yet to be acknowledged.
pub struct Delivery {
    /// Where it stands; a hint, as the broker gives it.
    pub address: Address,
    /// Its bytes as they were written.
    pub payload: Bytes,
    message: Message,
    ticket: Ticket,
}

struct Ticket {
    link: Link,
    cursor: Arc<Cursor>,
    epoch: u64,
    losses: u64,
    sequence: u64,
}

impl Ticket {
    /// Whether the broker still counts as it did at the delivery. After a reset, a reconnection or a restart its consumer
    /// may number deliveries from 1 again, and an old number would make it ignore new acknowledgements.
    fn is_valid(&self) -> bool {
        self.epoch == self.cursor.epoch.load(Ordering::Acquire) && self.losses == *self.link.losses().borrow()
    }
}

impl Delivery {
    /// Its place in the board's order. Says nothing about messages' order in the protocol.
    pub fn sequence(&self) -> u64 {
        self.ticket.sequence
    }

    /// Acknowledges this message **and all before it**: call it once the effects of all of them are stored. It waits for
    /// no answer; an acknowledgement that is lost only means that the messages come again.
    pub async fn ack(&self) {
        let Ticket { link, cursor, sequence, .. } = &self.ticket;
        if self.ticket.is_valid() {
            acknowledge(link, &self.message).await;
            cursor.acknowledged.fetch_max(*sequence, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("address", &self.address)
            .field("bytes", &self.payload.len())
            .field("sequence", &self.ticket.sequence)
            .finish()
    }
}

/// While the connection is away an acknowledgement would only wait for it, and be void afterwards.
async fn acknowledge(link: &Link, message: &Message) {
    if !link.is_connected() {
        return;
    }
    match tokio::time::timeout(Duration::from_secs(1), message.ack()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(name = %link.name(), %error, "not acknowledged"),
        Err(_) => tracing::debug!(name = %link.name(), "not acknowledged: the connection is stuck"),
    }
}

/// Asks the signpost of the link's party for the name of its consumer.
async fn consumer_of(link: &Link) -> Result<String, CallError> {
    let signpost: Info = not_there_yet(link.api(subject::consumer_info(link.name().as_str()), &json!({})).await)?;
    signpost.config.metadata.get(subject::SIGNPOST_KEY).cloned().ok_or(CallError::NoResponders)
}

/// A stream or consumer that is not there is one that the operator has not made yet.
fn not_there_yet<T>(answer: Result<T, CallError>) -> Result<T, CallError> {
    match answer {
        Err(CallError::Broker { code, .. }) if NOT_THERE.contains(&code) => Err(CallError::NoResponders),
        other => other,
    }
}

/// The last passing error of a call that is being repeated, for the message when time runs out.
#[derive(Default)]
struct LastTrouble(std::sync::Mutex<Option<String>>);

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
async fn persist<T, F>(link: &Link, last: &LastTrouble, call: impl Fn() -> F) -> Result<T, BoardError>
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
