//! What is addressed to one party, followed in both streams and acknowledged when its effects are stored.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use protocol::Address;

use crate::board::{BoardError, LastTrouble, consumers_of, persist};
use crate::feed::{Feed, Receipt, Received};
use crate::link::Link;
use crate::stream::Stream;

/// How long a chunk waits for messages that the broker says it has and that do not come.
const HEAD_START: Duration = Duration::from_millis(100);

/// What is addressed to one party, in the order of the board; of a chunk and a message written at about the same time the
/// message comes first. It survives broken connections and broker restarts: it then goes back to the last
/// acknowledgement, so messages may come again.
#[derive(Debug)]
pub struct Inbox {
    messages: Feed,
    /// Of a server or the hospital.
    chunks: Option<Feed>,
}

impl Inbox {
    /// Follows from the last acknowledgement on.
    pub(crate) async fn open(link: Link) -> Result<Self, BoardError> {
        let consumers = persist(&link, &LastTrouble::default(), || consumers_of(&link)).await?;
        let chunks = match consumers.of(Stream::Chunks) {
            Some(_) => Some(Feed::open(link.clone(), Stream::Chunks).await?),
            None => None,
        };
        Ok(Self { messages: Feed::open(link, Stream::Messages).await?, chunks })
    }

    /// The next message. Cancel safe: dropping the future loses nothing.
    ///
    /// A chunk is of use only to who knows the message that names it, and that was written before it: so while the broker
    /// has messages, chunks wait.
    pub async fn next(&mut self) -> Result<Delivery, BoardError> {
        let Self { messages, chunks } = self;
        let Some(chunks) = chunks else { return Ok(Delivery::new(messages.next().await?, None)) };
        if messages.is_behind() {
            match tokio::time::timeout(HEAD_START, messages.next()).await {
                Ok(message) => return Ok(Delivery::new(message?, chunks.last())),
                // They were purged, or the broker counts wrongly: chunks wait for them once.
                Err(_) => messages.count_as_caught_up(),
            }
        }
        tokio::select! {
            biased;
            message = messages.next() => Ok(Delivery::new(message?, chunks.last())),
            chunk = chunks.next() => Ok(Delivery::new(chunk?, messages.last())),
        }
    }
}

/// A message from the board, yet to be acknowledged.
pub struct Delivery {
    /// Where it stands; a hint, as the broker gives it.
    pub address: Address,
    /// Its bytes as they were written.
    pub payload: Bytes,
    receipt: Receipt,
    /// For the last one before it in the other stream.
    other: Option<Receipt>,
}

impl Delivery {
    fn new(received: Received, other: Option<Receipt>) -> Self {
        let Received { address, payload, receipt } = received;
        Self { address, payload, receipt, other }
    }

    /// Its place in the order of its stream. Says nothing about messages' order in the protocol.
    pub fn sequence(&self) -> u64 {
        self.receipt.sequence
    }

    /// Acknowledges this message **and all that were handed out before it**: call it once the effects of all of them are
    /// stored. It waits for no answer; an acknowledgement that is lost only means that the messages come again.
    pub async fn ack(&self) {
        self.receipt.ack().await;
        if let Some(other) = &self.other {
            other.ack().await;
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("address", &self.address)
            .field("bytes", &self.payload.len())
            .field("sequence", &self.sequence())
            .finish()
    }
}
