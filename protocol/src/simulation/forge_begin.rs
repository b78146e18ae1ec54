//! Another Begin than the true one: another question for some, under the number of the round or another one.

use serde_bytes::ByteBuf;
use vectors::Ring;

use super::forge::Told;
use super::forge_payload;
use super::lie::BeginLie;
use super::shape::label;
use crate::id::{Kind, RoundNo};
use crate::memory::signing_key;
use crate::message::{Begin, PayloadHeader};
use crate::task::{Column, Question};
use crate::wire::{self, Envelope, Frame, Signed};

/// What stands for the Begin in `frame`; nothing where it would be the same.
pub(super) fn other_begin(frame: &Frame, how: BeginLie) -> Option<Told> {
    let begin: Begin = frame.envelope.body().ok()?;
    let round = match how {
        BeginLie::Number(later) => RoundNo(frame.envelope.round.0 + u32::from(later)),
        _ => frame.envelope.round,
    };
    let body = ByteBuf::from(wire::encode(&changed(begin, round, how)?));
    let envelope = Envelope { kind: Kind::Begin, round, body, ..frame.envelope.clone() };
    let signed = Signed::new(&envelope, &signing_key(&envelope.from));
    (signed.digest() != frame.digest).then_some((signed, Vec::new()))
}

fn changed(begin: Begin, round: RoundNo, how: BeginLie) -> Option<Begin> {
    Some(match how {
        BeginLie::Snapshot => {
            let other = if Some(&begin.snapshot) == label(1).as_ref() { 2 } else { 1 };
            Begin { snapshot: label(other)?, ..begin }
        }
        BeginLie::Narrow => Begin { ring: Ring::new(16).ok()?, ..begin },
        BeginLie::Wide => Begin { ring: Ring::new(64).ok()?, ..begin },
        BeginLie::Bound => Begin { scaled_bound: begin.scaled_bound / 2, ..begin },
        BeginLie::Dimension => Begin { question: longer(&begin.question), ..begin },
        BeginLie::Number(_) => begin,
        BeginLie::Seconds => Begin { round_seconds: begin.round_seconds / 2, ..begin },
        BeginLie::SameAs => {
            let before = RoundNo(round.0.checked_sub(1)?);
            Begin { same_as: begin.same_as.is_none().then_some(before), ..begin }
        }
        BeginLie::Anybody => Begin { same_as: None, ..begin },
        BeginLie::Enough => Begin { enough: Some(1), ..begin },
        BeginLie::Payload => {
            let payload = begin.payload.as_ref()?;
            let key = forge_payload::commitment(round);
            Begin { payload: Some(PayloadHeader { key, ..payload.clone() }), ..begin }
        }
    })
}

/// The same question over columns that are one coordinate wider.
fn longer(question: &Question) -> Question {
    let wider = |column: &Column| Column { width: column.width + 1, ..column.clone() };
    Question::Sum(question.columns().iter().map(wider).collect())
}
