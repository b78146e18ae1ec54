//! What a bench tells its roles on their standard input, and what they answer: JSON, a line each.

use protocol::SessionTag;
use serde::{Deserialize, Serialize};

use crate::report::print;

/// What a role is to do. A number is that of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// patients: make the vectors of a plain round.
    LoadPlain(u32),
    /// patients: send them.
    SendPlain,
    /// hospital: expect their sum.
    AwaitPlain(u32),
    /// patients: offer the data of a secure round.
    LoadSecure(u32),
    /// hospital: ask for their sum.
    Ask(u32),
    /// patients: once the round's receipt is here, forget the data.
    Forget(u32),
}

/// What a role answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// It can begin.
    Ready,
    /// hospital: the session stands.
    Open {
        /// Its name on the board.
        session: SessionTag,
    },
    /// The sum is here; whether it is right is said next.
    Answer {
        /// Over so many patients.
        cohort: u32,
        /// When a secure round's cohort was fixed, in microseconds since it was asked for.
        fixed: u64,
        /// When the last member confirmed it that was waited for, likewise.
        confirmed: u64,
        /// When all sums were in, likewise: the checks take the rest.
        summed: u64,
    },
    /// The order is carried out.
    Done {
        /// patients: how many bytes each sent up in the round, on average over those that stay.
        bytes: u64,
    },
}

/// Says it to the bench.
///
/// # Errors
/// If the bench is gone.
pub fn say(said: Said) -> anyhow::Result<()> {
    print(serde_json::to_string(&said)?)
}
