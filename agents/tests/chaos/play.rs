//! Plays a scenario: waits for events, and lets go wrong what is drawn for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::board::Board;
use super::judge::Judge;
use super::process::News;
use super::report::{Happened, Outcome};
use super::scenario::{Blow, Fault, Scenario, Whom};
use super::stage::{Life, Stage};
use super::trouble::Trouble;

/// Longer than processes take to start or to end on a slow and busy machine; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many lines of each party's log are printed of a scenario that fails.
const LAST_LINES: usize = 25;

/// A scenario that is played.
pub struct Play<'a> {
    scenario: &'a Scenario,
    stage: Stage,
    news: Receiver<News>,
    board: Board,
    /// What is still to go wrong.
    armed: Vec<Fault>,
    /// What goes wrong now.
    troubles: Vec<Trouble>,
    /// Which faults happened.
    happened: Vec<Happened>,
    judge: Judge,
    /// Who was told to end.
    stopping: Vec<String>,
    /// How the last ask ended: with an answer or without.
    answered: Option<bool>,
}

/// Plays a scenario. Of one that fails the folder is kept.
pub fn play(scenario: &Scenario) -> Outcome {
    let mut play = Play::new(scenario);
    let begun = Instant::now();
    let ran = catch_unwind(AssertUnwindSafe(|| play.run())).unwrap_or_else(|_| Err("it panicked".into()));
    let failure = ran.err().map(|why| {
        let words = play.stage.last_words(LAST_LINES);
        let kept = play.stage.keep();
        let seconds = begun.elapsed().as_secs();
        let again = format!("--scenarios 1 --seed {} --fault {}", scenario.seed, scenario.first.name());
        format!("{why}, after {seconds} s\n{scenario}\n{words}kept: {}\nagain: just chaos {again}", kept.display())
    });
    Outcome { failure, happened: play.happened, answers: play.judge.answers, aborts: play.judge.aborts }
}

impl<'a> Play<'a> {
    /// Nothing runs yet.
    fn new(scenario: &'a Scenario) -> Self {
        let (stage, news) = Stage::new(scenario);
        Self {
            scenario,
            stage,
            news,
            board: Board::default(),
            armed: scenario.faults.clone(),
            troubles: Vec::new(),
            happened: Vec::new(),
            judge: Judge::new(scenario),
            stopping: Vec::new(),
            answered: None,
        }
    }

    /// Plays it to its end: asks while things go wrong, then once more when all is well, and stops everybody.
    fn run(&mut self) -> Result<(), String> {
        self.stage.open(self.scenario);
        self.until("everybody is ready at first", PATIENCE, |play| play.may_begin())?;
        for ask in 1..=self.scenario.asks {
            self.ask(&format!("ask {ask} ends"))?;
        }
        self.calm()?;
        if !self.ask("the ask when all is well again ends")? {
            return Err("there was no answer although everybody ran again".into());
        }
        self.judge.receipts_hold()?;
        self.stop()?;
        self.stage.nothing_is_left()
    }

    /// Whether the hospital may ask: everybody is ready, but for whom something went wrong with already.
    fn may_begin(&self) -> bool {
        let troubled = |name: &str| self.troubles.iter().any(|trouble| trouble.name == name);
        self.stage.parties.iter().all(|(name, party)| party.life == Life::Ready || troubled(name))
    }

    /// Asks, and waits for the hospital's end; whether there was an answer.
    fn ask(&mut self, what: &str) -> Result<bool, String> {
        self.answered = None;
        self.stage.ask(self.scenario);
        self.until(what, self.scenario.patience(), |play| play.answered.is_some())?;
        Ok(self.answered == Some(true))
    }

    /// Nothing goes wrong any more, and everybody runs.
    fn calm(&mut self) -> Result<(), String> {
        self.armed.clear();
        self.troubles.iter_mut().for_each(|trouble| trouble.is_over = true);
        self.mend();
        self.until("everybody is ready again", PATIENCE, |play| {
            let others = play.stage.parties.iter().filter(|(name, _)| *name != "hospital");
            play.troubles.is_empty() && others.into_iter().all(|(_, party)| party.life == Life::Ready)
        })
    }

    /// Ends everybody in order, the broker last.
    fn stop(&mut self) -> Result<(), String> {
        let (broker, others): (Vec<_>, Vec<_>) =
            self.stage.parties.keys().filter(|name| *name != "hospital").cloned().partition(|name| name == "broker");
        for group in [others, broker] {
            group.iter().for_each(|name| self.stage.parties[name].process.signal(Signal::TERM));
            self.stopping.extend(group);
            self.until("everybody who was told to ends", PATIENCE, |play| {
                play.stopping.iter().all(|name| play.stage.parties[name].life == Life::Done)
            })?;
        }
        Ok(())
    }

    /// Takes what is told until `done`.
    fn until(&mut self, what: &str, patience: Duration, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        while !done(self) {
            let due = self.troubles.iter().filter_map(Trouble::due).min().map_or(deadline, |due| due.min(deadline));
            if let Ok(news) = self.news.recv_timeout(due.saturating_duration_since(Instant::now())) {
                self.take(news)?;
            }
            self.strike();
            self.mend();
            if Instant::now() > deadline {
                return Err(format!("waited {} s in vain until {what}", patience.as_secs()));
            }
        }
        Ok(())
    }

    fn take(&mut self, news: News) -> Result<(), String> {
        match news {
            News::Said(name, line) => {
                self.note(&name, &line);
                self.hear(&name, &line);
                Ok(())
            }
            News::Printed(name, line) => {
                self.note(&name, &line);
                match name.as_str() {
                    "hospital" => self.judge.printed(&line),
                    "watch" => {
                        self.watch(&line);
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
            News::Ended(name, code) => {
                self.note(&name, &format!("-- ended with {code:?}"));
                self.end(&name, code)
            }
        }
    }

    fn note(&mut self, name: &str, line: &str) {
        if let Some(party) = self.stage.parties.get_mut(name) {
            party.log.push(line.into());
        }
    }

    fn hear(&mut self, name: &str, line: &str) {
        self.board.hear(line);
        if let Some(number) = name.strip_prefix('p').and_then(|number| number.parse().ok()) {
            self.judge.said(number, line);
        }
        if line.ends_with(" is ready") || line.starts_with("broker ready at ") {
            self.board.ready += u32::from(name != "broker");
            self.is_ready(name);
        }
    }

    /// `ward watch` prints a heading, then a line for each message.
    fn watch(&mut self, line: &str) {
        if line.starts_with("time ") {
            self.is_ready("watch");
        } else {
            self.board.see(line);
        }
    }

    fn is_ready(&mut self, name: &str) {
        if let Some(party) = self.stage.parties.get_mut(name).filter(|party| party.life == Life::Starts) {
            (party.life, party.is_enrolled) = (Life::Ready, true);
        }
    }

    /// Takes the end of a process: it must have a reason.
    fn end(&mut self, name: &str, code: Option<i32>) -> Result<(), String> {
        let Some(party) = self.stage.parties.get_mut(name) else { return Ok(()) };
        if party.life == Life::Dies {
            let of = self.troubles.iter().find(|trouble| trouble.name == name && trouble.killed(code));
            self.happened.extend(of.map(|trouble| trouble.happened));
        }
        // Who is being enrolled may say instead that it cannot write its key, certificate or profile.
        let no_disk = party.had_full_disk && (code == Some(1) || code == Some(2) && party.life == Life::Starts);
        if party.life == Life::Dies || no_disk {
            party.life = Life::Fallen;
            if !self.troubles.iter().any(|trouble| trouble.name == name) {
                self.stage.start_again(name);
            }
            return Ok(());
        }
        party.life = Life::Done;
        if name == "hospital" {
            let last = party.log.iter().rev().find(|line| line.starts_with('{')).map(String::as_str);
            self.answered = Some(self.judge.ended(code, last)?);
            return Ok(());
        }
        match self.stopping.iter().any(|stopping| stopping == name) && code == Some(0) {
            true => Ok(()),
            false => Err(format!("{name} ended by itself with {code:?}")),
        }
    }

    /// Lets go wrong whatever has its moment now.
    fn strike(&mut self) {
        let due = |fault: &Fault| {
            self.board.has_reached(fault.when) && (self.board.has_committee() || !fault.needs_committee())
        };
        let (now, later): (Vec<Fault>, Vec<Fault>) = self.armed.drain(..).partition(due);
        self.armed = later;
        for fault in now {
            let Some(name) = self.name(fault.whom) else { continue };
            let free = !self.troubles.iter().any(|trouble| trouble.name == name);
            if free && self.stage.parties.get(&name).is_some_and(|party| party.can_suffer(fault.blow)) {
                self.note(&name, &format!("-- {fault}"));
                let happened = Happened { blow: fault.blow, role: self.role(fault.whom, &name), step: fault.when.step };
                let trouble = Trouble::begin(fault, happened, name, &mut self.stage, self.board.seen);
                // Whether somebody dies of it is seen at the end of that process.
                if !matches!(happened.blow, Blow::Kill | Blow::Clock) {
                    self.happened.push(happened);
                }
                self.troubles.push(trouble);
            }
        }
    }

    fn name(&self, whom: Whom) -> Option<String> {
        match whom {
            Whom::Member(number) => self.board.patient(self.scenario, number, true),
            Whom::Outsider(number) => self.board.patient(self.scenario, number, false),
            Whom::Server(number) => self.scenario.server_names().nth(number.into()),
            Whom::Hospital => Some("hospital".into()),
            Whom::Broker | Whom::NatsServer => Some("broker".into()),
        }
    }

    /// As what it is counted: a patient by what is known of it now.
    fn role(&self, whom: Whom, name: &str) -> &'static str {
        match whom.is_patient() {
            true if self.board.is_member(name) => Whom::Member(0).name(),
            true => Whom::Outsider(0).name(),
            false => whom.name(),
        }
    }

    /// Ends the troubles that have lasted long enough.
    fn mend(&mut self) {
        let mut troubles = std::mem::take(&mut self.troubles);
        troubles.retain_mut(|trouble| !trouble.mend(&mut self.stage, self.board.seen));
        self.troubles = troubles;
    }
}
