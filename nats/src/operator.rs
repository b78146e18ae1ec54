//! What only the operator identity may do: make the streams and the consumers, and purge.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy};
use async_nats::jetstream::stream;
use futures::{StreamExt, TryStreamExt};
use protocol::{Kind, Name, Role, RoundNo, SessionTag};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::board::{Board, BoardError};
use crate::call_error::CallError;
use crate::consumers::ConsumerNames;
use crate::inbox::Inbox;
use crate::link::Link;
use crate::permissions::followed;
use crate::stream::Stream;
use crate::subject;

/// The largest message on the board, headers included: the broker's own limit.
const MAX_MESSAGE: i32 = 1 << 20;
/// The shortest that nats-server takes; nothing of Ward's carries a message id.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);
/// How long the broker waits for an acknowledgement before it delivers again. A party that comes back resets its
/// consumer, so this only has to be longer than the longest time between reading and acknowledging: a round of a day.
const ACK_WAIT: Duration = Duration::from_secs(25 * 3600);
/// Two for each party in a stream; without a number nats-server 2.15 stops at a thousand.
const MAX_CONSUMERS: i32 = 100_000;
/// Consumers made at a time.
const AT_A_TIME: usize = 32;

/// nats-server's code for a stream of that name with other settings.
const STREAM_DIFFERS: u64 = 10_058;
/// nats-server's code for a consumer that is not there.
const NO_CONSUMER: u64 = 10_014;

/// What only `ward broker` does.
#[derive(Clone, Debug)]
pub struct Operator {
    link: Link,
    consumers: ConsumerNames,
}

#[derive(Deserialize)]
struct Purged {
    purged: u64,
}

impl Operator {
    /// Works over the operator's link; any other is refused by the broker at the first call. The names are those of
    /// [`crate::Broker::consumers`].
    pub fn new(link: Link, consumers: ConsumerNames) -> Self {
        Self { link, consumers }
    }

    /// Makes the board, or gives an existing one these settings. Messages and chunks take at most half of `space` bytes on
    /// the disk each, what the broker keeps beside them included; then writing is [`CallError::BoardFull`] until something
    /// is purged.
    pub async fn make_streams(&self, space: u64) -> Result<(), CallError> {
        for stream in Stream::ALL {
            let config = stream_config(stream, space / Stream::ALL.len() as u64);
            match self.link.api::<Value>(stream.create(), &config).await {
                Err(CallError::Broker { code: STREAM_DIFFERS, .. }) => {
                    self.link.api::<Value>(stream.update(), &config).await.map(drop)
                }
                other => other.map(drop),
            }?;
        }
        Ok(())
    }

    /// Makes the consumers of one party and the signpost to them; does nothing where they are there.
    pub async fn make_consumers(&self, role: Role, name: &Name) -> Result<(), CallError> {
        let filters = |stream: &Stream| (*stream, subject::consumer_filters(*stream, name));
        self.make_pulls(name, followed(role).iter().map(filters).collect()).await
    }

    /// The signpost comes last: who finds it finds the consumers.
    async fn make_pulls(&self, name: &Name, filters: Vec<(Stream, Vec<String>)>) -> Result<(), CallError> {
        let consumer = self.consumers.of(name.as_str());
        let streams: Vec<Stream> = filters.iter().map(|(stream, _)| *stream).collect();
        for (stream, filters) in filters {
            self.create(stream, &consumer, &pull_config(&consumer, filters)).await?;
        }
        let signpost = signpost_config(name, &consumer, streams.contains(&Stream::Chunks));
        match self.create(Stream::Messages, name.as_str(), &signpost).await {
            // Something else is called so.
            Err(CallError::Broker { .. }) => {
                self.delete(Stream::Messages, name.as_str()).await?;
                self.create(Stream::Messages, name.as_str(), &signpost).await
            }
            other => other,
        }
    }

    /// Makes the consumers of all parties anew, from the board's first message. For the start of the broker: one that
    /// lost writes gives sequence numbers out again, and a consumer that is ahead of them would deliver nothing.
    pub async fn remake_consumers(&self, parties: &[(Role, Name)]) -> Result<(), CallError> {
        futures::stream::iter(parties)
            .map(Ok)
            .try_for_each_concurrent(AT_A_TIME, async |(role, name)| {
                for stream in followed(*role) {
                    self.delete(*stream, &self.consumers.of(name.as_str())).await?;
                }
                self.make_consumers(*role, name).await
            })
            .await
    }

    /// Deletes the consumers of a party that left, and its signpost; does nothing if there are none.
    pub async fn remove_consumers(&self, name: &Name) -> Result<(), CallError> {
        self.delete(Stream::Messages, name.as_str()).await?;
        for stream in Stream::ALL {
            self.delete(stream, &self.consumers.of(name.as_str())).await?;
        }
        Ok(())
    }

    /// Makes the headers-only consumers that [`crate::Watcher`]s listen to, from now on. For the start of the broker.
    pub async fn make_watch_consumers(&self) -> Result<(), CallError> {
        let consumer = self.consumers.of(subject::WATCH_CONSUMER);
        for stream in Stream::ALL {
            self.delete(stream, &consumer).await?;
            self.create(stream, &consumer, &watch_config(stream, &consumer)).await?;
        }
        Ok(())
    }

    /// Follows every Announce, Result and Abort addressed to all, from the board's first message, with a consumer of the
    /// operator's own. Check the signature before you purge.
    pub async fn follow_outcomes(&self) -> Result<Inbox, BoardError> {
        let me = self.link.name();
        self.delete(Stream::Messages, &self.consumers.of(me.as_str())).await?;
        self.make_pulls(me, vec![(Stream::Messages, subject::outcome_filters().into())]).await?;
        Board::new(self.link.clone()).follow().await
    }

    /// Deletes a round's shares, chunks and sums: after its Result or Abort. Returns how many messages went.
    pub async fn purge_round_bulk(&self, session: SessionTag, round: RoundNo) -> Result<u64, CallError> {
        let kinds = [Kind::Share, Kind::Chunk, Kind::MaskedSum, Kind::MaskSum, Kind::CheckSum];
        self.purge_all(kinds.map(|kind| (Stream::of(kind), subject::of_kind(session, round, kind)))).await
    }

    /// Deletes everything of a session but its Results and Aborts, after its end: who has been away still learns how it
    /// ended. Returns how many messages went.
    pub async fn purge_session(&self, session: SessionTag) -> Result<u64, CallError> {
        let kinds = Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Result | Kind::Abort));
        self.purge_all(kinds.map(|kind| (Stream::of(kind), subject::of_kind_in_any_round(session, kind)))).await
    }

    async fn purge_all(&self, filters: impl IntoIterator<Item = (Stream, String)>) -> Result<u64, CallError> {
        futures::stream::iter(filters)
            .then(|(stream, filter)| self.purge(stream, filter))
            .try_fold(0, |total, purged| std::future::ready(Ok(total + purged)))
            .await
    }

    async fn purge(&self, stream: Stream, filter: String) -> Result<u64, CallError> {
        let answer: Purged = self.link.api(stream.purge(), &json!({ "filter": filter })).await?;
        Ok(answer.purged)
    }

    async fn create(&self, stream: Stream, consumer: &str, config: &Config) -> Result<(), CallError> {
        let body = json!({ "stream_name": stream.name(), "config": config });
        self.link.api::<Value>(stream.consumer_create(consumer), &body).await.map(drop)
    }

    async fn delete(&self, stream: Stream, consumer: &str) -> Result<(), CallError> {
        match self.link.api::<Value>(stream.consumer_delete(consumer), &json!({})).await {
            Err(CallError::Broker { code: NO_CONSUMER, .. }) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// One message per subject, and the second write refused rather than the first forgotten.
fn stream_config(stream: Stream, space: u64) -> stream::Config {
    stream::Config {
        name: stream.name().into(),
        description: Some("Ward's board: each message is written once under a name of its own".into()),
        subjects: vec![stream.subjects().into()],
        storage: stream::StorageType::File,
        discard: stream::DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1,
        max_message_size: MAX_MESSAGE,
        max_bytes: i64::try_from(space).unwrap_or(i64::MAX),
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        num_replicas: 1,
        max_consumers: MAX_CONSUMERS,
        ..stream::Config::default()
    }
}

fn watch_config(stream: Stream, consumer: &str) -> Config {
    Config {
        durable_name: Some(consumer.into()),
        deliver_subject: Some(subject::WATCH.into()),
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::None,
        filter_subject: stream.subjects().into(),
        headers_only: true,
        ..Config::default()
    }
}

fn pull_config(consumer: &str, filter_subjects: Vec<String>) -> Config {
    Config {
        durable_name: Some(consumer.into()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::All,
        ack_wait: ACK_WAIT,
        // A party stores many messages at once and acknowledges the last: no limit may stop the flow before that.
        max_ack_pending: -1,
        filter_subjects,
        // A start of the broker makes all consumers anew: a file each would only cost inodes at every acknowledgement.
        memory_storage: true,
        ..Config::default()
    }
}

/// A consumer that is there for its metadata alone.
fn signpost_config(name: &Name, consumer: &str, chunks: bool) -> Config {
    let mut metadata = HashMap::from([(subject::SIGNPOST_KEY.into(), consumer.into())]);
    if chunks {
        metadata.insert(subject::SIGNPOST_CHUNKS_KEY.into(), consumer.into());
    }
    Config {
        durable_name: Some(name.to_string()),
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::None,
        filter_subject: subject::NOWHERE.into(),
        memory_storage: true,
        metadata,
        ..Config::default()
    }
}
