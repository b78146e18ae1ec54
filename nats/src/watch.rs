//! What a monitor sees: who writes what to whom, when and how large; never a payload.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{Message, Subscriber};
use futures::StreamExt;
use protocol::{Kind, Name, RoundNo, SessionTag, To};

use crate::call_error::CallError;
use crate::link::Link;
use crate::refusal::{Expected, Verb};
use crate::subject;

/// The header in which a headers-only consumer gives the size of what it leaves out.
const SIZE_HEADER: &str = "Nats-Msg-Size";

/// One message as it passes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When the broker stored it, by the broker's clock.
    pub time: SystemTime,
    /// Of which session.
    pub session: SessionTag,
    /// Of which round; 0 is set-up.
    pub round: RoundNo,
    /// Who wrote it.
    pub from: Name,
    /// Whose it is.
    pub to: To,
    /// What it is.
    pub kind: Kind,
    /// Its payload's size in bytes.
    pub size: u64,
}

/// Follows the board with a monitor's link. Any number may listen; all see the same from the moment they begin. What was
/// written while nobody listened is kept for the first one.
pub struct Watcher {
    link: Link,
    messages: Subscriber,
    refused: Expected,
}

impl Watcher {
    /// Begins to listen.
    pub async fn new(link: &Link) -> Result<Self, CallError> {
        let refused = link.refusals().expect(Verb::Subscribe, subject::WATCH.into());
        Ok(Self { link: link.clone(), messages: listen(link).await?, refused })
    }

    /// The next message on the board; it waits for ever and outlasts a restart of the broker. Cancel safe.
    pub async fn next(&mut self) -> Result<Seen, CallError> {
        loop {
            let message = tokio::select! {
                biased;
                () = self.refused.refused() => {
                    return Err(CallError::Refused { name: self.link.name().clone(), subject: subject::WATCH.into() });
                }
                message = self.messages.next() => message,
            };
            let Some(message) = message else {
                // The connection was lost, and another takes its place.
                self.link.connected().await?;
                self.messages = listen(&self.link).await?;
                continue;
            };
            match seen(&message) {
                Some(seen) => return Ok(seen),
                None => tracing::debug!(subject = %message.subject, "junk on the board"),
            }
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("link", &self.link).finish_non_exhaustive()
    }
}

async fn listen(link: &Link) -> Result<Subscriber, CallError> {
    link.client().subscribe(subject::WATCH).await.map_err(|_| CallError::Lost)
}

fn seen(message: &Message) -> Option<Seen> {
    let address = subject::parse(&message.subject).ok()?;
    let size = message.headers.as_ref()?.get(SIZE_HEADER)?.as_str().parse().ok()?;
    let time = stored_at(message).unwrap_or_else(SystemTime::now);
    let protocol::Address { session, round, from, to, kind, .. } = address;
    Some(Seen { time, session, round, from, to, kind, size })
}

/// The reply subject ends in `<nanoseconds since the epoch>.<messages pending>`.
fn stored_at(message: &Message) -> Option<SystemTime> {
    let nanos = message.reply.as_ref()?.rsplit('.').nth(1)?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
}
