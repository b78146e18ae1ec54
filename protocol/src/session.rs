//! What the messages of a set-up establish, once checked: the rules, the roster and the list of who joined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::chunks::Chunks;
use crate::desk::{Desk, Me, Stop, identify, rule};
use crate::error::Wrong;
use crate::id::{Dates, Digest, Identity, Kind, Name, Place, Role, RoundNo, SessionId, Snapshot, Time};
use crate::kdf;
use crate::merkle;
use crate::message::{Announce, Begin, Cohort, Confirm, Join, Joins, List, Roster};
use crate::places::Places;
use crate::plan::{MOST_PATIENTS, MOST_SERVERS};
use crate::records::{Records, session_key};
use crate::seal::SealKey;
use crate::sharing::Block;
use crate::step::Effects;
use crate::wire::{self, Frame, Signed};

/// Length of a join or round time, in seconds: at least 1, at most a day.
pub const WAIT_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;

/// The rules of a session, from an Announce whose hospital is proven.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) session: SessionId,
    pub(crate) announce: Announce,
    pub(crate) hospital: Identity,
    pub(crate) blocks: Arc<[Block]>,
}

impl Rules {
    pub(crate) fn read(frame: &Frame, me: &Me, dates: Dates) -> Result<Self, Stop> {
        let announce: Announce = frame.envelope.body()?;
        let hospital = identify(me, &announce.chain, dates)?;
        frame.verify(&hospital)?;
        if hospital.role != Role::Hospital {
            return Err(Wrong::NotItsRole.into());
        }
        let rules = Self { session: frame.digest, hospital, blocks: announce.sharing.blocks().into(), announce };
        rules.check()?;
        Ok(rules)
    }

    /// Whether the session's time is up. A store may still hold one that is: to be wiped.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        now >= self.not_after()
    }

    /// When the session ends at the latest.
    pub(crate) fn not_after(&self) -> Time {
        Time(self.announce.not_after)
    }

    fn check(&self) -> Result<(), Stop> {
        let Announce { min_cohort, expect, servers, join_seconds, sharing, .. } = &self.announce;
        let names: BTreeSet<&Name> = servers.iter().collect();
        if !(1..=MOST_SERVERS).contains(&servers.len()) || names.len() != servers.len() {
            return Err(rule("a session takes from 1 to 16 different servers"));
        }
        if *min_cohort < 2 || expect < min_cohort || *expect < u32::from(sharing.committee()) {
            return Err(rule(
                "at least two, the smallest cohort and the committee must fit into the expected patients",
            ));
        }
        if *expect > MOST_PATIENTS {
            return Err(rule("more patients than a session can have"));
        }
        if !WAIT_SECONDS.contains(join_seconds) {
            return Err(rule("join_seconds must be from 1 to 86400"));
        }
        Ok(())
    }

    /// Which of the servers `name` is, counted from 0.
    pub(crate) fn server_index(&self, name: &Name) -> Option<usize> {
        self.announce.servers.iter().position(|server| server == name)
    }

    /// The first server: it makes the Roster and fixes the cohort.
    pub(crate) fn first_server(&self) -> &Name {
        // `check` admits no Announce without a server.
        &self.announce.servers[0]
    }

    /// How many must join: max(k, c).
    pub(crate) fn needed(&self) -> u32 {
        self.announce.min_cohort.max(u32::from(self.announce.sharing.committee()))
    }

    /// Whether `identity` may sit on the committee.
    pub(crate) fn may_sit(&self, identity: &Identity) -> bool {
        let candidates = &self.announce.candidates;
        identity.role == Role::Member && (candidates.is_empty() || candidates.contains(&identity.name))
    }

    /// The committee: of those who may sit, the c lowest in H(Announce, name), sorted by name; `None` if there are fewer.
    pub(crate) fn draw<'a>(&self, joined: impl Iterator<Item = &'a Joined>) -> Option<Vec<&'a Joined>> {
        let mut drawn: Vec<&Joined> = joined.filter(|one| self.may_sit(&one.identity)).collect();
        drawn.sort_by_key(|one| kdf::digest("ward/1 committee", &[&self.session.0, one.name().as_str().as_bytes()]));
        let c = usize::from(self.announce.sharing.committee());
        if drawn.len() < c {
            return None;
        }
        drawn.truncate(c);
        drawn.sort_by_key(|one| one.name());
        Some(drawn)
    }
}

/// A Join whose patient is proven.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) identity: Identity,
    pub(crate) seal_key: Option<SealKey>,
    pub(crate) signed: Signed,
    pub(crate) digest: Digest,
}

impl Joined {
    pub(crate) fn read(frame: &Frame, rules: &Rules, me: &Me, dates: Dates) -> Result<Self, Stop> {
        let envelope = &frame.envelope;
        if envelope.kind != Kind::Join || envelope.session != rules.session || envelope.after != rules.session {
            return Err(rule("a Join continues the Announce of its session"));
        }
        let join: Join = envelope.body()?;
        let identity = identify(me, &join.chain, dates)?;
        frame.verify(&identity)?;
        if !identity.role.is_patient() {
            return Err(Wrong::NotItsRole.into());
        }
        let sealed = identity.role == Role::Member || rules.announce.payloads;
        if join.seal_key.is_some() != sealed {
            return Err(rule("marked patients, and all where there are payloads, join with a seal key"));
        }
        Ok(Self { identity, seal_key: join.seal_key, signed: frame.signed(), digest: frame.digest })
    }

    pub(crate) fn name(&self) -> &Name {
        &self.identity.name
    }
}

/// A seat of the committee.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) identity: Identity,
    pub(crate) seal_key: SealKey,
    pub(crate) join: Digest,
}

/// A Roster whose committee and servers are proven.
#[derive(Clone, Debug)]
pub(crate) struct Lineup {
    pub(crate) digest: Digest,
    pub(crate) root: Digest,
    pub(crate) count: u32,
    pub(crate) seats: Vec<Seat>,
    pub(crate) servers: Vec<Identity>,
}

impl Lineup {
    pub(crate) fn read(frame: &Frame, rules: &Rules, me: &Me, dates: Dates) -> Result<Self, Stop> {
        if frame.envelope.after != rules.session {
            return Err(rule("a Roster continues the Announce of its session"));
        }
        let roster: Roster = frame.envelope.body()?;
        let mut servers = Vec::new();
        for chain in &roster.servers {
            servers.push(identify(me, chain, dates)?);
        }
        let named = servers.iter().map(|server| &server.name).eq(rules.announce.servers.iter());
        if !named || servers.iter().any(|server| server.role != Role::Server) {
            return Err(rule("the Roster's servers are not those of the Announce"));
        }
        frame.verify(&servers[0])?;
        let seats = Self::read_seats(&roster, rules, me, dates)?;
        Ok(Self { digest: frame.digest, root: roster.root, count: roster.count, seats, servers })
    }

    fn read_seats(roster: &Roster, rules: &Rules, me: &Me, dates: Dates) -> Result<Vec<Seat>, Stop> {
        let mut seats: Vec<Seat> = Vec::new();
        for signed in &roster.committee {
            let joined = Joined::read(&signed.open()?, rules, me, dates)?;
            if !rules.may_sit(&joined.identity) {
                return Err(rule("a seat belongs to a patient without the mark, or one that is no candidate"));
            }
            let Joined { identity, seal_key: Some(seal_key), digest: join, .. } = joined else {
                return Err(rule("a seat without a seal key"));
            };
            seats.push(Seat { identity, seal_key, join });
        }
        let sorted = seats.is_sorted_by(|a, b| a.identity.name < b.identity.name);
        let mut keys: Vec<&[u8]> = seats.iter().map(|seat| seat.seal_key.as_bytes()).collect();
        keys.sort_unstable();
        keys.dedup();
        if seats.len() != usize::from(rules.announce.sharing.committee()) || !sorted || keys.len() != seats.len() {
            return Err(rule("the committee is not c different patients with different seal keys, sorted by name"));
        }
        if roster.count < rules.needed() {
            return Err(rule("fewer joined than the smallest cohort or the committee"));
        }
        if roster.count > rules.announce.expect {
            return Err(rule("more joined than the Announce expects"));
        }
        Ok(seats)
    }

    /// The seat of `name`, if it sits on the committee.
    pub(crate) fn seat_of(&self, name: &Name) -> Option<u8> {
        self.seats.iter().position(|seat| seat.identity.name == *name).map(|seat| seat as u8)
    }

    /// Checks that `joined`, sorted by name, is the list that the Roster commits to and that the draw was followed.
    pub(crate) fn check_list(&self, joined: &[Joined], rules: &Rules) -> Result<(), Stop> {
        if joined.len() != self.count as usize || !joined.is_sorted_by(|a, b| a.name() < b.name()) {
            return Err(rule("the list is not as long as the Roster says, or not sorted by name"));
        }
        let leaves: Vec<Digest> = joined.iter().map(|one| one.digest).collect();
        if merkle::root(&leaves) != self.root {
            return Err(rule("the list is not the one that the Roster commits to"));
        }
        let drawn = rules.draw(joined.iter()).unwrap_or_default();
        if !drawn.iter().map(|one| one.digest).eq(self.seats.iter().map(|seat| seat.join)) {
            return Err(rule("the committee is not the one that the draw gives"));
        }
        Ok(())
    }

    /// The info that binds a pair's encapsulation to session, both parties and the receiver's key.
    pub(crate) fn key_info(&self, rules: &Rules, sender: &Identity, receiver: &Seat) -> Vec<u8> {
        let parts: [&[u8]; 7] = [
            &rules.session.0,
            &self.digest.0,
            sender.name.as_str().as_bytes(),
            &sender.certificate.0,
            receiver.identity.name.as_str().as_bytes(),
            &receiver.identity.certificate.0,
            receiver.seal_key.as_bytes(),
        ];
        kdf::digest("ward/1 key info", &parts).0.to_vec()
    }
}

/// A Begin that the hospital signed, with what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) round: RoundNo,
    pub(crate) digest: Digest,
    pub(crate) signed: Signed,
    pub(crate) begin: Begin,
    pub(crate) chunks: Chunks,
    /// When this party stored it: its times count from here.
    pub(crate) since: Time,
}

impl Asked {
    /// The most rounds a party may have missed: its chains are hashed once for each.
    pub(crate) const MOST_MISSED: u32 = 10_000;

    pub(crate) fn read(
        frame: &Frame,
        rules: &Rules,
        lineup: &Lineup,
        last: RoundNo,
        since: Time,
    ) -> Result<Self, Stop> {
        frame.verify(&rules.hospital)?;
        if frame.envelope.round.0.saturating_sub(last.0) > Self::MOST_MISSED {
            return Err(rule("a Begin that is more than 10000 rounds ahead"));
        }
        if frame.envelope.after != lineup.digest {
            return Err(Stop::Useless("a Begin after another Roster than this party has"));
        }
        let begin: Begin = frame.envelope.body()?;
        if frame.envelope.round == RoundNo::SETUP
            || !begin.question.is_sound()
            || !WAIT_SECONDS.contains(&begin.round_seconds)
        {
            return Err(rule("a Begin needs a round from 1, a sound question and a time from 1 to 86400 s"));
        }
        if !begin.ring.fits(u64::from(lineup.count), begin.scaled_bound) {
            return Err(rule("the ring cannot hold the sum of all who joined"));
        }
        if begin.same_as.is_some_and(|earlier| earlier >= frame.envelope.round) {
            return Err(rule("same_as names a round that is not earlier"));
        }
        let chunks = Chunks::new(begin.ring, begin.question.dimension()).map_err(|_| rule("the vector is too long"))?;
        Ok(Self { round: frame.envelope.round, digest: frame.digest, signed: frame.signed(), begin, chunks, since })
    }

    /// After this many milliseconds patients share no more, and the server fixes the cohort.
    pub(crate) fn shares_close(&self) -> Time {
        self.since.plus_millis(u64::from(self.begin.round_seconds) * 500)
    }

    /// After this the hospital waits for no Confirm.
    pub(crate) fn confirms_close(&self) -> Time {
        self.since.plus_millis(u64::from(self.begin.round_seconds) * 750)
    }

    /// After this nobody releases anything.
    pub(crate) fn ends(&self) -> Time {
        self.since.plus_seconds(self.begin.round_seconds)
    }

    /// A tenth of the round's time, in milliseconds.
    pub(crate) fn tenth(&self) -> u64 {
        u64::from(self.begin.round_seconds) * 100
    }
}

/// A Cohort that the first server signed.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub(crate) digest: Digest,
    pub(crate) cohort: Cohort,
    pub(crate) signed: Signed,
}

impl Fixed {
    pub(crate) fn read(frame: &Frame, lineup: &Lineup, begin: Digest) -> Result<Self, Stop> {
        frame.verify(&lineup.servers[0])?;
        if frame.envelope.kind != Kind::Cohort {
            return Err(rule("what stands for a Cohort is another kind of message"));
        }
        if frame.envelope.after != begin {
            return Err(Stop::Useless("a Cohort after another Begin than this party has"));
        }
        let cohort: Cohort = frame.envelope.body()?;
        if !cohort.places.fits(lineup.count) {
            return Err(rule("the cohort is not a set over the Roster"));
        }
        Ok(Self { digest: frame.digest, cohort, signed: frame.signed() })
    }

    /// The cohort's places, ascending.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.cohort.places.iter()
    }
}

/// A cohort that was fixed in a round of before, and that members may have confirmed, whatever became of the round.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Past {
    pub(crate) round: RoundNo,
    pub(crate) snapshot: Snapshot,
    pub(crate) places: Places,
}

/// The seats of a committee that signed Confirms of the cohort `digest`; any that does not hold makes all of it fail,
/// and is a fault of whoever shows them.
pub(crate) fn read_confirms(
    confirms: &[Signed],
    digest: Digest,
    session: SessionId,
    round: RoundNo,
    lineup: &Lineup,
) -> Result<Vec<u8>, Stop> {
    let mut seats = Vec::new();
    for signed in confirms {
        let seat = read_confirm(&signed.open()?, digest, session, round, lineup);
        seats.push(seat.map_err(|stop| if let Stop::Useless(why) = stop { rule(why) } else { stop })?);
    }
    seats.sort_unstable();
    seats.dedup();
    if seats.len() == confirms.len() { Ok(seats) } else { Err(rule("a member's Confirm is counted twice")) }
}

/// The seat that signed this Confirm of the cohort `digest`.
pub(crate) fn read_confirm(
    frame: &Frame,
    digest: Digest,
    session: SessionId,
    round: RoundNo,
    lineup: &Lineup,
) -> Result<u8, Stop> {
    let envelope = &frame.envelope;
    if envelope.kind != Kind::Confirm || envelope.session != session || envelope.round != round {
        return Err(rule("what stands for a Confirm is another message"));
    }
    let Confirm() = envelope.body()?;
    let seat = lineup.seat_of(&envelope.from).ok_or(Wrong::NotItsRole)?;
    frame.verify(&lineup.seats[usize::from(seat)].identity)?;
    // Its signer may be honest: the server may have shown it another Cohort than the hospital.
    if envelope.after != digest { Err(Stop::Useless("a Confirm of another cohort")) } else { Ok(seat) }
}

/// What the seal of a mask sum is bound to.
pub(crate) fn sum_info(session: SessionId, round: RoundNo, member: &Name, open: Digest) -> Vec<u8> {
    let parts: [&[u8]; 4] = [&session.0, &round.0.to_le_bytes(), member.as_str().as_bytes(), &open.0];
    kdf::digest("ward/1 mask sum info", &parts).0.to_vec()
}

/// Collects the pieces of the list of all Joins; each is stored as it comes, until the list is whole.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: BTreeMap<u32, Vec<Joined>>,
}

impl Pieces {
    /// Takes one piece; the whole list, stored, once it is complete and is the one that the Roster commits to.
    pub(crate) fn take<T>(
        &mut self,
        frame: &Frame,
        rules: &Rules,
        lineup: &Lineup,
        desk: &mut Desk<'_, T>,
    ) -> Result<Option<Vec<Joined>>, Stop> {
        let list = self.add(frame, rules, lineup, desk.me, Dates::At(desk.now))?;
        if self.pieces.len() < list.pieces as usize {
            desk.out.put(piece_key(rules.session, list.piece), frame.signed().frame(&frame.attachment).to_vec());
            return Ok(None);
        }
        let (numbers, joined): (Vec<u32>, Vec<Vec<Joined>>) = std::mem::take(&mut self.pieces).into_iter().unzip();
        numbers.into_iter().for_each(|number| desk.out.forget(piece_key(rules.session, number)));
        let whole: Vec<Joined> = joined.into_iter().flatten().collect();
        lineup.check_list(&whole, rules)?;
        desk.out.put(session_key(rules.session, "list"), store_list(&whole));
        Ok(Some(whole))
    }

    fn add(&mut self, frame: &Frame, rules: &Rules, lineup: &Lineup, me: &Me, dates: Dates) -> Result<List, Stop> {
        frame.verify(&lineup.servers[0])?;
        let list: List = frame.envelope.body()?;
        if list.roster != lineup.digest || list.piece >= list.pieces || list.pieces > lineup.count {
            return Err(rule("a List is a piece of the Roster's list"));
        }
        if wire::attachment_digest(&frame.attachment) != list.joins {
            return Err(Wrong::Unnamed.into());
        }
        let Joins(signed) = wire::decode(&frame.attachment, "list of joins")?;
        let joined: Vec<Joined> =
            signed.iter().map(|one| Joined::read(&one.open()?, rules, me, dates)).collect::<Result<_, Stop>>()?;
        let others = self.pieces.iter().filter(|(piece, _)| **piece != list.piece);
        let known: usize = others.map(|(_, joined)| joined.len()).sum();
        if known + joined.len() > lineup.count as usize {
            return Err(rule("a List of more Joins than the Roster counts"));
        }
        self.pieces.insert(list.piece, joined);
        Ok(list)
    }

    /// The pieces that the store has.
    pub(crate) fn restore(rules: &Rules, lineup: &Lineup, me: &Me, store: &Records) -> Self {
        let mut pieces = Self::default();
        let prefix = session_key(rules.session, "piece/");
        for (_, value) in store.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)) {
            if let Ok(frame) = Frame::decode(&Bytes::copy_from_slice(value)) {
                // A piece that cannot be read again is one that never came.
                let _ = pieces.add(&frame, rules, lineup, me, Dates::Checked);
            }
        }
        pieces
    }

    /// Forgets the pieces that are stored.
    pub(crate) fn wipe(&self, session: SessionId, out: &mut Effects) {
        self.pieces.keys().for_each(|number| out.forget(piece_key(session, *number)));
    }
}

fn piece_key(session: SessionId, number: u32) -> String {
    session_key(session, &format!("piece/{number}"))
}

/// The list of who joined, as a store keeps it.
pub(crate) fn read_list(stored: &[u8], rules: &Rules, me: &Me) -> Option<Vec<Joined>> {
    let Joins(signed) = wire::decode(stored, "list of joins").ok()?;
    signed.iter().map(|one| Joined::read(&one.open().ok()?, rules, me, Dates::Checked).ok()).collect()
}

/// The list of who joined, for a store.
pub(crate) fn store_list(joined: &[Joined]) -> Vec<u8> {
    wire::encode(&joined.iter().map(|one| &one.signed).collect::<Vec<_>>())
}

/// The place of `name` in the list, which is sorted by name.
pub(crate) fn place_of(joined: &[Joined], name: &Name) -> Option<Place> {
    joined.binary_search_by(|one| one.name().cmp(name)).ok().map(|place| Place(place as u32))
}
