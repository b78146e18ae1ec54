//! Whole studies under faults, each from one number: several sessions and rounds over the real machines, on one thread
//! and a virtual clock.
//!
//! A run has two phases. First there are faults: messages are lost, repeated, late or early, parties die at any step and
//! come back with their store, an older one or none, clocks jump, jobs take long, the broker loses what it acknowledged,
//! the relay alters and forges, and parties lie under their own keys. Then faults stop, and the study must come to an
//! answer. After every step the rules hold that a study promises: an exact sum over the
//! cohort that was fixed or an abort, one opening a round, over a snapshot the same people or others, a snapshot in one
//! session and with the same values, bounded memory.
//!
//! ```
//! let case = protocol::simulation::Case::draw(7);
//! let outcome = case.play();
//! assert_eq!(outcome.failure, None);
//! assert_eq!(case.play().trace, outcome.trace, "the same seed, the same run");
//! ```

mod blocks;
mod dice;
mod fault;
mod forge;
mod forge_begin;
mod forge_ending;
mod forge_payload;
mod forge_roster;
mod forget;
mod lie;
mod masks;
mod misreckon;
mod oracle;
mod play;
mod plot;
mod shape;
mod shrink;
mod subject;
mod weather;

pub use fault::{Blow, Counts, Fate, Fault, KINDS, Part, Which};
pub use lie::{AbortLie, BeginLie, CohortLie, Lie, ListLie, OpenLie, ResultLie, RosterLie, SumLie};
pub use oracle::Failure;
pub use play::Outcome;
use serde::{Deserialize, Serialize};
pub use shape::{Act, Shape};

use dice::Dice;
use weather::{Rates, Source};

/// A run: what is played, and what goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What all keys and values come from.
    pub seed: u64,
    /// Who plays what.
    pub shape: Shape,
    /// What goes wrong, where the weather is not drawn.
    pub faults: Vec<Fault>,
    /// Whether the fates of messages are drawn from the seed.
    #[serde(default)]
    pub drawn: bool,
}

impl Case {
    /// The run of a seed.
    pub fn draw(seed: u64) -> Self {
        let shape = Shape::draw(&mut Dice::new(seed, 1));
        let (mut blows, mut splits) = (Dice::new(seed, 2), Dice::new(seed, 4));
        let blows = shape.cast().map(|cast| fault::draw_blows(&shape, &cast, &mut blows, &mut splits));
        Self { seed, shape, faults: blows.unwrap_or_default(), drawn: true }
    }

    /// Plays it.
    pub fn play(&self) -> Outcome {
        let listed = self.faults.iter().filter_map(|fault| match fault {
            Fault::Message(which, fate) => Some((which.clone(), *fate)),
            Fault::Blow(..) | Fault::Lie(_) => None,
        });
        let source = match self.drawn {
            true => Source::Drawn(self.seed, Rates::draw(&mut Dice::new(self.seed, 3))),
            false => Source::Listed(listed.collect()),
        };
        let blows = self.faults.iter().filter_map(|fault| match fault {
            Fault::Blow(step, blow) => Some((*step, blow.clone())),
            Fault::Message(..) | Fault::Lie(_) => None,
        });
        let lies = self.faults.iter().filter_map(|fault| match fault {
            Fault::Lie(lie) => Some(lie.clone()),
            Fault::Message(..) | Fault::Blow(..) => None,
        });
        play::play(self.seed, &self.shape, source, &blows.collect::<Vec<_>>(), lies.collect())
    }

    /// The same with few faults that still break the rule that `outcome` broke.
    pub fn shrink(&self, outcome: &Outcome) -> Self {
        let Some(failure) = &outcome.failure else { return self.clone() };
        let listed = Self { faults: outcome.faults.clone(), drawn: false, ..self.clone() };
        shrink::shrink(&listed, failure.rule)
    }
}
