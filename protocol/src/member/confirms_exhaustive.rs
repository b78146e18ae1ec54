//! All that a lying server and hospital can get out of committees of four and five over three rounds, by enumeration.
//!
//! They may show every member another Roster, other Begins and other Cohorts, in any order of members: what one honest
//! member confirms does not depend on what another is shown. So two cohorts can both be opened exactly where each finds
//! q members, an honest one gives both only if one history of its own has both, and a corrupt one gives all. All
//! histories of one member are walked with the rules that members run, then all ways to spread members over two cohorts.

use std::collections::BTreeSet;

use super::*;
use crate::id::Place;
use crate::sharing::Sharing;

const ROUNDS: u32 = 3;
const PATIENTS: u32 = 4;
const MIN_COHORT: u32 = 2;

/// One thing that a member can be asked to confirm; equal ones have equal digests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    roster: u8,
    round: u32,
    same_as: Option<u32>,
    snapshot: u8,
    patients: u8,
}

impl Case {
    /// All of one round: every Roster, Begin and cohort.
    fn all(round: u32) -> Vec<Self> {
        let mut cases = Vec::new();
        for same_as in std::iter::once(None).chain((1..round).map(Some)) {
            for (roster, snapshot) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let cohorts = (0..1_u8 << PATIENTS).filter(|cohort| cohort.count_ones() >= MIN_COHORT);
                cases.extend(cohorts.map(|patients| Self { roster, round, same_as, snapshot, patients }));
            }
        }
        cases
    }

    fn digest(&self) -> Digest {
        let same_as = self.same_as.unwrap_or_default() as u8;
        let fields = [self.roster, self.round as u8, same_as, self.snapshot, self.patients];
        Digest(std::array::from_fn(|i| fields.get(i).copied().unwrap_or_default()))
    }

    /// Puts the question to a member that has these behind it, as its machine does; whether it confirms.
    fn put(&self, confirms: &mut Confirms) -> bool {
        let chosen = (0..PATIENTS).filter(|patient| self.patients >> patient & 1 == 1).map(Place);
        let (places, snapshot) = (Places::of(PATIENTS, chosen), format!("s{}", self.snapshot).parse().unwrap());
        let proposal = Proposal {
            round: RoundNo(self.round),
            snapshot: &snapshot,
            same_as: self.same_as.map(RoundNo),
            places: &places,
            cohort: self.digest(),
        };
        let confirmed = confirms.once(proposal).is_ok() && confirms.clash(proposal).is_none();
        if confirmed {
            confirms.add(proposal);
        }
        confirmed
    }

    /// Whether opening both breaks a promise.
    fn contradicts(&self, other: &Self) -> bool {
        let overlap = self.patients != other.patients && self.patients & other.patients != 0;
        let names = |later: &Self, earlier: &Self| later.same_as == Some(earlier.round);
        self != other
            && (self.roster != other.roster
                || self.round == other.round
                || self.snapshot == other.snapshot && overlap
                || (names(self, other) || names(other, self)) && self.patients != other.patients)
    }
}

/// Every two that one honest member confirms in some history. A member has one Roster for its session, and no round
/// comes before an earlier one is over.
fn confirmed_together() -> BTreeSet<(Case, Case)> {
    fn walk(round: u32, confirms: &Confirms, history: &mut Vec<Case>, pairs: &mut BTreeSet<(Case, Case)>) {
        if round > ROUNDS {
            return;
        }
        walk(round + 1, confirms, history, pairs);
        for case in Case::all(round) {
            if history.iter().any(|earlier| earlier.roster != case.roster) {
                continue;
            }
            let mut confirms = confirms.clone();
            if case.put(&mut confirms) {
                pairs.extend(history.iter().map(|earlier| (earlier.clone(), case.clone())));
                // Whatever else it is shown in this round, it confirms no more.
                assert!(Case::all(round).iter().all(|other| *other == case || !other.put(&mut confirms.clone())));
                history.push(case);
                walk(round + 1, &confirms, history, pairs);
                history.pop();
            }
        }
    }
    let mut pairs = BTreeSet::new();
    walk(1, &Confirms::default(), &mut Vec::new(), &mut pairs);
    pairs
}

/// Whether two cohorts can both find a quorum with so many corrupt members; `together`: an honest one confirms both.
fn both_open(sharing: Sharing, corrupt: u8, together: bool) -> bool {
    let honest = sharing.committee() - corrupt;
    let both = if together { honest } else { 0 };
    (0..=both).any(|both| {
        let rest = honest - both;
        (0..=rest).any(|first| {
            let second = rest - first;
            corrupt + both + first >= sharing.quorum() && corrupt + both + second >= sharing.quorum()
        })
    })
}

fn all_pairs() -> impl Iterator<Item = (Case, Case)> {
    let cases: Vec<Case> = (1..=ROUNDS).flat_map(Case::all).collect();
    (0..cases.len()).flat_map(move |i| {
        let cases = cases.clone();
        (i + 1..cases.len()).map(move |j| (cases[i].clone(), cases[j].clone()))
    })
}

/// Committees of four and five with every threshold. Of the t corrupt members any may be honest ones whose store was put
/// back to before the first round: such a one confirms any two, as a liar does.
fn committees() -> impl Iterator<Item = Sharing> {
    [4, 5].into_iter().flat_map(|c| (1..c).map(move |t| Sharing::new(c, t).unwrap()))
}

#[test]
fn no_two_openings_that_contradict_each_other() {
    let together = confirmed_together();
    let mut contradictions = 0;
    for (one, other) in all_pairs().filter(|(one, other)| one.contradicts(other)) {
        contradictions += 1;
        let pair = (one, other);
        let given = together.contains(&pair);
        assert!(!given, "an honest member confirms both: {pair:?}");
        for sharing in committees() {
            assert!(!both_open(sharing, sharing.threshold(), given), "{sharing:?} opens both: {pair:?}");
        }
    }
    assert!(contradictions > 10_000, "{contradictions}");
}

#[test]
fn two_openings_take_as_many_liars_as_two_quorums_share() {
    for sharing in committees() {
        let shared = 2 * sharing.quorum() - sharing.committee();
        let opens = |corrupt| both_open(sharing, corrupt, false);
        assert!((0..shared).all(|corrupt| !opens(corrupt)) && (shared..=sharing.committee()).all(opens), "{sharing:?}");
        assert!(shared > sharing.threshold(), "{sharing:?}");
    }
}

#[test]
fn what_is_the_same_or_apart_can_be_opened_by_the_honest_alone() {
    let together = confirmed_together();
    for (one, other) in all_pairs().filter(|(one, other)| one.round != other.round && !one.contradicts(other)) {
        assert!(together.contains(&(one.clone(), other.clone())), "{one:?} and {other:?}");
    }
    assert!(committees().all(|sharing| both_open(sharing, 0, true)));
}

#[test]
fn a_member_put_back_to_before_the_first_round_confirms_any_two() {
    let pairs: Vec<_> = all_pairs().collect();
    assert!(
        pairs.iter().all(|(one, other)| { [one, other].into_iter().all(|case| case.put(&mut Confirms::default())) })
    );
}
