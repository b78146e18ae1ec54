//! What people and programs are told: progress and logs on stderr, results on stdout.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use protocol::{AbortReason, Answer, Name, RoundNo, SessionId, SessionInfo, Snapshot, decimal};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit::{Aborted, Stopped, Unheard};

/// A line of progress for people, on stderr.
macro_rules! note {
    ($($text:tt)*) => {
        tracing::info!($($text)*)
    };
}
pub(crate) use note;

/// Prints a result on a line of stdout.
///
/// # Errors
/// [`Unheard`] where nobody reads it any more; what the system says.
pub fn print(line: impl Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Unheard.into()),
        written => written.context("standard output cannot be written"),
    }
}

/// Sets up stderr: progress by default, more with `WARD_LOG=debug`; colour only on a terminal.
pub fn init() {
    let asked = std::env::var("WARD_LOG").ok();
    let usual = || {
        Targets::new().with_default(LevelFilter::WARN).with_targets([
            ("agents", LevelFilter::INFO),
            ("nats", LevelFilter::INFO),
            ("async_nats", LevelFilter::ERROR),
        ])
    };
    let filter = asked.as_deref().and_then(|asked| asked.parse().ok()).unwrap_or_else(usual);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .with_level(asked.is_some());
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

/// How a round ended, as `--json` prints it: one object on a line of stdout.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// There is an answer.
    Opened(Box<Opened>),
    /// There is none.
    Aborted(NoAnswer),
}

/// The answer of a round.
#[derive(Debug, Serialize, Deserialize)]
pub struct Opened {
    outcome: String,
    session: String,
    round: u32,
    fields: Vec<String>,
    /// Exact decimals: a JSON number keeps just these digits.
    sum: Vec<Box<RawValue>>,
    cohort: u32,
    invited: u32,
    committee: u8,
    threshold: u8,
    quorum: u8,
    confirmations: u32,
    cohort_root: String,
    checked: Checked,
    elapsed_ms: u64,
}

/// What was checked of the sums.
#[derive(Debug, Serialize, Deserialize)]
struct Checked {
    /// How many chunks each vector has.
    chunks: u32,
    /// Of how many the hospital added up the masked vectors again.
    masked_sum: u32,
    /// Of how many enough holders vouched for the mask sums; null where they are unchecked.
    mask_sums: Option<u32>,
    /// Whose sums were wrong: the answer is made without them.
    caught: Vec<Name>,
}

impl Checked {
    /// For people.
    fn text(&self, threshold: u8) -> String {
        let Self { chunks, masked_sum, mask_sums, caught } = self;
        let masked = match masked_sum {
            0 => "masked sum unchecked".into(),
            all if all == chunks => "masked sum added again".to_string(),
            some => format!("{some} of {chunks} chunks of the masked sum added again"),
        };
        let masks = match mask_sums {
            None => "mask sums unchecked".into(),
            Some(all) if all == chunks => format!("mask sums vouched for by {} holders each", threshold + 1),
            Some(some) => {
                format!("{some} of {chunks} chunks of the mask sums vouched for by {} holders each", threshold + 1)
            }
        };
        let wrong = match caught.as_slice() {
            [] => String::new(),
            some => format!("; WRONG SUMS came from {}, and the answer is made without them", protocol::list(some)),
        };
        format!("checked: {masked}; {masks}{wrong}\n")
    }
}

/// Why there is no answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct NoAnswer {
    outcome: String,
    /// A stable word for programs.
    pub reason: String,
    session: String,
    round: u32,
    /// The same for people, with what would help.
    pub message: String,
    elapsed_ms: u64,
}

/// What `--json` prints for an error; nothing where the round's own report was printed already.
pub fn failure(error: &anyhow::Error) -> Option<serde_json::Value> {
    let message = format!("{error:#}");
    if error.chain().any(|cause| cause.is::<Aborted>()) {
        None
    } else if error.chain().any(|cause| cause.is::<Stopped>()) {
        Some(json!({ "outcome": "aborted", "reason": AbortReason::Stopped.code(), "message": message }))
    } else {
        Some(self::error(&message))
    }
}

/// What `--json` prints where there is no round to report of.
pub fn error(message: &str) -> serde_json::Value {
    json!({ "outcome": "error", "message": message })
}

impl Report {
    /// The report of an answer that took `elapsed_ms` milliseconds.
    pub fn opened(answer: &Answer, session: &SessionInfo, elapsed_ms: u64) -> Self {
        let number = |sum: &i64| RawValue::from_string(decimal::format((*sum).into(), answer.scale));
        Report::Opened(Box::new(Opened {
            outcome: "opened".into(),
            session: answer.session.short(),
            round: answer.round.0,
            fields: answer.question.fields(),
            sum: answer.sum.iter().filter_map(|sum| number(sum).ok()).collect(),
            cohort: answer.cohort,
            invited: answer.invited,
            committee: session.committee,
            threshold: session.threshold,
            quorum: session.quorum,
            confirmations: answer.confirmations,
            cohort_root: answer.cohort_root.to_string(),
            checked: Checked {
                chunks: answer.checked.chunks,
                masked_sum: answer.checked.masked,
                mask_sums: answer.checked.masks,
                caught: answer.checked.caught.clone(),
            },
            elapsed_ms,
        }))
    }

    /// Reads back what [`Report::json`] wrote.
    pub fn parse(line: &str) -> Option<Self> {
        // Exact numbers do not survive a detour through a choice of shapes, so the shapes are tried one by one.
        let opened = serde_json::from_str(line).map(|opened| Report::Opened(Box::new(opened)));
        opened.or_else(|_| serde_json::from_str(line).map(Report::Aborted)).ok()
    }

    /// The report as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl NoAnswer {
    /// The report of a round, or of a session before its first round, without an answer.
    pub fn new(session: SessionId, round: RoundNo, reason: &AbortReason, advice: &str, elapsed_ms: u64) -> Self {
        let message = if advice.is_empty() { reason.to_string() } else { format!("{reason}. {advice}") };
        Self {
            outcome: "aborted".into(),
            reason: reason.code().into(),
            session: session.short(),
            round: round.0,
            message,
            elapsed_ms,
        }
    }
}

impl Opened {
    /// The answer for people, with its receipt; `snapshot` is what was asked for.
    pub fn text(&self, snapshot: &Snapshot) -> String {
        let width = self.fields.iter().map(String::len).max().unwrap_or(0);
        let mut text = String::new();
        for (field, sum) in self.fields.iter().zip(&self.sum) {
            text += &format!("{field:width$}  {sum}\n");
        }
        text += &format!(
            "\nsum over {} of {} patients, snapshot `{snapshot}`, session {}, round {}, in {} ms\n",
            self.cohort, self.invited, self.session, self.round, self.elapsed_ms
        );
        text += &format!(
            "receipt: {} of {} members confirmed this cohort ({} needed, {} may collude); cohort root {}\n",
            self.confirmations, self.committee, self.quorum, self.threshold, self.cohort_root
        );
        text += &self.checked.text(self.threshold);
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use protocol::{Column, Question};

    #[test]
    fn decimals_keep_their_digits_through_json_and_back() {
        let answer = Answer {
            session: SessionId::default(),
            round: RoundNo(1),
            snapshot: "1".parse().unwrap(),
            question: Question::Sum(vec![Column::scalar("a"), Column::scalar("b")]),
            sum: vec![600_000_000, 9_007_199_254_740_993],
            scale: protocol::Scale::default(),
            cohort: 3,
            invited: 3,
            confirmations: 3,
            cohort_root: protocol::Digest::default(),
            checked: protocol::Checked { chunks: 8, masked: 1, masks: None, caught: vec!["server".parse().unwrap()] },
        };
        let info = SessionInfo {
            session: SessionId::default(),
            announced: protocol::Time(0),
            committee: 3,
            threshold: 1,
            quorum: 3,
            min_cohort: 3,
            expect: 3,
            rules: String::new(),
        };
        let line = Report::opened(&answer, &info, 5).json();
        assert!(line.contains(r#""sum":[600,9007199254.740993]"#), "{line}");
        let Some(Report::Opened(back)) = Report::parse(&line) else { panic!("{line}") };
        let text = back.text(&answer.snapshot);
        assert!(text.contains("b  9007199254.740993\n"), "{text}");
        assert!(
            line.contains(r#""checked":{"chunks":8,"masked_sum":1,"mask_sums":null,"caught":["server"]}"#),
            "{line}"
        );
        assert!(
            text.contains("1 of 8 chunks of the masked sum added again; mask sums unchecked; WRONG SUMS"),
            "{text}"
        );
    }
}
