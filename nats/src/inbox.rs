//! What is addressed to one party, followed in the order of the board and acknowledged when its effects are stored.

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

use crate::board::{BoardError, LastTrouble, consumer_of, not_there_yet, persist};
use crate::call_error::CallError;
use crate::link::Link;
use crate::refusal::{Expected, Verb};
use crate::subject;

/// Messages asked for at a time: enough to keep chunks of 512 KiB flowing, few enough to hold in memory.
const BATCH: usize = 32;
/// How long the broker keeps one pull open.
const PULL: Duration = Duration::from_secs(30);
/// How often the broker says that an idle pull is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// After so many missed heartbeats in a row the pull is opened anew.
const MISSED: u32 = 2;

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

    /// Follows from the last acknowledgement on.
    pub(crate) async fn open(link: Link) -> Result<Self, BoardError> {
        let losses = link.losses();
        let mut inbox = Self { link, losses, losses_before: 0, pull: None, cursor: Arc::default(), missed: 0 };
        inbox.reopen().await?;
        Ok(inbox)
    }

    /// Goes back to the last acknowledgement and asks for what follows, as often as it takes.
    async fn reopen(&mut self) -> Result<(), BoardError> {
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
