//! One run: a study under faults, then in calm, where it must come to an answer.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::fault::{Blow, Counts, Fault};
use super::forge::Liars;
use super::forget;
use super::lie::Lie;
use super::oracle::{Failure, Oracle};
use super::shape::{Act, Cast, JOIN_SECONDS, ROUND_SECONDS, SESSION_SECONDS, Shape, label};
use super::weather::{Source, Weather};
use crate::early;
use crate::error::PlanError;
use crate::id::{Digest, Kind, Name, Role, SessionId, Time};
use crate::memory::{Network, Step};
use crate::records::Records;

/// The most steps of a run: one that takes more does not come to rest.
const MOST_STEPS: u64 = 200_000;

/// The most messages that may be under way.
const MOST_UNDER_WAY: usize = 20_000;

/// The most bytes that a party may store for each coordinate of each patient, and for everything else: a server that lost its
/// store keeps what comes to it as early, a vector of each patient and round.
const MOST_STORED: (usize, usize) = (40, 256 * 1024);

/// How many steps lie between two looks at the stores.
const LOOK: u64 = 64;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rule that did not hold, if there is one.
    pub failure: Option<Failure>,
    /// A digest of all that every machine was handed and did.
    pub trace: Digest,
    /// The faults that happened: with these alone it happens again.
    pub faults: Vec<Fault>,
    /// How often each kind did.
    pub counts: Counts,
    /// How many steps it took.
    pub steps: u64,
    /// How many rounds were answered, in faults and in calm.
    pub answers: u64,
    /// How many rounds, and sessions before their first, ended without an answer, by reason.
    pub aborts: BTreeMap<&'static str, u64>,
    /// The most that any party stored, in bytes.
    pub most_stored: usize,
}

/// Plays a study under these faults.
pub(super) fn play(seed: u64, shape: &Shape, source: Source, blows: &[(u64, Blow)], lies: Vec<Lie>) -> Outcome {
    match Play::new(seed, shape, source, blows, lies) {
        Ok(mut play) => {
            // What a panic leaves behind is only looked at.
            match catch_unwind(AssertUnwindSafe(|| play.run())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => play.fail("set-up", error.to_string()),
                Err(_) => play.fail("no panic", "a machine panicked; what it said is on stderr".into()),
            }
            play.outcome()
        }
        Err(error) => Outcome {
            failure: Some(Failure { rule: "set-up", what: error.to_string() }),
            trace: Digest::default(),
            faults: Vec::new(),
            counts: Counts::default(),
            steps: 0,
            answers: 0,
            aborts: BTreeMap::new(),
            most_stored: 0,
        },
    }
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
struct Back {
    who: Name,
    /// Whether its owner gives it its data anew.
    anew: bool,
    /// Whether what it had not acknowledged comes again in the opposite order.
    reversed: bool,
    /// Whether it forgets whose cohorts it fixed.
    forgetful: bool,
}

impl Back {
    fn of(who: Name) -> Self {
        Self { who, anew: false, reversed: false, forgetful: false }
    }
}

struct Play<'a> {
    shape: &'a Shape,
    cast: Cast,
    net: Network,
    oracle: Rc<RefCell<Oracle>>,
    weather: Rc<RefCell<Weather>>,
    /// By step, the first one last.
    blows: Vec<(u64, Blow)>,
    /// Who comes back when.
    back: BTreeMap<(Time, u64), Back>,
    /// Who will die of what it sends, by what kind of crash, and for how long it is then away.
    armed: Vec<(&'static str, u64, Back)>,
    copies: BTreeMap<Name, Records>,
    sessions: Vec<SessionId>,
    steps: u64,
    most_stored: usize,
}

impl<'a> Play<'a> {
    fn new(
        seed: u64,
        shape: &'a Shape,
        source: Source,
        blows: &[(u64, Blow)],
        lies: Vec<Lie>,
    ) -> Result<Self, crate::id::NameError> {
        let cast = shape.cast()?;
        let silent: BTreeSet<Name> =
            shape.silent.iter().filter_map(|i| cast.patients.get(usize::from(*i)).cloned()).collect();
        let liars = lies.iter().flat_map(|lie| lie.liars(&cast).cloned()).collect();
        let oracle = Rc::new(RefCell::new(Oracle::new(shape, &cast, liars)));
        let mut weather = Weather::new(source, silent, Network::START, Liars::new(lies, &cast, shape));
        shape.silent.iter().for_each(|_| weather.counts.add("silent patient"));
        if shape.payloads {
            weather.counts.add("payloads");
        }
        let weather = Rc::new(RefCell::new(weather));
        let mut net = Network::new(seed);
        let (looks, passes, writes) = (oracle.clone(), weather.clone(), weather.clone());
        net.watch(move |who, step| {
            if let Step::Effects(effects) = step {
                writes.borrow_mut().written(who, effects);
            }
            looks.borrow_mut().look(who, step);
        });
        net.tamper(move |delivery| passes.borrow_mut().pass(delivery));
        let (errs, works) = (oracle.clone(), weather.clone());
        net.work(move |who, job| {
            let (outcome, error) = works.borrow_mut().work(who, job);
            error.into_iter().for_each(|error| errs.borrow_mut().errors.note(who, error));
            outcome
        });
        let mut blows = blows.to_vec();
        blows.sort_by_key(|(step, _)| *step);
        blows.reverse();
        Ok(Self {
            shape,
            cast,
            net,
            oracle,
            weather,
            blows,
            back: BTreeMap::new(),
            armed: Vec::new(),
            copies: BTreeMap::new(),
            sessions: Vec::new(),
            steps: 0,
            most_stored: 0,
        })
    }

    fn run(&mut self) -> Result<(), PlanError> {
        self.gather();
        for act in &self.shape.acts {
            match act {
                Act::Open => self.open()?,
                Act::Ask(snapshot) => self.ask_newest(*snapshot)?,
            }
        }
        self.calm_down();
        self.converge()?;
        self.oracle.borrow_mut().judge_leakage();
        Ok(())
    }

    /// Makes all parties, with data under two labels.
    fn gather(&mut self) {
        self.net.add_hospital(&self.cast.hospital);
        self.cast.servers.iter().for_each(|server| self.net.add_server(server));
        for (i, name) in (0u8..).zip(&self.cast.patients) {
            let role = if i < self.shape.marked { Role::Member } else { Role::Patient };
            self.net.add_patient(name, role, self.shape.policy(), self.shape.schema());
        }
        for name in self.cast.patients.clone() {
            self.offer(&name, &[1, 2], 0);
        }
    }

    /// Gives a living patient data under these labels; values that are frozen stay.
    fn offer(&mut self, who: &Name, labels: &[u8], version: u8) {
        let Some(i) = self.cast.number(who).filter(|_| self.net.is_alive(who)) else { return };
        for number in labels {
            if let (Some(label), Some(record)) = (label(*number), self.shape.record(i, version)) {
                // What is frozen is refused: that is the rule, and not looked at here.
                let _ = self.net.offer(who, &label, record);
            }
        }
    }

    fn failed(&self) -> bool {
        self.oracle.borrow().failure.is_some()
    }

    fn ends(&self) -> u64 {
        self.oracle.borrow().ends
    }

    /// Opens a session; the hospital is made to run first.
    fn open(&mut self) -> Result<(), PlanError> {
        self.revive_hospital();
        let plan = self.shape.plan(&self.cast, self.net.now())?;
        if let Some(session) = self.net.announce(&plan) {
            self.sessions.push(session);
        }
        self.pass_until(u64::from(JOIN_SECONDS) * 1000, |_| false);
        Ok(())
    }

    /// Asks in the newest session, or in a new one if that is over; and waits for the end of the round.
    fn ask_newest(&mut self, snapshot: u8) -> Result<(), PlanError> {
        self.revive_hospital();
        let Some(session) = self.sessions.last().copied() else { return Ok(()) };
        match self.ask(session, snapshot) {
            Err(PlanError::NoSession(_)) => {
                self.open()?;
                let Some(session) = self.sessions.last().copied() else { return Ok(()) };
                self.ask(session, snapshot).or_else(is_there_no_session)
            }
            other => other,
        }
    }

    /// Asks for the sum over a snapshot and waits for the round's end.
    fn ask(&mut self, session: SessionId, snapshot: u8) -> Result<(), PlanError> {
        let Some(label) = label(snapshot) else { return Ok(()) };
        let ask = self.shape.ask(label);
        match self.net.ask(session, ask.clone()) {
            // The round before came to no end, or the Roster to nobody: either may be, under faults.
            Err(PlanError::Busy) => {
                self.net.stop(session, false);
                self.net.ask(session, ask)?;
            }
            other => other?,
        }
        let ends = self.ends();
        self.pass_until(u64::from(JOIN_SECONDS + ROUND_SECONDS) * 1000 + 5_000, |play| play.ends() > ends);
        Ok(())
    }

    fn revive_hospital(&mut self) {
        let who = self.cast.hospital.clone();
        if !self.net.is_alive(&who) {
            self.back.retain(|_, back| back.who != who);
            self.revive(&Back::of(who));
        }
    }

    /// Lets time pass until `done`, at most so many milliseconds.
    fn pass_until(&mut self, millis: u64, done: impl Fn(&Self) -> bool) {
        let until = self.net.now().plus_millis(millis);
        while !self.failed() && !done(self) {
            self.bury();
            self.strike();
            let next = self.back.keys().next().map(|(time, _)| *time).filter(|time| *time <= until);
            let stop = next.unwrap_or(until);
            self.weather.borrow_mut().now = self.net.now();
            if self.net.now() <= stop && self.net.advance(stop) {
                self.step();
            } else {
                let rest = stop.0.saturating_sub(self.net.now().0);
                self.net.sleep(rest);
                if next.is_none() {
                    return;
                }
                self.come_back();
            }
        }
    }

    /// Who died of what it sent comes back later.
    fn bury(&mut self) {
        let dead: Vec<usize> = (0..self.armed.len()).filter(|at| !self.net.is_alive(&self.armed[*at].2.who)).collect();
        for at in dead.into_iter().rev() {
            let (kind, down, armed) = self.armed.remove(at);
            // A crash of another kind may have come first.
            if !self.back.values().any(|back| back.who == armed.who) {
                self.weather.borrow_mut().counts.add(kind);
                self.come_back_in(down, armed);
            }
        }
    }

    /// After each step: is everything within its bounds?
    fn step(&mut self) {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            self.fail("rest", format!("the study does not come to rest in {MOST_STEPS} steps"));
        }
        if self.net.under_way() > MOST_UNDER_WAY {
            self.fail("memory", format!("{} messages are under way", self.net.under_way()));
        }
        if self.steps.is_multiple_of(LOOK) {
            self.look_at_stores();
        }
    }

    fn fail(&self, rule: &'static str, what: String) {
        self.oracle.borrow_mut().fail(rule, what);
    }

    fn look_at_stores(&mut self) {
        let coordinates = self.shape.dimension as usize * usize::from(self.shape.patients);
        let most = MOST_STORED.0 * coordinates + MOST_STORED.1;
        for who in self.cast.everybody() {
            let Some(store) = self.net.store(who) else { continue };
            let stored = store.iter().map(|(key, value)| key.len() + value.len()).sum();
            self.most_stored = self.most_stored.max(stored);
            if stored > most {
                self.fail("memory", format!("{who} stores {stored} bytes"));
            }
        }
    }

    fn record(&self, kind: &'static str, blow: &Blow) {
        let mut weather = self.weather.borrow_mut();
        weather.counts.add(kind);
        weather.fired.push(Fault::Blow(self.steps, blow.clone()));
    }

    /// The blows that fall now.
    fn strike(&mut self) {
        while self.blows.last().is_some_and(|(step, _)| *step <= self.steps) {
            if let Some((_, blow)) = self.blows.pop() {
                self.hit(&blow);
            }
        }
    }

    fn hit(&mut self, blow: &Blow) {
        match blow {
            Blow::Crash { who, down } => self.crash("crash", blow, who, *down, None, 0),
            Blow::Clock { who, down, millis } => self.crash("clock jump", blow, who, *down, None, *millis),
            Blow::Older { who, down } => {
                if let Some(copy) = self.copies.get(who).cloned() {
                    let patient = self.cast.number(who).is_some();
                    let kind = if patient { "older store" } else { "older server or hospital" };
                    self.crash(kind, blow, who, *down, Some(copy), 0);
                }
            }
            Blow::LostStore { who, down } => self.crash("lost store", blow, who, *down, Some(Records::new()), 0),
            Blow::CrashSending { who, after, down } if self.net.is_alive(who) => {
                self.net.kill_while_sending(who, (*after).into());
                self.arm("crash while sending", blow, *down, Back::of(who.clone()));
            }
            Blow::CrashBefore { who, kind, down, reversed } if self.net.is_alive(who) => {
                self.net.kill_before_sending(who, *kind);
                let back = Back { reversed: *reversed, ..Back::of(who.clone()) };
                self.arm("crash before sending", blow, *down, back);
            }
            Blow::ForgetCohorts { down } => {
                let who = self.cast.first_server().clone();
                if self.net.is_alive(&who) {
                    self.net.kill_before_sending(&who, Kind::MaskedSum);
                    self.arm("forgotten cohorts", blow, *down, Back { forgetful: true, ..Back::of(who) });
                }
            }
            Blow::Copy { who } => {
                if let Some(store) = self.net.store(who).cloned() {
                    self.weather.borrow_mut().fired.push(Fault::Blow(self.steps, blow.clone()));
                    self.copies.insert(who.clone(), store);
                }
            }
            Blow::Deaf { who, millis } => self.cut("deaf", blow, who, (true, false), *millis),
            Blow::Mute { who, millis } => self.cut("mute", blow, who, (false, true), *millis),
            Blow::Partition { who, millis } => self.cut("partition", blow, who, (true, true), *millis),
            Blow::Step { who, millis } => {
                self.record("clock step", blow);
                self.net.skew(who, *millis);
            }
            Blow::Reconnect { who } => {
                self.record("cut off", blow);
                self.follow_anew(who);
            }
            Blow::SlowJobs { who, millis } => {
                self.record("slow jobs", blow);
                self.net.slow(who, *millis);
            }
            Blow::SameDraws { who } => {
                self.record("same draws", blow);
                self.net.repeat_draws(who);
            }
            Blow::BoardLost { writes } => {
                self.record("board lost", blow);
                self.net.lose_last((*writes).into());
                self.reconnect_all();
            }
            Blow::Change { who, snapshot } if self.net.is_alive(who) => {
                self.record("changed values", blow);
                self.offer(who, &[*snapshot], 1);
            }
            Blow::CrashSending { .. } | Blow::CrashBefore { .. } | Blow::Change { .. } => {}
        }
    }

    /// A party will die of what it sends.
    fn arm(&mut self, kind: &'static str, blow: &Blow, down: u64, back: Back) {
        self.weather.borrow_mut().fired.push(Fault::Blow(self.steps, blow.clone()));
        self.armed.push((kind, down, back));
    }

    /// A party dies; it comes back later, with another store or clock.
    fn crash(&mut self, kind: &'static str, blow: &Blow, who: &Name, down: u64, store: Option<Records>, clock: i64) {
        if !self.net.is_alive(who) {
            return;
        }
        self.record(kind, blow);
        self.net.kill(who);
        self.net.skew(who, clock);
        let anew = store.is_some();
        if let Some(store) = store {
            self.oracle.borrow_mut().restored.insert(who.clone());
            self.net.restore_store(who, store);
        }
        self.come_back_in(down, Back { anew, ..Back::of(who.clone()) });
    }

    fn cut(&mut self, kind: &'static str, blow: &Blow, who: &Name, (deaf, mute): (bool, bool), millis: u64) {
        self.record(kind, blow);
        self.weather.borrow_mut().cut(who, deaf, mute, millis);
    }

    fn come_back_in(&mut self, millis: u64, back: Back) {
        let at = self.net.now().plus_millis(millis);
        let number = self.back.len() as u64 + self.steps;
        self.back.insert((at, number), back);
    }

    /// Revives whoever is to be back by now.
    fn come_back(&mut self) {
        while let Some(entry) = self.back.first_entry().filter(|entry| entry.key().0 <= self.net.now()) {
            let back = entry.remove();
            self.revive(&back);
        }
    }

    /// A party starts again and goes on with what it had not acknowledged; with another store than it had it follows the
    /// board from the first message of all.
    fn revive(&mut self, back: &Back) {
        if back.reversed {
            self.net.reverse_unacknowledged(&back.who);
        }
        if back.forgetful {
            let store = self.net.store(&back.who).map(forget::cohorts).unwrap_or_default();
            self.net.restore_store(&back.who, store);
        }
        self.net.revive(&back.who);
        if back.anew {
            self.offer(&back.who, &[1, 2], 0);
            self.net.redeliver(&back.who);
        }
    }

    /// A party is connected again, and follows the board from its first message.
    fn follow_anew(&mut self, who: &Name) {
        self.net.reconnect(who);
        self.net.redeliver(who);
    }

    /// The broker is back: everybody who runs notices, and follows it from its first message.
    fn reconnect_all(&mut self) {
        let everybody: Vec<Name> = self.cast.everybody().cloned().collect();
        everybody.iter().for_each(|who| self.net.reconnect(who));
        everybody.iter().for_each(|who| self.net.redeliver(who));
    }

    /// Faults stop: everybody runs and follows the board, and what was under way is through.
    fn calm_down(&mut self) {
        self.blows.clear();
        self.bury();
        self.armed.clear();
        for back in std::mem::take(&mut self.back).into_values() {
            self.revive(&back);
        }
        self.weather.borrow_mut().calm = true;
        let everybody: Vec<Name> = self.cast.everybody().cloned().collect();
        for who in &everybody {
            // It would still die of a blow that has not fallen.
            self.net.spare(who);
            self.net.slow(who, 0);
        }
        self.reconnect_all();
        self.pass_until(u64::from(3 * ROUND_SECONDS) * 1000, |_| false);
    }

    /// In calm every session that lives answers over new data, and so does a new one, over all that answer at all, also where
    /// one of them dies and is back, and over the rest where one dies for good.
    fn converge(&mut self) -> Result<(), PlanError> {
        for (session, snapshot) in self.sessions.clone().into_iter().zip(3..) {
            let lives = self.ask_in_calm(session, snapshot, 2)?;
            let whole = self.oracle.borrow().all_are_honest() && self.shape.silent.is_empty();
            if lives == Some(false) && whole {
                self.fail("recovery", format!("session {} gives no answer after the faults stopped", session.short()));
            }
        }
        self.open()?;
        let Some(session) = self.sessions.last().copied() else { return Ok(()) };
        if self.ask_in_calm(session, u8::MAX, 1)? != Some(true) {
            self.fail("convergence", "a new session gives no answer after the faults stopped".into());
        }
        let all = self.shape.patients as usize - self.shape.silent.len();
        self.must_count(all);
        // The same people over the same snapshot may be asked for as often as one likes.
        if self.ask_in_calm(session, u8::MAX, 1)? != Some(true) {
            self.fail("convergence", "the same question gives no answer when it is asked again".into());
        }
        if let Some(who) = self.who_can_die() {
            self.restart_one(session, &who, all)?;
            self.drop_one(session, &who, all - 1)?;
        }
        self.close()
    }

    fn must_count(&self, expected: usize) {
        let counted = self.oracle.borrow().answers.last().map_or(0, |(.., people)| people.len());
        if !self.failed() && counted != expected {
            self.fail("convergence", format!("{counted} of {expected} are in the sum after the faults stopped"));
        }
    }

    /// A patient that answers, and is no member.
    fn who_can_die(&self) -> Option<Name> {
        let silent = |i: usize| self.shape.silent.iter().any(|silent| usize::from(*silent) == i);
        let ordinary = usize::from(self.shape.marked)..self.cast.patients.len();
        ordinary.rev().find(|i| !silent(*i)).map(|i| self.cast.patients[i].clone())
    }

    /// Who dies before it sends its Share, and is back in time, is in the sum.
    fn restart_one(&mut self, session: SessionId, who: &Name, all: usize) -> Result<(), PlanError> {
        self.net.kill_before_sending(who, Kind::Share);
        self.armed.push(("crash in calm", 1000, Back::of(who.clone())));
        if self.ask_in_calm(session, u8::MAX - 2, 1)? != Some(true) {
            self.fail("recovery", format!("there is no answer while {who} starts again before it sends its Share"));
        }
        if !self.armed.is_empty() {
            self.fail("recovery", format!("{who} should have died before it sent its Share"));
        }
        self.must_count(all);
        Ok(())
    }

    /// Who dies when the servers have its Share and no member has is not in the sum, and costs nobody else theirs.
    fn drop_one(&mut self, session: SessionId, who: &Name, rest: usize) -> Result<(), PlanError> {
        if rest < usize::from(self.shape.min_cohort) {
            return Ok(());
        }
        self.net.kill_while_sending(who, self.cast.servers.len());
        if self.ask_in_calm(session, u8::MAX - 1, 1)? != Some(true) {
            self.fail("convergence", format!("there is no answer without {who}, who died while it sent its Share"));
        }
        self.must_count(rest);
        self.revive(&Back::of(who.clone()));
        Ok(())
    }

    /// Asks up to `times` times over a new snapshot; whether there is an answer, and nothing where the session is over.
    fn ask_in_calm(&mut self, session: SessionId, snapshot: u8, times: u8) -> Result<Option<bool>, PlanError> {
        for who in self.cast.patients.clone() {
            self.offer(&who, &[snapshot], 0);
        }
        for _ in 0..times {
            let answers = self.oracle.borrow().answers.len();
            match self.ask(session, snapshot) {
                Err(PlanError::NoSession(_)) => return Ok(None),
                other => other?,
            }
            if self.oracle.borrow().answers.len() > answers {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    /// All sessions end: nobody keeps anything of them but that they are over, and where snapshots went.
    fn close(&mut self) -> Result<(), PlanError> {
        for session in self.sessions.clone() {
            self.net.stop(session, true);
        }
        self.pass_until(u64::from(2 * ROUND_SECONDS) * 1000, |_| false);
        // Who never heard of a session keeps what came of it for so long; who never hears that it is over, as the board lost
        // that, keeps it to the end of its time.
        let lost = self.weather.borrow().counts.0.contains_key("board lost");
        let longest = if lost { SESSION_SECONDS } else { early::PATIENCE_SECONDS };
        self.pass_until(u64::from(longest) * 1000, |_| false);
        self.cast.everybody().for_each(|who| self.net.reconnect(who));
        self.look_at_stores();
        let whole = self.oracle.borrow().all_are_honest();
        for who in self.cast.everybody().filter(|_| whole) {
            let kept = self.net.store(who).into_iter().flat_map(|store| store.keys());
            let kept: Vec<&String> =
                kept.filter(|key| ["session/", "early/"].iter().any(|of| key.starts_with(of))).collect();
            if !kept.is_empty() {
                self.fail("wiping", format!("{who} keeps {kept:?} of sessions that ended"));
            }
        }
        Ok(())
    }

    fn outcome(self) -> Outcome {
        let weather = self.weather.borrow();
        let oracle = self.oracle.borrow();
        Outcome {
            failure: oracle.failure.clone(),
            trace: oracle.trace(),
            faults: weather.fired.clone(),
            counts: weather.counts.clone(),
            steps: self.steps,
            answers: oracle.answers.len() as u64,
            aborts: oracle.aborts.clone(),
            most_stored: self.most_stored,
        }
    }
}

fn is_there_no_session(error: PlanError) -> Result<(), PlanError> {
    if matches!(error, PlanError::NoSession(_)) { Ok(()) } else { Err(error) }
}
