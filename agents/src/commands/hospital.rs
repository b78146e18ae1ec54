//! `ward hospital sum`.

use std::time::{Duration, Instant};

use protocol::{
    AbortReason, Ask, Column, Event, Hospital, Plan, PlanError, Question, Role, SessionId, SessionInfo, Settings,
};

use crate::cli::SumArgs;
use crate::connect::{Way, connect};
use crate::driver::{Driver, now};
use crate::exit::{Aborted, Stopped, usage};
use crate::home::Home;
use crate::life::Stop;
use crate::lock::Running;
use crate::report::{NoAnswer, Report, note, print};
use crate::store::Store;

/// How long a session lives if nobody ends it: 90 days, in seconds.
const SESSION_SECONDS: u32 = 90 * 86_400;
/// How long a round's outcome may take to the board.
const SETTLE: Duration = Duration::from_secs(5);

/// Asks for the sum, as often as was said, and prints each answer.
///
/// # Errors
/// [`Aborted`] where a round had no answer; else if settings, certificate, store or broker do not let it.
pub async fn sum(home: &Home, way: &Way, args: &SumArgs, json: bool, tied: bool) -> anyhow::Result<()> {
    let mut stop = Stop::listen(tied)?;
    super::prepare(home)?;
    let _running = Running::claim(&home.party_dir(&args.name), tied)?;
    let credentials = home.credentials_as(&args.name, Role::Hospital)?;
    let store = Store::open(&home.state_path(&args.name))?;
    let hospital = Hospital::restore(credentials.me(), &store.load(&args.name)?);
    let choice = match unfinished(&hospital, args) {
        Some(session) => Choice::Resume(Box::new(session)),
        None => choose(&hospital, home, args)?,
    };
    let board = tokio::select! {
        board = connect(home, way, &credentials) => board?,
        () = stop.asked() => return Err(Stopped.into()),
    };
    let open = hospital.sessions();
    let printer = Printer { json, asked: choice.resumed(), begun: Instant::now(), sessions: open.clone() };
    let mut asking = Asking { driver: Driver::new(args.name.clone(), hospital, board, store).await?, printer };
    let caught = tokio::select! {
        caught = asking.driver.catch_up(|event| asking.printer.hear(event)) => caught?,
        () = stop.asked() => return Err(Stopped.into()),
    };
    asking.end_unready().await?;
    let choice = match choice {
        // A session that this process was killed over may have become one to ask in meanwhile.
        Choice::New(_) => choose(&asking.driver.machine, home, args)?,
        choice => choice,
    };
    let mut begun = match choice {
        Choice::Resume(_) => Some(caught),
        Choice::Open(_) | Choice::New(_) => {
            caught.iter().for_each(tell);
            asking.leave(&open).await?;
            None
        }
    };
    let info = asking.open(choice).await?;
    asking.printer.sessions.push(info.clone());
    for round in 1..=args.rounds {
        let last = args.last && round == args.rounds;
        asking.answer(&info, args, last, begun.take(), &mut stop).await?;
    }
    Ok(())
}

/// The session with the rules of this command line in which its question is open: this process was killed over it.
fn unfinished(hospital: &Hospital, args: &SumArgs) -> Option<SessionInfo> {
    let open = hospital.asking(&ask(args, false));
    let newest = hospital.sessions().last().map(|info| info.session);
    let fits = |(session, is_only): &(SessionId, bool)| match &args.session {
        Some(id) => session.to_string().starts_with(id.as_str()),
        // What `--new` opened was asked for nothing else.
        None => Some(*session) == newest && (!args.new || *is_only),
    };
    let info = open.into_iter().find(fits).and_then(|(session, _)| hospital.info(session))?;
    (!has_other_rules(&info, args)).then_some(info)
}

/// Which session to ask in.
enum Choice {
    /// Go on with this one.
    Open(SessionId),
    /// Go on with the round that is open in this one.
    Resume(Box<SessionInfo>),
    /// Open one.
    New(Box<Plan>),
}

impl Choice {
    /// The session whose open round is gone on with.
    fn resumed(&self) -> Option<SessionId> {
        match self {
            Choice::Resume(info) => Some(info.session),
            Choice::Open(_) | Choice::New(_) => None,
        }
    }
}

fn choose(hospital: &Hospital, home: &Home, args: &SumArgs) -> anyhow::Result<Choice> {
    let open = hospital.sessions();
    if let Some(id) = &args.session {
        let mut named = open.iter().filter(|info| info.session.to_string().starts_with(id.as_str()));
        let found = named.next().ok_or_else(|| PlanError::NoSession(id.clone()))?;
        if named.next().is_some() {
            usage!("`{id}` is the beginning of several sessions' names: say more of it");
        }
        return continued(found, args);
    }
    match open.last().filter(|_| !args.new) {
        Some(newest) => continued(newest, args),
        None => Ok(Choice::New(Box::new(plan(home, args)?))),
    }
}

/// Goes on with `session`, unless other rules were asked for.
fn continued(session: &SessionInfo, args: &SumArgs) -> anyhow::Result<Choice> {
    if has_other_rules(session, args) {
        usage!(
            "session {} is open with {}: its rules never change. Leave out these flags to go on with it, or say --new \
             to open a session beside it",
            session.session.short(),
            session.rules
        );
    }
    Ok(Choice::Open(session.session))
}

/// Whether other rules than those of `session` were asked for.
fn has_other_rules(session: &SessionInfo, args: &SumArgs) -> bool {
    let rules = &args.rules;
    rules.committee.is_some_and(|c| c != session.committee)
        || rules.threshold.is_some_and(|t| t != session.threshold)
        || rules.min_cohort.is_some_and(|k| k != session.min_cohort)
        || args.patients.is_some_and(|n| n != session.expect)
}

fn plan(home: &Home, args: &SumArgs) -> anyhow::Result<Plan> {
    let expect = match args.patients {
        Some(patients) => patients,
        None => home.patients()?.len() as u32,
    };
    if expect == 0 {
        usage!("no patient is enrolled in this home: enrol them with `ward patient NAME VALUE`, or say --patients N");
    }
    let plan = Plan::new(settings(home.study()?.to_string(), expect, args.server.clone(), &args.rules))?;
    ask(args, false).fits(expect)?;
    Ok(plan)
}

/// The settings of a session, from the flags.
pub fn settings(study: String, expect: u32, servers: Vec<protocol::Name>, rules: &crate::cli::RuleArgs) -> Settings {
    Settings {
        study,
        expect,
        committee: rules.committee,
        threshold: rules.threshold,
        min_cohort: rules.min_cohort,
        candidates: Vec::new(),
        servers,
        payloads: false,
        join_seconds: rules.join_seconds,
        not_after: now().plus_seconds(SESSION_SECONDS),
    }
}

fn ask(args: &SumArgs, last: bool) -> Ask {
    let columns = args.column.iter().map(|column| Column::scalar(column)).collect();
    let scale = args.rules.scale.unwrap_or_default();
    Ask {
        question: Question::Sum(columns),
        snapshot: args.snapshot.clone(),
        ring: None,
        scale,
        scaled_bound: args.rules.bound().saturating_mul(scale.get()),
        enough: None,
        round_seconds: args.rules.round_seconds,
        audit: args.rules.audit,
        last,
    }
}

/// What came of a round.
enum Outcome {
    /// The answer, which is printed.
    Answered,
    /// None.
    Lost(Lost),
}

/// A round without an answer.
struct Lost {
    report: NoAnswer,
    /// Asking again may help.
    may_pass: bool,
}

/// Whether the same question may have an answer in another round: somebody was late or away.
fn may_pass(reason: &AbortReason) -> bool {
    matches!(
        reason,
        AbortReason::TooFewShared { .. }
            | AbortReason::NoCohort
            | AbortReason::TooFewConfirmed { .. }
            | AbortReason::SumsMissing { .. }
            | AbortReason::Unchecked { .. }
            | AbortReason::CheckLost { .. }
            | AbortReason::BoardLost
    )
}

/// Prints answers as they come: before it is stored that they did, as a sum is in no store and nobody could ask for it again.
struct Printer {
    json: bool,
    /// The session that is asked in.
    asked: Option<SessionId>,
    /// Since when.
    begun: Instant,
    /// All that there may be an answer of.
    sessions: Vec<SessionInfo>,
}

impl Printer {
    fn hear(&self, event: &Event) -> anyhow::Result<()> {
        let Event::Opened(answer) = event else { return Ok(()) };
        let Some(info) = self.sessions.iter().find(|info| info.session == answer.session) else { return Ok(()) };
        if self.asked != Some(answer.session) {
            note!("an earlier question was answered:");
        }
        let report = Report::opened(answer, info, self.elapsed_ms());
        match &report {
            Report::Opened(opened) if !self.json => print(opened.text(&answer.snapshot)),
            _ => print(report.json()),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }
}

/// A hospital at work.
struct Asking {
    driver: Driver<Hospital>,
    printer: Printer,
}

impl Asking {
    /// Ends the sessions that never got as far as a question: nobody would ask in them again.
    async fn end_unready(&mut self) -> anyhow::Result<()> {
        for session in self.driver.machine.unready() {
            self.driver.apply(|hospital, moment| anyhow::Ok(hospital.stop(moment, session, true))).await?;
        }
        Ok(())
    }

    /// Leaves the questions that are open since this hospital was stopped: nobody waits for their answers any more.
    async fn leave(&mut self, open: &[SessionInfo]) -> anyhow::Result<()> {
        for info in open {
            self.driver.apply(|hospital, moment| anyhow::Ok(hospital.stop(moment, info.session, false))).await?;
        }
        Ok(())
    }

    async fn open(&mut self, choice: Choice) -> anyhow::Result<SessionInfo> {
        let plan = match choice {
            Choice::Open(session) => {
                note!("going on with session {}", session.short());
                return self.info(session);
            }
            Choice::Resume(info) => {
                note!("going on with the round that is open in session {}", info.session.short());
                return Ok(*info);
            }
            Choice::New(plan) => plan,
        };
        let opened = self.driver.announce(&plan).await?;
        note!("session {}: {}", opened.short(), plan.explain());
        self.info(opened)
    }

    fn info(&self, session: SessionId) -> anyhow::Result<SessionInfo> {
        Ok(self.driver.machine.info(session).ok_or_else(|| PlanError::NoSession(session.short()))?)
    }

    /// Asks, again where a round has no answer, and prints the answer. `begun` is what happened already of a round that
    /// was open before a restart.
    async fn answer(
        &mut self,
        info: &SessionInfo,
        args: &SumArgs,
        last: bool,
        mut begun: Option<Vec<Event>>,
        stop: &mut Stop,
    ) -> anyhow::Result<()> {
        let mut retries = args.retries;
        loop {
            let ask = ask(args, last);
            let lost = match self.round(info, ask, begun.take(), stop).await? {
                Outcome::Answered if last => return self.end(info.session).await,
                Outcome::Answered => return Ok(()),
                Outcome::Lost(lost) => lost,
            };
            if retries == 0 || !lost.may_pass {
                return self.lost(info.session, last, lost.report).await;
            }
            retries -= 1;
            note!("{}: asking again", lost.report.message);
        }
    }

    /// Ends the session, unless the answer did: the round may have been asked before this process was started to end it.
    async fn end(&mut self, session: SessionId) -> anyhow::Result<()> {
        if self.driver.machine.sessions().iter().any(|open| open.session == session) {
            self.driver.apply(|hospital, moment| anyhow::Ok(hospital.stop(moment, session, true))).await?;
            self.settle().await?;
        }
        Ok(())
    }

    /// There is no answer: says so, and ends the session where it was the last question.
    async fn lost(&mut self, session: SessionId, last: bool, report: NoAnswer) -> anyhow::Result<()> {
        if last {
            self.end(session).await?;
        }
        self.settle().await?;
        let message = report.message.clone();
        if self.printer.json {
            print(Report::Aborted(report).json())?;
        }
        Err(Aborted(message).into())
    }

    /// Asks once, unless that is done, until the answer is printed.
    async fn round(
        &mut self,
        info: &SessionInfo,
        ask: Ask,
        resumed: Option<Vec<Event>>,
        stop: &mut Stop,
    ) -> anyhow::Result<Outcome> {
        let session = info.session;
        let mut events = match resumed {
            Some(events) => events,
            None => {
                (self.printer.asked, self.printer.begun) = (Some(session), Instant::now());
                self.driver.apply(|hospital, moment| hospital.ask_until_answered(moment, session, ask)).await?
            }
        };
        let mut waiting = Waiting::new();
        loop {
            for event in events {
                tell(&event);
                waiting.news(&event);
                match event {
                    Event::Opened(answer) if answer.session == session => {
                        self.settle().await?;
                        return Ok(Outcome::Answered);
                    }
                    Event::Aborted { session: aborted, round, reason, advice } if aborted == session => {
                        let report = NoAnswer::new(session, round, &reason, &advice, self.printer.elapsed_ms());
                        return Ok(Outcome::Lost(Lost { report, may_pass: may_pass(&reason) }));
                    }
                    _ => {}
                }
            }
            events = tokio::select! {
                ready = self.driver.ready() => {
                    let ready = ready?;
                    self.driver.take_hearing(ready, |event| self.printer.hear(event)).await?
                }
                () = waiting.long() => {
                    waiting.tell();
                    Vec::new()
                }
                () = stop.asked() => {
                    let unready = self.driver.machine.unready().contains(&session);
                    self.driver.apply(|hospital, moment| anyhow::Ok(hospital.stop(moment, session, unready))).await?
                }
            };
        }
    }

    /// Waits until what it said is on the board, but not for a broker that is away: patients then give up the round
    /// at its end.
    async fn settle(&mut self) -> anyhow::Result<()> {
        match tokio::time::timeout(SETTLE, self.driver.flush()).await {
            Ok(settled) => settled,
            Err(_) => {
                note!("the broker is away: patients will see this round end by their own clocks");
                Ok(())
            }
        }
    }
}

/// Tells a person what is waited for, where it takes longer than a second.
struct Waiting {
    what: &'static str,
    next: tokio::time::Instant,
}

impl Waiting {
    const FIRST: Duration = Duration::from_secs(1);
    const AGAIN: Duration = Duration::from_secs(10);

    fn new() -> Self {
        Self { what: "every server and for patients to join", next: tokio::time::Instant::now() + Self::FIRST }
    }

    fn news(&mut self, event: &Event) {
        self.what = match event {
            Event::Roster { .. } => "the list of who joined",
            Event::Round { .. } => "patients to share",
            Event::Cohort { .. } => "members to confirm",
            Event::Confirmed { .. } => "sums",
            Event::Summed { .. } => "the checks of the sums",
            _ => return,
        };
        self.next = tokio::time::Instant::now() + Self::FIRST;
    }

    /// Returns when it has taken long. Cancel safe.
    async fn long(&self) {
        tokio::time::sleep_until(self.next).await;
    }

    fn tell(&mut self) {
        note!("waiting for {}", self.what);
        self.next = tokio::time::Instant::now() + Self::AGAIN;
    }
}

fn tell(event: &Event) {
    match event {
        Event::Roster { count, committee, .. } => {
            note!("{count} patients joined; committee: {}", protocol::list(committee));
        }
        Event::Round { round, .. } => note!("round {round}: asked"),
        Event::Cohort { round, count } => note!("round {round}: cohort of {count} fixed"),
        Event::Confirmed { round, count } => note!("round {round}: {count} confirmed"),
        Event::Summed { round } => note!("round {round}: all sums are in and are checked"),
        _ => {}
    }
}
