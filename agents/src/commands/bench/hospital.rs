//! The hospital of a bench: it asks, and checks every sum.

use nats::Inbox;
use protocol::{Answer, Event, Hospital, SessionId};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::data;
use super::orders::{Order, Said, say};
use super::plain::Arriving;
use super::setting::Setting;
use crate::commands::server::me;
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
    let hospital = Hospital::restore(me(&credentials), &store.load(&name)?);
    let driver = Driver::new(name, hospital, connect(home, way, &credentials).await?, store).await?;
    let board = connect(home, way, &home.credentials(&setting.receiver)?).await?;
    let inbox = board.follow().await?;
    let mut desk = Desk { setting, driver, inbox, session: SessionId::default(), awaited: Awaited::Nothing };
    desk.open(home).await?;
    desk.serve().await
}

/// What the hospital waits for.
enum Awaited {
    Nothing,
    Plain { round: u32, arriving: Arriving },
    Secure { round: u32 },
}

struct Desk {
    setting: Setting,
    driver: Driver<Hospital>,
    /// Where plain sums come.
    inbox: Inbox,
    session: SessionId,
    awaited: Awaited,
}

impl Desk {
    async fn open(&mut self, home: &Home) -> anyhow::Result<()> {
        let plan = self.setting.plan(&home.study()?)?;
        let mut opened = SessionId::default();
        let announce = |hospital: &mut Hospital, moment: &protocol::Moment| {
            let (session, effects) = hospital.announce(moment, &plan);
            opened = session;
            anyhow::Ok(effects)
        };
        self.driver.apply(announce).await?;
        self.session = opened;
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
                delivery = self.inbox.next() => self.arrived(&delivery?).await?,
                line = orders.next_line() => match line? {
                    Some(line) => self.obey(serde_json::from_str(&line)?).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn obey(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::AwaitPlain(round) => self.awaited = Awaited::Plain { round, arriving: Arriving::default() },
            Order::Ask(round) => {
                self.awaited = Awaited::Secure { round };
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
                Event::Opened(answer) => self.opened(&answer)?,
                Event::Aborted { reason, advice, .. } => anyhow::bail!("the round was aborted: {reason} {advice}"),
                _ => {}
            }
        }
        Ok(())
    }

    fn opened(&mut self, answer: &Answer) -> anyhow::Result<()> {
        let Awaited::Secure { round } = std::mem::replace(&mut self.awaited, Awaited::Nothing) else { return Ok(()) };
        say(Said::Answer { cohort: answer.cohort })?;
        let dimension = self.setting.chunks.dimension() as usize;
        let right =
            answer.sum.len() == dimension && data::sum(&self.setting, round).zip(&answer.sum).all(|(a, b)| a == *b);
        self.checked(round, right && answer.cohort as usize == self.setting.staying())
    }

    async fn arrived(&mut self, delivery: &nats::Delivery) -> anyhow::Result<()> {
        if let Awaited::Plain { round, arriving } = &mut self.awaited
            && arriving.take(delivery, *round, &self.setting.plain)
        {
            say(Said::Answer { cohort: self.setting.staying() as u32 })?;
            let (round, right) = (*round, is_right(arriving, &self.setting, *round));
            self.awaited = Awaited::Nothing;
            self.checked(round, right)?;
        }
        delivery.ack().await;
        Ok(())
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
