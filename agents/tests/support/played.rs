//! A patient that a test plays itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use certs::Credentials;
use nats::{Board, Inbox};
use protocol::{
    Accepted, AcceptedColumns, Address, Column, Effects, Event, Input, Kind, MessageName, Moment, Name, Patient,
    Policy, Record, RoundNo, Scale, Schema, SessionTag, To,
};
use rand::TryRng as _;

use super::{PATIENCE, Study};

/// A patient that the test plays: the machine itself over a real connection, without a store.
pub struct Played {
    pub board: Board,
    pub credentials: Credentials,
    inbox: Inbox,
    patient: Patient,
    waiting: Option<(Address, Bytes)>,
    pub events: Vec<Event>,
}

impl Played {
    /// `name` must be enrolled; it holds `value`, in whole units, under snapshot `1`.
    pub async fn new(study: &Study, name: &str, value: i64) -> Self {
        let credentials = study.home.credentials(name);
        let board = Board::new(study.link(name).await);
        let inbox = board.follow().await.unwrap();
        let patient = Patient::new(credentials.me(), Policy::open("ward", 3), schema());
        let mut played = Self { board, credentials, inbox, patient, waiting: None, events: Vec::new() };
        played.offer("1", value);
        played
    }

    /// It holds `value`, in whole units, under `snapshot` too.
    pub fn offer(&mut self, snapshot: &str, value: i64) {
        let schema = schema();
        let scaled = value * i64::try_from(schema.scale.get()).unwrap();
        let record = Record::new(BTreeMap::from([("value".to_string(), vec![scaled])]), &schema).unwrap();
        drop(self.patient.offer(snapshot.parse().unwrap(), record, &moment()).unwrap());
    }

    /// Takes part until a message of this kind arrives from the hospital or the server, as its subject says: it is
    /// returned, and handled at the next call only.
    pub async fn until(&mut self, kind: Kind) -> (Address, Bytes) {
        loop {
            if let Some((address, payload)) = self.waiting.take() {
                self.hand(Input::Message { address, payload }).await;
            }
            let next = tokio::time::timeout(PATIENCE, self.inbox.next()).await;
            let delivery = next.unwrap_or_else(|_| panic!("no {kind} arrived")).unwrap();
            let arrived = (delivery.address.clone(), delivery.payload.clone());
            self.waiting = Some(arrived.clone());
            if arrived.0.kind == kind && ["hospital", "server"].contains(&arrived.0.from.as_str()) {
                return arrived;
            }
        }
    }

    async fn hand(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Effects { send, jobs, events, .. } = self.patient.handle(&moment(), input);
            self.events.extend(events);
            for outgoing in send {
                self.board.publish(&outgoing.address, outgoing.payload).await.unwrap();
                if outgoing.report {
                    inputs.push_back(Input::Sent(outgoing.address));
                }
            }
            inputs.extend(jobs.into_iter().map(|(id, job)| Input::Done(id, job.run())));
        }
    }
}

fn schema() -> Schema {
    let columns = vec![Column::scalar("value")];
    Schema { columns, scaled_bound: 1_000_000_000_000_000, scale: Scale::default() }
}

fn moment() -> Moment {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut fresh = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut fresh).unwrap();
    Moment::new(protocol::Time(u64::try_from(now).unwrap()), fresh)
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// An address with a name of its own.
pub fn address(session: SessionTag, round: u32, from: &str, to: &str, kind: Kind) -> Address {
    let mut own = [0; 16];
    rand::rngs::SysRng.try_fill_bytes(&mut own).unwrap();
    let to: To = to.parse().unwrap();
    Address { session, round: RoundNo(round), from: name(from), to, kind, name: MessageName(own) }
}
