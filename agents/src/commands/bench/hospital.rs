//! The hospital of a bench: it asks, and checks every sum.

use std::time::{Duration, Instant};

use nats::Inbox;
use protocol::{Answer, Event, Hospital, SessionId};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::data;
use super::orders::{Order, Said, say};
use super::plain::Arriving;
use super::setting::Setting;
use crate::connect::{Way, connect};
use crate::driver::Driver;
use crate::home::Home;
use crate::store::Store;

/// Plays the hospital until the bench ends.
///
/// # Errors
/// If store or broker do not let it, a round is aborted, or a sum is wrong.
pub async fn play(home: &Home, way: &Way, setting: Setting) -> anyhow::Result<()> {
    let name = "hospital".parse()?;
    let credentials = home.credentials(&name)?;
    let store = Store::open(&home.state_path(&name))?;
    let hospital = Hospital::restore(credentials.me(), &store.load(&name)?);
    let driver = Driver::new(name, hospital, connect(home, way, &credentials).await?, store).await?;
    let board = connect(home, way, &home.credentials(&setting.receiver)?).await?;
    let inbox = board.follow().await?;
    let (arriving, session) = (Arriving::default(), SessionId::default());
    let mut desk = Desk { setting, driver, inbox, arriving, session, awaited: Awaited::Nothing };
    desk.open(home).await?;
    desk.serve().await
}

/// What the hospital waits for.
enum Awaited {
    Nothing,
    Plain { round: u32 },
    Secure { round: u32, watch: Watch },
}

/// When a secure round was asked for, and how far it was when.
struct Watch {
    begun: Instant,
    fixed: Duration,
    confirmed: Duration,
    summed: Duration,
}

struct Desk {
    setting: Setting,
    driver: Driver<Hospital>,
    /// Where plain sums come.
    inbox: Inbox,
    arriving: Arriving,
    session: SessionId,
    awaited: Awaited,
}

impl Desk {
    async fn open(&mut self, home: &Home) -> anyhow::Result<()> {
        let plan = self.setting.plan(&home.study()?)?;
        self.session = self.driver.announce(&plan).await?;
        Ok(())
    }

    async fn serve(&mut self) -> anyhow::Result<()> {
        let mut orders = BufReader::new(tokio::io::stdin()).lines();
        loop {
            tokio::select! {
                ready = self.driver.ready() => {
                    let events = self.driver.take(ready?).await?;
                    self.happened(events)?;
                }
                delivery = self.inbox.next() => {
                    let delivery = delivery?;
                    self.arriving.take(&delivery);
                    self.look()?;
                    delivery.ack().await;
                }
                line = orders.next_line() => match line? {
                    Some(line) => self.obey(serde_json::from_str(&line)?).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn obey(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::AwaitPlain(round) => {
                self.awaited = Awaited::Plain { round };
                self.look()?;
            }
            Order::Ask(round) => {
                let (begun, zero) = (Instant::now(), Duration::ZERO);
                let watch = Watch { begun, fixed: zero, confirmed: zero, summed: zero };
                self.awaited = Awaited::Secure { round, watch };
                let (session, ask) = (self.session, self.setting.ask(round)?);
                let events = self.driver.apply(|hospital, moment| hospital.ask(moment, session, ask)).await?;
                self.happened(events)?;
            }
            _ => anyhow::bail!("{order:?} is no order for a hospital"),
        }
        Ok(())
    }

    fn happened(&mut self, events: Vec<Event>) -> anyhow::Result<()> {
        for event in events {
            match event {
                Event::Roster { session, .. } => say(Said::Open { session: session.into() })?,
                Event::Cohort { .. } => self.watch(|watch| watch.fixed = watch.begun.elapsed()),
                Event::Confirmed { .. } => self.watch(|watch| watch.confirmed = watch.begun.elapsed()),
                Event::Summed { .. } => self.watch(|watch| watch.summed = watch.begun.elapsed()),
                Event::Opened(answer) => self.opened(&answer)?,
                Event::Aborted { reason, advice, .. } => anyhow::bail!("the round was aborted: {reason} {advice}"),
                _ => {}
            }
        }
        Ok(())
    }

    fn watch(&mut self, note: impl FnOnce(&mut Watch)) {
        if let Awaited::Secure { watch, .. } = &mut self.awaited {
            note(watch);
        }
    }

    fn opened(&mut self, answer: &Answer) -> anyhow::Result<()> {
        let awaited = std::mem::replace(&mut self.awaited, Awaited::Nothing);
        let Awaited::Secure { round, watch } = awaited else { return Ok(()) };
        let (fixed, confirmed) = (watch.fixed.as_micros() as u64, watch.confirmed.as_micros() as u64);
        let summed = watch.summed.as_micros() as u64;
        say(Said::Answer { cohort: answer.cohort, fixed, confirmed, summed })?;
        let dimension = self.setting.chunks.dimension() as usize;
        let right =
            answer.sum.len() == dimension && data::sum(&self.setting, round).zip(&answer.sum).all(|(a, b)| a == *b);
        self.checked(round, right && answer.cohort as usize == self.setting.staying())
    }

    /// Checks the plain sum, once it is here and waited for.
    fn look(&mut self) -> anyhow::Result<()> {
        let Awaited::Plain { round } = self.awaited else { return Ok(()) };
        if !self.arriving.is_whole(round, &self.setting.plain) {
            return Ok(());
        }
        self.awaited = Awaited::Nothing;
        say(Said::Answer { cohort: self.setting.staying() as u32, fixed: 0, confirmed: 0, summed: 0 })?;
        self.checked(round, is_right(&self.arriving, &self.setting, round))
    }

    fn checked(&self, round: u32, right: bool) -> anyhow::Result<()> {
        anyhow::ensure!(right, "the sum of round {round} is wrong");
        say(Said::Done { bytes: 0 })
    }
}

/// Whether a plain sum is right: of small integers floats make no error.
fn is_right(arriving: &Arriving, setting: &Setting, round: u32) -> bool {
    let mut count = 0;
    let equal = data::sum(setting, round).zip(arriving.values()).all(|(truth, value)| {
        count += 1;
        truth as f32 == value
    });
    equal && count == setting.plain.dimension()
}
