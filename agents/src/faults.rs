//! Says who is at fault, and lets no flood fill the log.

use std::collections::BTreeMap;

use protocol::{Fault, Name};

/// How many faults of each sender are told one by one.
const FIRST: u64 = 20;

/// The faults of one party's peers.
#[derive(Default)]
pub struct Faults(BTreeMap<Name, u64>);

impl Faults {
    /// What the log says of `fault`: all of the first few of a sender, then the 100th, the 1000th and so on.
    pub fn line(&mut self, fault: &Fault) -> Option<String> {
        let count = self.0.entry(fault.from.clone()).or_default();
        *count += 1;
        match *count {
            1..=FIRST => Some(fault.to_string()),
            many if 10_u64.pow(many.ilog10()) == many => {
                Some(format!("{fault} ({many} faults of {} so far)", fault.from))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use protocol::{Kind, Wrong};

    use super::*;

    #[test]
    fn a_flood_is_told_in_a_few_lines_and_hides_nobody_else() {
        let fault = |from: &str| Fault { from: from.parse().unwrap(), kind: Kind::Share, wrong: Wrong::Readdressed };
        let mut faults = Faults::default();
        let told: Vec<String> = (0..100_000).filter_map(|_| faults.line(&fault("mallory"))).collect();
        assert_eq!(told.len(), 20 + 4);
        assert!(told[23].ends_with("(100000 faults of mallory so far)"), "{}", told[23]);
        assert_eq!(faults.line(&fault("alice")), Some(fault("alice").to_string()));
    }
}
