//! Why one exchange over a connection failed, and whether it is worth repeating.

use std::time::Duration;

use protocol::Name;
use serde::Deserialize;

use crate::endpoint::Endpoint;

/// How long the broker has to answer one request before it is asked again.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Why one exchange with the broker failed. [`CallError::may_pass`] tells what is worth repeating.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The broker's permissions forbid it.
    #[error(
        "the broker does not let {name} use {subject}: its certificate's role does not allow it; \
         use the identity whose task it is"
    )]
    Refused {
        /// Who asked.
        name: Name,
        /// What for.
        subject: String,
    },
    /// More than the broker carries in one message.
    #[error("a message of {size} bytes is more than the broker carries: keep it below {limit} bytes")]
    TooLarge {
        /// Its payload's size.
        size: usize,
        /// The broker's limit, headers included.
        limit: usize,
    },
    /// The broker answered with an error of its own.
    #[error("the broker refuses {subject}: {description} (code {code})")]
    Broker {
        /// What was asked.
        subject: String,
        /// The HTTP-like class: 429 and 503 pass.
        class: u16,
        /// nats-server's own error code.
        code: u64,
        /// In its words.
        description: String,
    },
    /// The board has no room left.
    #[error(
        "the board is full: it has room again once a round or a session ends; if it stays full, \
         start `ward broker` again with more `--space`"
    )]
    BoardFull,
    /// Nobody serves that subject: the board is not there yet.
    #[error("the board is not there yet: `ward broker` makes it")]
    NoResponders,
    /// No answer in time.
    #[error("the broker did not answer within {} s", ANSWER.as_secs())]
    TimedOut,
    /// The connection went away before the answer came.
    #[error("the connection to the broker was lost")]
    Lost,
    /// [`Link::close`](crate::Link::close) was called.
    #[error("the connection to the broker was closed here")]
    Closed,
    /// The broker does not list the party any more: it is not asked again.
    #[error(
        "the broker at {endpoint} has cut off {name} and refuses it: it lists that name no longer. Most likely its \
         certificate was revoked: ask the study's authority; under another name, with a new key, it may take part again"
    )]
    CutOff {
        /// Which broker.
        endpoint: Endpoint,
        /// Who was cut off.
        name: Name,
    },
    /// An answer that is none.
    #[error("the broker's answer on {subject} cannot be read: {reason}")]
    Garbled {
        /// What was asked.
        subject: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl CallError {
    /// The same error with another text in its subject's place.
    pub(crate) fn speaking_of(mut self, what: &str) -> Self {
        if let CallError::Refused { subject, .. }
        | CallError::Broker { subject, .. }
        | CallError::Garbled { subject, .. } = &mut self
        {
            what.clone_into(subject);
        }
        self
    }

    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            CallError::NoResponders | CallError::TimedOut | CallError::Lost | CallError::BoardFull => true,
            CallError::Broker { class, .. } => matches!(class, 429 | 503),
            CallError::Refused { .. }
            | CallError::TooLarge { .. }
            | CallError::Closed
            | CallError::CutOff { .. }
            | CallError::Garbled { .. } => false,
        }
    }
}

/// An answer of JetStream's.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Answer<T> {
    Err { error: ApiError },
    Ok(T),
}

/// An error of JetStream's.
#[derive(Deserialize)]
pub(crate) struct ApiError {
    code: u16,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

impl ApiError {
    pub(crate) fn about(self, subject: impl Into<String>) -> CallError {
        let Self { code, err_code, description } = self;
        CallError::Broker { subject: subject.into(), class: code, code: err_code, description }
    }
}
