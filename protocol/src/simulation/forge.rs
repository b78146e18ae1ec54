//! How lies are made: from the true message on its way to whom it is told, with the liar's key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::fault::Part;
use super::forge_begin::other_begin;
use super::forge_ending::{Endings, abort};
use super::forge_payload::SealKeys;
use super::forge_roster::Rosters;
use super::lie::{AbortLie, CohortLie, Lie, ListLie, OpenLie, ResultLie};
use super::misreckon::{self, Worked};
use super::shape::{Cast, Shape};
use crate::id::{Address, Digest, Kind, MessageName, Name, Place, RoundNo, SessionId, SessionTag, To};
use crate::job::Job;
use crate::kdf::{self, chunk_digest};
use crate::memory::{Delivery, signing_key};
use crate::merkle;
use crate::message::{Cohort, CohortShares, List, MaskSum, MaskedSum, Open, Share, cohort_leaf};
use crate::places::Places;
use crate::step::Effects;
use crate::wire::{self, Envelope, Frame, Signed};

/// A signed message and its attachment.
pub(super) type Told = (Signed, Vec<u8>);

/// The kinds of messages that lies take the place of or are made of.
const KINDS: [Kind; 13] = [
    Kind::Join,
    Kind::PayloadKey,
    Kind::Cohort,
    Kind::MaskedSum,
    Kind::List,
    Kind::Open,
    Kind::Share,
    Kind::MaskSum,
    Kind::Roster,
    Kind::Place,
    Kind::Begin,
    Kind::Result,
    Kind::Abort,
];

/// Those who lie in a run.
#[derive(Debug)]
pub(super) struct Liars {
    lies: Vec<Lie>,
    cast: Cast,
    quorum: usize,
    min_cohort: usize,
    /// What the servers were sent: the digest of each Share.
    shares: BTreeMap<(SessionId, RoundNo, Place), Digest>,
    /// What was told already, and is told again as it is.
    told: BTreeSet<Digest>,
    rosters: Rosters,
    endings: Endings,
    seal_keys: SealKeys,
}

impl Liars {
    pub(super) fn new(lies: Vec<Lie>, cast: &Cast, shape: &Shape) -> Self {
        let (quorum, min_cohort) = (shape.quorum().into(), shape.min_cohort.into());
        let (shares, told) = (BTreeMap::new(), BTreeSet::new());
        let (rosters, endings, seal_keys) = (Rosters::default(), Endings::default(), SealKeys::default());
        Self { lies, cast: cast.clone(), quorum, min_cohort, shares, told, rosters, endings, seal_keys }
    }

    /// The deliveries that take the place of `delivery`, and the lies among them.
    pub(super) fn tell(&mut self, delivery: Delivery) -> (Vec<Delivery>, Vec<Lie>) {
        if self.lies.is_empty() || !KINDS.contains(&delivery.address.kind) {
            return (vec![delivery], Vec::new());
        }
        let Ok(frame) = Frame::decode(&delivery.payload) else { return (vec![delivery], Vec::new()) };
        self.learn(&frame);
        if self.told.contains(&frame.digest) {
            return (vec![delivery], Vec::new());
        }
        let (mut lies, mut beside) = (Vec::new(), Vec::new());
        for lie in self.lies.clone() {
            let said = self.beside(&lie, &frame, &delivery);
            if !said.is_empty() {
                beside.extend(said);
                lies.push(lie);
            }
        }
        let mut all = self.instead(&frame, delivery, &mut lies);
        all.extend(beside);
        (all, lies)
    }

    /// What takes the place of a message, where one of the lies does; it joins `lies`.
    fn instead(&mut self, frame: &Frame, delivery: Delivery, lies: &mut Vec<Lie>) -> Vec<Delivery> {
        let told = self.lies.iter().find_map(|lie| Some((lie.clone(), self.make(lie, frame, &delivery.receiver)?)));
        let Some((lie, (signed, attachment))) = told else { return vec![delivery] };
        self.told.insert(signed.digest());
        if let Ok(frame) = signed.open() {
            self.endings.learn(&frame);
        }
        let told = stand(&signed, &attachment, &delivery);
        let all = match &lie {
            Lie::Cohort { after: Some(delay), .. } | Lie::Begin { after: Some(delay), .. } => {
                vec![delivery, Delivery { delay: *delay, ..told }]
            }
            _ => vec![told],
        };
        lies.push(lie);
        all
    }

    /// What is said beside a message.
    fn beside(&mut self, lie: &Lie, frame: &Frame, delivery: &Delivery) -> Vec<Delivery> {
        let to = &delivery.receiver;
        if frame.envelope.from != *lie.liar(&self.cast) {
            return Vec::new();
        }
        let (told, delay, shown) = match (lie, frame.envelope.kind) {
            (Lie::Abort { shown, when: AbortLie::Begun(delay), last }, Kind::Begin)
            | (Lie::Abort { shown, when: AbortLie::Answered(delay), last }, Kind::Result)
                if shown.contains(to) =>
            {
                (abort(frame, *last), *delay, vec![to])
            }
            (Lie::Result { shown, how: ResultLie::Early }, Kind::Open) => {
                (self.endings.early(frame), 1, shown.iter().collect())
            }
            _ => return Vec::new(),
        };
        let Some((signed, attachment)) = told else { return Vec::new() };
        self.told.insert(signed.digest());
        let said = stand(&signed, &attachment, delivery);
        let address = Address { to: To::All, ..said.address };
        let to = |receiver: &Name| (receiver.clone(), address.clone(), said.payload.clone());
        let all = shown.into_iter().map(to);
        all.map(|(receiver, address, payload)| Delivery { receiver, address, payload, delay }).collect()
    }

    /// Takes note of what the first server writes of a set-up.
    pub(super) fn written(&mut self, who: &Name, effects: &Effects) {
        if !self.lies.is_empty() && who == self.cast.first_server() {
            self.rosters.written(effects);
        }
    }

    /// Runs a job as its owner's lies have it; whether it is one of them, and by how much it is off.
    pub(super) fn work(&self, who: &Name, job: Job, calm: bool) -> Worked<'_> {
        misreckon::work(&self.lies, who, job, calm)
    }

    /// Another patient than `name`, or another party where that is none.
    pub(super) fn another(&self, name: &Name) -> Option<Name> {
        let after = self.cast.number(name).map_or(0, |i| usize::from(i) + 1);
        let patients = self.cast.patients.iter();
        patients.cycle().nth(after).cloned()
    }

    fn learn(&mut self, frame: &Frame) {
        self.endings.learn(frame);
        self.seal_keys.learn(frame);
        if frame.envelope.kind != Kind::Share {
            return;
        }
        if let Some(core) = frame.envelope.body::<Share>().ok().and_then(|share| share.open_core()) {
            let of = (frame.envelope.session, frame.envelope.round, core.place);
            self.shares.entry(of).or_insert(frame.digest);
        }
    }

    /// The lie in the place of this message to `to`, where it is told there.
    fn make(&self, lie: &Lie, frame: &Frame, to: &Name) -> Option<Told> {
        if frame.envelope.from != *lie.liar(&self.cast) {
            return None;
        }
        match (lie, frame.envelope.kind) {
            (Lie::Cohort { shown, how, round, .. }, Kind::Cohort)
                if shown.contains(to) && round.is_none_or(|round| round == frame.envelope.round) =>
            {
                self.cohort(frame, *how)
            }
            (Lie::MaskedSum { .. }, Kind::MaskedSum) => masked_sum(frame),
            (Lie::List { shown, how }, Kind::List) if shown.contains(to) => list(frame, *how),
            (Lie::Open { shown, how }, Kind::Open) if shown.contains(to) => self.open(frame, *how),
            (Lie::Box { shown, .. }, Kind::Share) if shown.contains(to) => other_box(frame),
            (Lie::MaskSum { .. }, Kind::MaskSum) => mask_sum(frame),
            (Lie::Begin { shown, how, .. }, Kind::Begin) if shown.contains(to) => other_begin(frame, *how),
            (Lie::Abort { shown, when: AbortLie::Instead, last }, Kind::Result) if shown.contains(to) => {
                abort(frame, *last)
            }
            (Lie::Result { shown, how }, kind) if shown.contains(to) => {
                self.endings.other(frame, kind, *how, self.quorum)
            }
            (Lie::PayloadKey { shown }, Kind::PayloadKey) if shown.contains(to) => self.seal_keys.other(frame, to),
            (Lie::Roster { shown, how }, kind) if shown.contains(to) => self.rosters.other(frame, kind, how, to),
            _ => None,
        }
    }

    /// The digest of the Share at `place`; one that nobody sent, where there is none.
    fn share(&self, frame: &Frame, place: Place) -> Digest {
        let known = self.shares.get(&(frame.envelope.session, frame.envelope.round, place));
        known.copied().unwrap_or_else(|| sent_by_nobody(place))
    }

    fn cohort(&self, frame: &Frame, how: CohortLie) -> Option<Told> {
        let cohort: Cohort = frame.envelope.body().ok()?;
        let mut places: Vec<Place> = cohort.places.iter().collect();
        match how {
            CohortLie::Fewer => drop(places.pop()),
            CohortLie::TooSmall => places.truncate(self.min_cohort.saturating_sub(1)),
            CohortLie::Stranger => {
                places.push((0..cohort.places.universe()).map(Place).find(|place| !cohort.places.contains(*place))?);
                places.sort_unstable();
            }
            CohortLie::OtherShares => {}
        }
        let share = |place: Place| match how {
            CohortLie::OtherShares => sent_by_nobody(place),
            _ => self.share(frame, place),
        };
        let leaves: Vec<Digest> = places.iter().map(|place| cohort_leaf(*place, share(*place))).collect();
        let body = Cohort {
            places: Places::of(cohort.places.universe(), places.iter().copied()),
            root: merkle::root(&leaves),
        };
        let listed = || {
            let listed: CohortShares = wire::decode(&frame.attachment, "shares").ok()?;
            let names: BTreeMap<Place, MessageName> =
                cohort.places.iter().zip(listed.shares).map(|(place, (_, name))| (place, name)).collect();
            let name = |place: &Place| names.get(place).copied().unwrap_or(MessageName([0; 16]));
            let shares = places.iter().map(|place| (share(*place), name(place))).collect();
            Some(wire::encode(&CohortShares { piece: listed.piece, shares }))
        };
        Some((sign(frame, &body), listed().unwrap_or_default()))
    }

    fn open(&self, frame: &Frame, how: OpenLie) -> Option<Told> {
        let mut open: Open = frame.envelope.body().ok()?;
        let all: BTreeSet<u16> = open.senders.iter().flat_map(|(_, blocks)| blocks.iter().copied()).collect();
        for (_, blocks) in &mut open.senders {
            match how {
                OpenLie::Twice => *blocks = blocks.iter().flat_map(|block| [*block, *block]).collect(),
                OpenLie::All => *blocks = all.iter().copied().collect(),
                OpenLie::Nothing => blocks.clear(),
                OpenLie::TooFew | OpenLie::Repeated => {}
            }
        }
        match how {
            OpenLie::TooFew => open.confirms.truncate(self.quorum.saturating_sub(1)),
            OpenLie::Repeated => open.confirms = vec![open.confirms.first()?.clone(); self.quorum],
            OpenLie::Twice | OpenLie::All | OpenLie::Nothing => {}
        }
        Some((sign(frame, &open), Vec::new()))
    }
}

/// The digest of a Share that nobody sent.
fn sent_by_nobody(place: Place) -> Digest {
    kdf::digest("ward/1 simulated share", &[&place.0.to_le_bytes()])
}

/// Another sum in a message that carries it.
fn masked_sum(frame: &Frame) -> Option<Told> {
    let mut sum: MaskedSum = frame.envelope.body().ok()?;
    let other = altered(&frame.attachment)?;
    let known = sum.chunks.first_mut().filter(|digest| **digest == chunk_digest(&frame.attachment))?;
    *known = chunk_digest(&other);
    Some((sign(frame, &sum), other))
}

fn list(frame: &Frame, how: ListLie) -> Option<Told> {
    let list: List = frame.envelope.body().ok()?;
    let mut joins: Vec<Signed> = wire::decode(&frame.attachment, "list of joins").ok()?;
    let last = joins.pop()?;
    match how {
        ListLie::Omitted => {}
        ListLie::Repeated => joins.push(joins.last()?.clone()),
        ListLie::Swapped => {
            joins.push(last);
            joins.get_mut(..2)?.reverse();
        }
    }
    let attachment = wire::encode(&joins);
    Some((sign(frame, &List { joins: wire::attachment_digest(&attachment), ..list }), attachment))
}

/// Another box in a Share that names it.
fn other_box(frame: &Frame) -> Option<Told> {
    let mut share: Share = frame.envelope.body().ok()?;
    let true_box = wire::attachment_digest(&frame.attachment);
    let named = share.boxes.iter_mut().find(|named| **named == true_box)?;
    let other = altered(&frame.attachment)?;
    *named = wire::attachment_digest(&other);
    Some((sign(frame, &share), other))
}

/// Another sealed piece in a mask sum that names it.
fn mask_sum(frame: &Frame) -> Option<Told> {
    let mut sum: MaskSum = frame.envelope.body().ok()?;
    let mut pieces: Vec<ByteBuf> = wire::decode(&frame.attachment, "mask sum pieces").ok()?;
    let piece = pieces.last_mut()?;
    let other = altered(piece)?;
    let named = sum.pieces.iter_mut().find(|named| **named == chunk_digest(piece))?;
    *named = chunk_digest(&other);
    *piece = ByteBuf::from(other);
    Some((sign(frame, &sum), wire::encode(&pieces)))
}

/// The same bytes but for one bit.
fn altered(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut other = bytes.to_vec();
    *other.first_mut()? ^= 1;
    Some(other)
}

/// The same message with another body, signed by its sender.
pub(super) fn sign<B: Serialize>(frame: &Frame, body: &B) -> Signed {
    sign_after(frame, frame.envelope.after, body)
}

/// The same message with another body, after another one than it continues, signed by its sender.
pub(super) fn sign_after<B: Serialize>(frame: &Frame, after: Digest, body: &B) -> Signed {
    let envelope = Envelope { after, body: ByteBuf::from(wire::encode(body)), ..frame.envelope.clone() };
    Signed::new(&envelope, &signing_key(&envelope.from))
}

/// A message on the way that `delivery` takes, under the subject that it says itself.
fn stand(signed: &Signed, attachment: &[u8], delivery: &Delivery) -> Delivery {
    let payload = signed.frame(attachment);
    let mut address = Address { name: name_of(&payload), ..delivery.address.clone() };
    if let Ok(frame) = signed.open() {
        (address.kind, address.round) = (frame.envelope.kind, frame.envelope.round);
    }
    Delivery { address, payload, ..delivery.clone() }
}

/// The same message under a subject with another part, in which `other` stands for a name.
pub(super) fn readdress(delivery: &Delivery, part: Part, other: Name) -> Delivery {
    let mut address = delivery.address.clone();
    match part {
        Part::Session => address.session = SessionTag([0; 16]),
        Part::Round => address.round = address.round.next(),
        Part::From => address.from = other,
        Part::To => address.to = To::One(if other == delivery.receiver { address.from.clone() } else { other }),
        Part::Kind => address.kind = if address.kind == Kind::Share { Kind::Held } else { Kind::Share },
    }
    Delivery { address, ..delivery.clone() }
}

/// The same message as if `other` said it, under the key of whoever did.
pub(super) fn forge(delivery: &Delivery, other: &Name) -> Option<Delivery> {
    let frame = Frame::decode(&delivery.payload).ok()?;
    let envelope = Envelope { from: other.clone(), ..frame.envelope.clone() };
    let payload = Signed::new(&envelope, &signing_key(&frame.envelope.from)).frame(&frame.attachment);
    let mut address = delivery.address.clone();
    address.from = other.clone();
    address.name = name_of(&payload);
    Some(Delivery { address, payload, ..delivery.clone() })
}

/// The same message with another byte at `at`, counted around its length.
pub(super) fn alter(delivery: Delivery, at: u16) -> Delivery {
    let mut payload = delivery.payload.to_vec();
    let at = usize::from(at).checked_rem(payload.len()).unwrap_or_default();
    if let Some(byte) = payload.get_mut(at) {
        *byte ^= 1;
    }
    Delivery { payload: Bytes::from(payload), ..delivery }
}

/// A name of the board that nothing else has.
fn name_of(payload: &[u8]) -> MessageName {
    let digest = kdf::digest("ward/1 simulated name", &[payload]);
    let mut name = [0; 16];
    name.iter_mut().zip(digest.0).for_each(|(byte, from)| *byte = from);
    MessageName(name)
}
