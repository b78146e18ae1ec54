//! The two streams that the board is kept in, and every subject of the JetStream API that names one.
//!
//! nats-server (2.15) finds the next message of a consumer by walking over all that lie between, and copies each of them.
//! Chunks are nearly all bytes of a long round and go to servers and the hospital alone; in one stream with the rest every
//! member, and at a round's end every patient, would have the broker copy the vectors of all others to come to its own next
//! message.

use protocol::Kind;

/// One of the streams of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// All messages but chunks. Every party follows it.
    Messages,
    /// Chunks. Servers and the hospital follow it.
    Chunks,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Messages, Self::Chunks];

    /// Where messages of this kind stand.
    pub fn of(kind: Kind) -> Self {
        if kind == Kind::Chunk { Self::Chunks } else { Self::Messages }
    }

    /// What nats-server knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Messages => "WARD",
            Self::Chunks => "WARD-CHUNKS",
        }
    }

    /// What it stores: every subject that begins with `ward`, of seven tokens, or of eight for chunks.
    pub fn subjects(self) -> &'static str {
        match self {
            Self::Messages => "ward.*.*.*.*.*.*",
            Self::Chunks => "ward.*.*.*.*.chunk.*.raw",
        }
    }

    /// Makes it.
    pub fn create(self) -> String {
        self.api("STREAM.CREATE")
    }

    /// Changes its settings.
    pub fn update(self) -> String {
        self.api("STREAM.UPDATE")
    }

    /// Deletes messages from it.
    pub fn purge(self) -> String {
        self.api("STREAM.PURGE")
    }

    /// Asks about a party's signpost, or about a consumer by its own name.
    pub fn consumer_info(self, consumer: &str) -> String {
        self.api_of("CONSUMER.INFO", consumer)
    }

    /// Asks a consumer for its next messages.
    pub fn consumer_next(self, consumer: &str) -> String {
        self.api_of("CONSUMER.MSG.NEXT", consumer)
    }

    /// Moves a consumer back to what was acknowledged.
    pub fn consumer_reset(self, consumer: &str) -> String {
        self.api_of("CONSUMER.RESET", consumer)
    }

    /// Makes a consumer.
    pub fn consumer_create(self, consumer: &str) -> String {
        self.api_of("CONSUMER.CREATE", consumer)
    }

    /// Deletes a consumer.
    pub fn consumer_delete(self, consumer: &str) -> String {
        self.api_of("CONSUMER.DELETE", consumer)
    }

    /// Acknowledges what a consumer delivered.
    pub fn consumer_ack(self, consumer: &str) -> String {
        format!("$JS.ACK.{}.{consumer}.>", self.name())
    }

    /// Reads the message with `subject` by its name.
    pub fn direct_get(self, subject: &str) -> String {
        self.api_of("DIRECT.GET", subject)
    }

    fn api(self, verb: &str) -> String {
        format!("$JS.API.{verb}.{}", self.name())
    }

    fn api_of(self, verb: &str, what: &str) -> String {
        format!("{}.{what}", self.api(verb))
    }
}
