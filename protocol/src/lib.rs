//! Ward's protocol: it decides, and does nothing else.
//!
//! Patients hold private vectors; a hospital learns their sum over a cohort and nobody learns anything else. This crate
//! is the rules of that, as state machines without a socket, clock, file, thread or randomness of their own: an
//! [`Input`] with a [`Moment`] (the time and 32 fresh bytes) goes in, [`Effects`] come out. Whoever drives a machine
//! carries them out in the order of their fields: store, send, read, run the jobs. The same inputs give the same
//! effects, so a simulator can run any history.
//!
//! ```text
//! hospital            server                    patients                 committee members
//!    | -- Announce ------------------------------> |                           |   rules, hospital's seal key
//!    |                   | <------- Join --------- |                           |
//!    |                   | --- Roster -----------> | ------------------------> |   who is in, who is on the committee
//!    |                   |                         | -- Key -----------------> |   one encapsulation per member
//!    | -- Begin -------------------------------> all                           |   question, snapshot, ring, time
//!    |                   | <- Share, chunks ------ | -- Share with box ------> |   masked vector; seeds of its masks
//!    |                   | <--------- Held ----------------------------------- |
//!    |  <--- Cohort ---- | ---- Cohort --------------------------------------> |   who is in the sum
//!    | <--------------------- Confirm ---------------------------------------- |   this cohort only
//!    | -- Open (q Confirms, who sends which mask sum) -----------------------> |
//!    | <-- MaskedSum --- |                                                     |
//!    | <--------------------- MaskSum (sealed) ------------------------------- |
//!    | -- Check, CheckSum (sealed) back -------------------------------------> |   holders vouch for mask sums
//!    | -- Result ------------------------------> all                           |   the receipt
//! ```
//!
//! # The parts
//!
//! - [`Patient`], [`Server`], [`Hospital`]: the machines. A marked patient that is drawn also runs a committee member.
//! - [`message`]: the body of every message; [`Frame`] and [`Signed`]: how it is signed and looks on the wire.
//! - [`Sharing`], [`Block`]: committee, threshold, quorum and who holds which seed. [`Ring`], [`Lanes`], [`Chunks`]:
//!   vectors. [`decimal`]: values without floats. [`Seed`] to mask: [`add_mask`].
//! - [`Plan`], [`Ask`], [`Policy`], [`Schema`]: settings, checked once.
//! - [`Job`]: heavy work as values, for any thread.
//! - [`memory`]: a whole study without a broker.
//!
//! # A whole round
//!
//! ```
//! use protocol::memory::Network;
//! use protocol::*;
//! use std::collections::BTreeMap;
//!
//! let mut study = Network::new(7);
//! study.add_hospital(&"hospital".parse()?);
//! study.add_server(&"server".parse()?);
//!
//! // What a patient's data look like, and which sessions it takes part in, is its own affair.
//! let schema = Schema {
//!     columns: vec![Column::scalar("systolic")],
//!     scaled_bound: 300_000_000,
//!     scale: Scale::default(),
//! };
//! let policy = Policy {
//!     study: "heart".into(),
//!     min_cohort: 3,
//!     min_committee: 3,
//!     min_threshold: 1,
//!     hospitals: Accepted::Anyone,
//!     members: Accepted::Anyone,
//!     columns: AcceptedColumns::All,
//! };
//! let snapshot: Snapshot = "november".parse()?;
//! for (name, value) in [("alice", "120.5"), ("bob", "131"), ("charlie", "118.25"), ("dave", "142")] {
//!     let name: Name = name.parse()?;
//!     study.add_patient(&name, Role::Member, policy.clone(), schema.clone());
//!     let values = BTreeMap::from([("systolic".to_string(), vec![decimal::parse(value, schema.scale)?])]);
//!     study.offer(&name, &snapshot, Record::new(values, &schema)?)?;
//! }
//!
//! // The hospital opens a session and asks.
//! let plan = Plan::new(Settings {
//!     study: "heart".into(),
//!     expect: 4,
//!     committee: None,
//!     threshold: None,
//!     min_cohort: None,
//!     candidates: vec![],
//!     servers: vec!["server".parse()?],
//!     payloads: false,
//!     join_seconds: 30,
//!     not_after: study.now().plus_seconds(86_400),
//! })?;
//! let session = study.announce(&plan).ok_or("no hospital")?;
//! study.ask(session, Ask {
//!     question: Question::Sum(schema.columns.clone()),
//!     snapshot,
//!     ring: None,
//!     scale: schema.scale,
//!     scaled_bound: schema.scaled_bound,
//!     enough: None,
//!     round_seconds: 60,
//!     audit: Audit::Sample,
//!     last: true,
//! })?;
//! study.run();
//!
//! let answer = study.answers().next().ok_or("aborted")?;
//! assert_eq!(decimal::format(answer.sum[0].into(), answer.scale), "511.75");
//! assert_eq!((answer.cohort, answer.confirmations), (4, 3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod decimal;
pub mod memory;
pub mod merkle;
pub mod message;
pub mod simulation;

mod answer;
mod caretaker;
mod chains;
mod chunks;
mod desk;
mod early;
mod error;
mod form;
mod hospital;
mod id;
mod job;
mod kdf;
mod machine;
mod mail;
mod member;
mod outbox;
mod patient;
mod places;
mod plan;
mod records;
mod reopen;
mod seal;
mod secret;
mod seed;
mod server;
mod session;
mod shards;
mod sharing;
mod signing;
mod slot;
mod step;
mod task;
mod wire;

pub use caretaker::{Caretaker, Purge};
pub use chunks::{CHUNK_BYTES, ChunkError, Chunks, MOST_CHUNKS, VECTOR_BYTES, read_window};
pub use decimal::Scale;
pub use desk::Me;
pub use error::*;
pub use form::MAX_TEXT;
pub use hospital::{Hospital, SessionInfo};
pub use id::*;
pub use job::*;
pub use kdf::chunk_digest;
pub use patient::{OfferError, Patient, StoreError};
pub use places::Places;
pub use plan::{Ask, Audit, AuditError, MOST_CANDIDATES, MOST_PATIENTS, MOST_SERVERS, Plan, Settings};
pub use records::Records;
pub use seal::*;
pub use secret::*;
pub use server::Server;
pub use session::WAIT_SECONDS;
pub use sharing::*;
pub use step::*;
pub use task::*;
pub use vectors::{
    Lanes, QUANTIZED_LIMIT, QuantizeError, Ring, RingError, ShapeError, StreamKey, add_mask, add_masks, dequantize,
    mask_values, quantize, sub_mask, sub_masks,
};
pub use wire::*;
