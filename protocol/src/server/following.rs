//! How another server than the first comes into a session: it joins, and takes Roster and list from the first.

use super::ServerDesk;
use super::joining::Running;
use crate::desk::{Me, Pen, Stop, rule};
use crate::error::Wrong;
use crate::id::{Chain, Dates, Kind, Name, Role, To};
use crate::message::Join;
use crate::records::{Records, session_key};
use crate::session::{Lineup, Pieces, Rules};
use crate::step::Event;
use crate::wire::{self, Frame, Signed};

/// How far another server is in.
#[derive(Debug)]
pub(super) enum Following {
    /// It joined; no Roster yet.
    Joined,
    /// The Roster is here; the list is coming.
    Listing(Box<Lineup>, Signed, Pieces),
}

impl Following {
    /// Says who this server is, for the Roster.
    pub(super) fn send_join(rules: &Rules, pen: &Pen<'_>, desk: &mut ServerDesk<'_>) {
        let to = To::One(rules.first_server().clone());
        let join = Join { chain: desk.me.chain.clone(), seal_key: None };
        desk.out.send.push(pen.write(Kind::Join, to, rules.session, &join));
    }

    /// The first server made the Roster.
    pub(super) fn on_roster(&mut self, frame: &Frame, rules: &Rules, desk: &mut ServerDesk<'_>) -> Result<(), Stop> {
        let read = Lineup::read(frame, rules, desk.me, Dates::At(desk.now))?;
        if let Following::Listing(lineup, ..) = self {
            let same = lineup.digest == read.digest;
            return Err(if same { Stop::Useless("the roster is known") } else { Stop::Fault(Wrong::Equivocation) });
        }
        let roster = frame.signed();
        desk.out.put(session_key(rules.session, "roster"), wire::encode(&roster));
        *self = Following::Listing(Box::new(read), roster, Pieces::default());
        Ok(())
    }

    /// A piece of the list of who joined; the session runs once it is whole.
    pub(super) fn on_list(
        &mut self,
        frame: &Frame,
        rules: &Rules,
        desk: &mut ServerDesk<'_>,
    ) -> Result<Option<Running>, Stop> {
        let Following::Listing(lineup, roster, pieces) = self else { return Err(Stop::Early) };
        let Some(joined) = pieces.take(frame, rules, lineup, desk)? else { return Ok(None) };
        let committee = lineup.seats.iter().map(|seat| seat.identity.name.clone()).collect();
        desk.out.event(Event::Roster { session: rules.session, count: lineup.count, committee });
        let index = rules.server_index(&desk.me.name).ok_or(rule("a session of another server"))?;
        let running = Running::new(index, roster.clone(), (**lineup).clone(), joined);
        running.save(rules.session, desk);
        Ok(Some(running))
    }

    /// What the store has, where its list is not whole.
    pub(super) fn restore(rules: &Rules, me: &Me, store: &Records) -> Option<Self> {
        let Some(roster) = store.get(&session_key(rules.session, "roster")) else { return Some(Following::Joined) };
        let roster: Signed = wire::decode(roster, "roster").ok()?;
        let lineup = Lineup::read(&roster.open().ok()?, rules, me, Dates::Checked).ok()?;
        let pieces = Pieces::restore(rules, &lineup, me, store);
        Some(Following::Listing(Box::new(lineup), roster, pieces))
    }
}

/// The name and chain of another server, from its Join.
pub(super) fn read_join(frame: &Frame, rules: &Rules, me: &Me, dates: Dates) -> Result<(Name, Chain), Stop> {
    let envelope = &frame.envelope;
    if envelope.kind != Kind::Join || envelope.session != rules.session || envelope.after != rules.session {
        return Err(rule("a Join continues the Announce of its session"));
    }
    let join: Join = envelope.body()?;
    let identity = crate::desk::identify(me, &join.chain, dates)?;
    frame.verify(&identity)?;
    let announced = rules.announce.servers[1..].contains(&identity.name);
    if identity.role != Role::Server || !announced || join.seal_key.is_some() {
        return Err(Wrong::NotItsRole.into());
    }
    Ok((identity.name, join.chain))
}
