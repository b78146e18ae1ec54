//! What passes at the broker, as a monitor sees it.

use async_nats::Message;
use futures::StreamExt as _;
use protocol::{Address, Kind};

use super::PATIENCE;

/// The messages that a monitor saw.
pub struct Capture {
    _client: async_nats::Client,
    messages: async_nats::Subscriber,
    pub seen: Vec<Message>,
}

impl Capture {
    /// Everything that passes on `ward.>` from now on; `client` is the monitor's.
    pub async fn start(client: async_nats::Client) -> Self {
        let messages = client.subscribe("ward.>").await.unwrap();
        // A round trip: from here on nothing is missed.
        client.flush().await.unwrap();
        Self { _client: client, messages, seen: Vec::new() }
    }

    /// Waits until a message of this kind has passed so many times since the capture began.
    pub async fn until(&mut self, kind: Kind, times: usize) {
        while self.of(kind).count() < times {
            let next = tokio::time::timeout(PATIENCE, self.messages.next()).await;
            self.seen.push(next.unwrap_or_else(|_| panic!("no {kind} number {times}")).unwrap());
        }
    }

    /// Waits until a message of this kind from this party has passed.
    pub async fn until_from(&mut self, kind: Kind, from: &str) {
        while !self.of(kind).any(|(address, _)| address.from.as_str() == from) {
            let so_far = self.of(kind).count();
            self.until(kind, so_far + 1).await;
        }
    }

    /// The messages of one kind so far, with their addresses.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (Address, &Message)> {
        let addressed = self.seen.iter().filter_map(|message| Some((address_of(message)?, message)));
        addressed.filter(move |(address, _)| address.kind == kind)
    }
}

/// What the subject of a message says, if it is one of Ward's.
pub fn address_of(message: &Message) -> Option<Address> {
    nats::subject::parse(&message.subject).ok()
}
