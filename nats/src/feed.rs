//! What is addressed to one party in one stream, followed in the order of the stream and acknowledged when its effects
//! are stored.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, Info, pull};
use async_nats::jetstream::{self, Message};
use bytes::Bytes;
use futures::StreamExt;
use protocol::Address;
use serde_json::json;
use tokio::sync::watch;

use crate::board::{BoardError, LastTrouble, consumers_of, not_there_yet, persist};
use crate::call_error::CallError;
use crate::link::Link;
use crate::refusal::{Expected, Verb};
use crate::stream::Stream;
use crate::subject;

/// Messages asked for at a time: enough to keep chunks of 512 KiB flowing, few enough to hold in memory.
const BATCH: usize = 16;
/// How long the broker keeps one pull open.
const PULL: Duration = Duration::from_secs(30);
/// How often the broker says that an idle pull is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After so many missed heartbeats in a row the pull is opened anew.
const MISSED: u32 = 2;

/// What is addressed to one party in one stream, in its order. It survives broken connections and broker restarts:
/// it then goes back to the last acknowledgement, so messages may come again.
pub(crate) struct Feed {
    link: Link,
    stream: Stream,
    losses: watch::Receiver<u64>,
    /// How many there were when the pull was opened.
    losses_before: u64,
    /// None after a loss, until it is opened anew.
    pull: Option<Pull>,
    cursor: Arc<Cursor>,
    missed: u32,
    /// How many messages the broker still had for this party when it was last heard of.
    behind: u64,
    /// For the last message that was handed out.
    last: Option<Receipt>,
}

/// An open pull from a party's consumer.
struct Pull {
    messages: pull::Stream,
    refused: Expected,
    /// How many messages it begins with.
    pending: u64,
}

/// A message as it came.
pub(crate) struct Received {
    pub(crate) address: Address,
    pub(crate) payload: Bytes,
    pub(crate) receipt: Receipt,
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

impl Feed {
    /// The next message. Cancel safe: dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Received, BoardError> {
        loop {
            let Some(pull) = &mut self.pull else {
                self.reopen().await?;
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
                    if let Some(received) = self.take(message).await? {
                        return Ok(received);
                    }
                }
                Event::Item(Some(Err(error))) => self.on_error(&error),
            }
        }
    }

    fn refusal(&self) -> BoardError {
        let name = self.link.name().clone();
        let subject = self.stream.consumer_next(name.as_str());
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

    /// Follows `stream` from the last acknowledgement on.
    pub(crate) async fn open(link: Link, stream: Stream) -> Result<Self, BoardError> {
        let (losses, cursor) = (link.losses(), Arc::default());
        let mut feed =
            Self { link, stream, losses, losses_before: 0, pull: None, cursor, missed: 0, behind: 0, last: None };
        feed.reopen().await?;
        Ok(feed)
    }

    /// Whether the broker had more for this party when it was last heard of.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind > 0
    }

    /// Nothing more is expected until the broker is heard of again.
    pub(crate) fn count_as_caught_up(&mut self) {
        self.behind = 0;
    }

    /// For the last message that was handed out.
    pub(crate) fn last(&self) -> Option<Receipt> {
        self.last.clone()
    }

    /// Goes back to the last acknowledgement and asks for what follows, as often as it takes.
    async fn reopen(&mut self) -> Result<(), BoardError> {
        self.losses_before = *self.losses.borrow();
        self.cursor.epoch.fetch_add(1, Ordering::AcqRel);
        let pull = persist(&self.link, &LastTrouble::default(), || self.open_once()).await?;
        self.behind = pull.pending;
        self.pull = Some(pull);
        self.last = None;
        self.cursor.handed_out.store(0, Ordering::Relaxed);
        self.cursor.acknowledged.store(0, Ordering::Relaxed);
        Ok(())
    }

    async fn open_once(&self) -> Result<Pull, CallError> {
        let me = self.link.name().as_str();
        let consumer = consumers_of(&self.link).await?.of(self.stream).ok_or(CallError::NoResponders)?;
        let reset = self.link.api_named(me, self.stream.consumer_reset(&consumer), &json!({ "seq": 0 })).await;
        let info: Info = not_there_yet(reset)?;
        let pending = info.num_pending;
        let refused = self.link.refusals().expect(Verb::Publish, self.stream.consumer_next(&consumer));
        let config = pull::Config { durable_name: Some(consumer), ..Default::default() };
        let messages = Consumer::new(config, info, jetstream::new(self.link.client()))
            .stream()
            .max_messages_per_batch(BATCH)
            .expires(PULL)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|_| CallError::Lost)?;
        Ok(Pull { messages, refused, pending })
    }

    /// A message taken apart, or `None` if it is junk under a subject that no party of Ward's would write.
    async fn take(&mut self, mut message: Message) -> Result<Option<Received>, BoardError> {
        let info = message.info().map_err(|error| BoardError::Garbled(error.to_string()))?;
        let sequence = info.stream_sequence;
        self.behind = info.pending;
        match subject::parse(&message.subject) {
            Ok(address) => {
                self.cursor.handed_out.store(sequence, Ordering::Relaxed);
                let epoch = self.cursor.epoch.load(Ordering::Acquire);
                let payload = std::mem::take(&mut message.message.payload);
                let (link, cursor, losses) = (self.link.clone(), Arc::clone(&self.cursor), self.losses_before);
                let receipt = Receipt { link, message, cursor, epoch, losses, sequence };
                self.last = Some(receipt.clone());
                Ok(Some(Received { address, payload, receipt }))
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

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { link, stream, cursor, .. } = self;
        f.debug_struct("Feed")
            .field("link", link)
            .field("stream", stream)
            .field("cursor", cursor)
            .finish_non_exhaustive()
    }
}

/// Acknowledges one message and all before it in its stream.
#[derive(Clone)]
pub(crate) struct Receipt {
    link: Link,
    /// Without its payload.
    message: Message,
    cursor: Arc<Cursor>,
    epoch: u64,
    losses: u64,
    pub(crate) sequence: u64,
}

impl Receipt {
    /// Whether the broker still counts as it did at the delivery. After a reset, a reconnection or a restart its consumer
    /// may number deliveries from 1 again, and an old number would make it ignore new acknowledgements.
    fn is_valid(&self) -> bool {
        self.epoch == self.cursor.epoch.load(Ordering::Acquire) && self.losses == *self.link.losses().borrow()
    }

    /// Acknowledges it, unless a later one was. It waits for no answer.
    pub(crate) async fn ack(&self) {
        if self.is_valid() && self.cursor.acknowledged.load(Ordering::Relaxed) < self.sequence {
            acknowledge(&self.link, &self.message).await;
            self.cursor.acknowledged.fetch_max(self.sequence, Ordering::Relaxed);
        }
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
