//! Another Roster than the true one, and the list and the places that go with it: whoever is shown them is in a study of
//! its own.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use super::forge::{Told, sign, sign_after};
use super::lie::RosterLie;
use crate::id::{Digest, Kind, Name, Place, SessionId};
use crate::memory::signing_key;
use crate::merkle;
use crate::message::{Join, Joins, List, PlaceProof, Roster};
use crate::seal::{SealKey, SealSecret};
use crate::secret::SessionRandomness;
use crate::step::Effects;
use crate::wire::{self, Envelope, Frame, Signed};

/// The Rosters that were written, and who is on them.
#[derive(Debug, Default)]
pub(super) struct Rosters {
    rosters: BTreeMap<SessionId, Frame>,
    /// Sorted by name, as a list of few patients is one piece.
    joins: BTreeMap<SessionId, Vec<Signed>>,
}

/// Another Roster, and the Joins that it is of.
struct Other {
    signed: Signed,
    joins: Vec<Signed>,
}

impl Rosters {
    /// Takes note of what the first server writes.
    pub(super) fn written(&mut self, effects: &Effects) {
        for sent in effects.send.iter().filter(|sent| matches!(sent.address.kind, Kind::Roster | Kind::List)) {
            let Ok(frame) = Frame::decode(&sent.payload) else { continue };
            let session = frame.envelope.session;
            if sent.address.kind == Kind::Roster {
                self.rosters.entry(session).or_insert(frame);
            } else if let Ok(Joins(joins)) = wire::decode(&frame.attachment, "list of joins") {
                self.joins.entry(session).or_insert(joins);
            }
        }
    }

    /// What stands for this message of the set-up, of that kind, where `to` is shown another Roster.
    pub(super) fn other(&self, frame: &Frame, kind: Kind, how: &RosterLie, to: &Name) -> Option<Told> {
        let lends = matches!(how, RosterLie::OtherKey { by } | RosterLie::CopiedKey { by } if by == to);
        if lends || !matches!(kind, Kind::Roster | Kind::List | Kind::Place) {
            return None;
        }
        let session = frame.envelope.session;
        let other = other_roster(self.rosters.get(&session)?, self.joins.get(&session)?, how)?;
        match kind {
            Kind::Roster => Some((other.signed, Vec::new())),
            Kind::List => other.list(frame),
            _ => other.place(frame, to),
        }
    }
}

impl Other {
    fn list(&self, frame: &Frame) -> Option<Told> {
        let list: List = frame.envelope.body().ok()?;
        let attachment = wire::encode(&self.joins);
        let joins = wire::attachment_digest(&attachment);
        Some((sign(frame, &List { roster: self.signed.digest(), joins, ..list }), attachment))
    }

    /// The place of a patient that is on it.
    fn place(&self, frame: &Frame, to: &Name) -> Option<Told> {
        let at = self.joins.iter().position(|join| sender(join).as_ref() == Some(to))? as u32;
        let path = merkle::path(&digests(&self.joins), at)?;
        let proof = PlaceProof { place: Place(at), path };
        Some((sign_after(frame, self.signed.digest(), &proof), Vec::new()))
    }
}

fn digests(joins: &[Signed]) -> Vec<Digest> {
    joins.iter().map(Signed::digest).collect()
}

/// Whose Join this is.
fn sender(join: &Signed) -> Option<Name> {
    join.open().ok().map(|frame| frame.envelope.from)
}

fn seal_key(join: &Signed) -> Option<SealKey> {
    join.open().ok()?.envelope.body::<Join>().ok()?.seal_key
}

fn other_roster(frame: &Frame, joins: &[Signed], how: &RosterLie) -> Option<Other> {
    let mut roster: Roster = frame.envelope.body().ok()?;
    let mut joins = joins.to_vec();
    match how {
        RosterLie::Fewer => {
            let outside = joins.iter().rposition(|join| !roster.committee.contains(join));
            joins.remove(outside.or(joins.len().checked_sub(1))?);
        }
        RosterLie::SwappedPlaces => {
            let last = joins.len().checked_sub(2)?;
            joins.get_mut(last..)?.reverse();
        }
        RosterLie::SwappedSeats => roster.committee.get_mut(..2)?.reverse(),
        RosterLie::OtherSeat => {
            let spare = joins.iter().find(|join| seal_key(join).is_some() && !roster.committee.contains(join))?;
            *roster.committee.first_mut()? = spare.clone();
            roster.committee.sort_by_key(sender);
        }
        RosterLie::ForgedKey => {
            let owner = roster.committee.first().and_then(sender)?;
            change_key(&mut roster, &mut joins, &owner, other_key(&owner), &frame.envelope.from)?;
        }
        RosterLie::OtherKey { by } => change_key(&mut roster, &mut joins, by, other_key(by), by)?,
        RosterLie::CopiedKey { by } => {
            let another = roster.committee.iter().find(|join| sender(join).as_ref() != Some(by))?;
            let copied = seal_key(another)?;
            change_key(&mut roster, &mut joins, by, copied, by)?;
        }
    }
    (roster.root, roster.count) = (merkle::root(&digests(&joins)), joins.len() as u32);
    Some(Other { signed: sign(frame, &roster), joins })
}

/// A seal key that nobody joined with.
fn other_key(of: &Name) -> SealKey {
    SealSecret::from_randomness(&SessionRandomness::new([7; 32]), &[of.as_str().as_bytes()]).public()
}

/// Has the member `of` join with another seal key, wherever its Join stands; under the key of `by`.
fn change_key(roster: &mut Roster, joins: &mut [Signed], of: &Name, key: SealKey, by: &Name) -> Option<()> {
    let seat = roster.committee.iter_mut().find(|join| sender(join).as_ref() == Some(of))?;
    let listed = joins.iter_mut().find(|join| *join == seat)?;
    let envelope = seat.open().ok()?.envelope;
    let join = Join { seal_key: Some(key), ..envelope.body().ok()? };
    let envelope = Envelope { body: ByteBuf::from(wire::encode(&join)), ..envelope };
    *seat = Signed::new(&envelope, &signing_key(by));
    *listed = seat.clone();
    Some(())
}
