//! What a bench measures: who takes part, how long the vectors are, and what the question is.

use std::ops::Range;

use certs::Study;
use protocol::{
    Ask, Audit, ChunkError, Chunks, Column, Name, Plan, PlanError, Policy, QuantizeError, Question, Ring, Scale,
    Schema, Settings, Sharing, Snapshot,
};

use crate::cli::{BenchRole, SizeArgs};
use crate::driver::now;
use crate::exit::usage;

/// The largest absolute value of a coordinate, where the ring has room for it.
const BOUND: u64 = 1_000;
/// A bench that hangs ends by this clock.
const SECONDS: u32 = 600;

/// A bench, checked.
#[derive(Clone, Debug)]
pub struct Setting {
    /// All patients: the members come first, those that drop last.
    pub patients: Vec<Name>,
    /// How many patients drop.
    pub dropped: usize,
    /// The servers of secure rounds.
    pub servers: Vec<Name>,
    /// The servers of plain rounds, as many.
    pub adders: Vec<Name>,
    /// Who gets the plain sum.
    pub receiver: Name,
    /// The committee.
    pub sharing: Sharing,
    /// A secure vector.
    pub chunks: Chunks,
    /// A plain vector: words of 32 bits.
    pub plain: Chunks,
    /// The largest absolute value of a coordinate.
    pub bound: u64,
    /// What of the secure sums is checked.
    pub audit: Audit,
    /// Values are whole numbers.
    scale: Scale,
}

impl Setting {
    /// Checks the size.
    ///
    /// # Errors
    /// Wrong use, in words.
    pub fn new(size: &SizeArgs) -> anyhow::Result<Self> {
        let (patients, members) = (size.patients, u32::from(size.committee));
        let sharing = Sharing::new(size.committee, size.threshold).map_err(PlanError::from)?;
        let dropped = u64::from(patients) * u64::from(size.drop) / 100;
        if patients < members {
            usage!(
                "{patients} patients are too few for a committee of {members}: use more --patients or a smaller --committee"
            );
        }
        if u64::from(patients) < dropped + u64::from(members) {
            usage!(
                "{dropped} of {patients} patients drop, and none of the {members} members may: use a smaller --drop"
            );
        }
        let Some(bound) = (1..=BOUND).rev().find(|bound| size.ring.fits(patients.into(), *bound)) else {
            usage!("{} bits hold no sum over {patients} patients: use a wider --ring", size.ring.bits());
        };
        let float32 = Ring::new(32)?;
        let (Ok(chunks), Ok(plain)) = (vector(size.ring, size.dim), vector(float32, size.dim)) else {
            return Err(PlanError::Dimension(size.dim.into()).into());
        };
        Ok(Self {
            patients: names("patient", patients)?,
            dropped: dropped as usize,
            servers: names("server", size.servers.into())?,
            adders: names("adder", size.servers.into())?,
            receiver: "receiver".parse()?,
            sharing,
            chunks,
            plain,
            bound,
            audit: size.audit,
            scale: Scale::new(1)?,
        })
    }

    /// How many patients are in every sum.
    pub fn staying(&self) -> usize {
        self.patients.len() - self.dropped
    }

    /// The patients that `role` runs.
    pub fn part(&self, role: BenchRole) -> Range<usize> {
        let members = usize::from(self.sharing.committee());
        match role {
            BenchRole::Members => 0..members,
            BenchRole::Patients => members..self.patients.len(),
            BenchRole::Server | BenchRole::Hospital => 0..0,
        }
    }

    /// What a patient masks in place of floats.
    ///
    /// # Errors
    /// Values beyond the bound.
    pub fn quantize(&self, values: &[f32]) -> Result<Vec<i64>, QuantizeError> {
        protocol::quantize(values, self.scale.get(), self.bound)
    }

    /// What the data look like.
    pub fn schema(&self) -> Schema {
        let column = Column { name: "x".into(), width: self.chunks.dimension() as u32 };
        Schema { columns: vec![column], scaled_bound: self.bound, scale: self.scale }
    }

    /// What the patients accept: whatever a bench asks.
    pub fn policy(&self, study: &Study) -> Policy {
        Policy::open(&study.to_string(), 2)
    }

    /// The session.
    ///
    /// # Errors
    /// What a session cannot be.
    pub fn plan(&self, study: &Study) -> Result<Plan, PlanError> {
        Plan::new(Settings {
            study: study.to_string(),
            expect: self.patients.len() as u32,
            committee: Some(self.sharing.committee()),
            threshold: Some(self.sharing.threshold()),
            min_cohort: Some(self.staying() as u32),
            candidates: self.patients[self.part(BenchRole::Members)].to_vec(),
            servers: self.servers.clone(),
            payloads: false,
            join_seconds: SECONDS,
            not_after: now().plus_seconds(90 * 86_400),
        })
    }

    /// The question of round `at`.
    ///
    /// # Errors
    /// None for a number.
    pub fn ask(&self, at: u32) -> anyhow::Result<Ask> {
        let Schema { columns, scaled_bound, scale } = self.schema();
        Ok(Ask {
            question: Question::Sum(columns),
            snapshot: label(at)?,
            ring: Some(self.chunks.ring()),
            scale,
            scaled_bound,
            enough: Some(self.staying() as u32),
            round_seconds: SECONDS,
            audit: self.audit,
            last: false,
        })
    }
}

/// The label of the data of round `at`.
///
/// # Errors
/// None for a number.
pub fn label(at: u32) -> anyhow::Result<Snapshot> {
    Ok(at.to_string().parse()?)
}

/// A vector of `dim` coordinates.
fn vector(ring: Ring, dim: u32) -> Result<Chunks, ChunkError> {
    Chunks::new(ring, dim.into())
}

/// `what`, `what-2`, ..: the first server has the name that every study has.
fn names(what: &str, count: u32) -> anyhow::Result<Vec<Name>> {
    let name = |number: u32| if number == 1 { what.to_string() } else { format!("{what}-{number}") };
    (1..=count).map(|number| Ok(name(number).parse()?)).collect()
}
