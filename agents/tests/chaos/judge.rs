//! What must hold, whatever goes wrong.

use std::collections::BTreeMap;

use serde_json::Value;

use super::scenario::Scenario;

/// A session and the number of a round.
type Round = (String, u64);

/// Who is in a sum: bit i is patient i's.
type Cohort = u8;

/// Looks on and judges.
#[derive(Debug)]
pub struct Judge {
    patients: u8,
    min_cohort: u64,
    /// Of each round that was opened, who is in its sum.
    opened: BTreeMap<Round, Cohort>,
    /// What each patient was told of a round: how many are in the sum, and whether it is.
    receipts: Vec<(Round, u64, u8, bool)>,
    /// How many answers there were.
    pub answers: u64,
    /// How often there was none.
    pub aborts: u64,
}

impl Judge {
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            patients: scenario.patients,
            min_cohort: scenario.min_cohort.into(),
            opened: BTreeMap::new(),
            receipts: Vec::new(),
            answers: 0,
            aborts: 0,
        }
    }

    /// Takes how a hospital ended that nobody killed: `Ok(true)` with an answer, `Ok(false)` with a typed abort.
    pub fn ended(&self, code: Option<i32>, last: Option<&str>) -> Result<bool, String> {
        let report: Value = serde_json::from_str(last.unwrap_or_default()).unwrap_or_default();
        match (code, report["outcome"].as_str()) {
            (Some(0), Some("opened")) => Ok(true),
            (Some(3), Some("aborted")) if report["reason"].is_string() => Ok(false),
            _ => Err(format!("the hospital ended with {code:?} and printed {last:?}")),
        }
    }

    /// Takes a line of a hospital's standard output.
    pub fn printed(&mut self, line: &str) -> Result<(), String> {
        let report: Value = serde_json::from_str(line).map_err(|error| format!("`{line}` is no JSON: {error}"))?;
        if report["outcome"] == "aborted" {
            self.aborts += 1;
        }
        if report["outcome"] != "opened" {
            return Ok(());
        }
        self.answers += 1;
        let cohort = self.cohort(&report).ok_or_else(|| format!("no patients add up to this: {line}"))?;
        if u64::from(cohort.count_ones()) < self.min_cohort {
            return Err(format!("fewer than {} patients were opened: {line}", self.min_cohort));
        }
        if report["checked"]["caught"] != Value::Array(Vec::new()) {
            return Err(format!("somebody honest was accused: {line}"));
        }
        self.open(round_of(&report).ok_or_else(|| format!("no round: {line}"))?, cohort)
    }

    /// Who is in the sum of an answer, if that is as many as it says.
    fn cohort(&self, report: &Value) -> Option<Cohort> {
        let [sum] = &report["sum"].as_array()?[..] else { return None };
        let sum: u64 = sum.to_string().parse().ok()?;
        let in_it = |number: &u8| sum & Scenario::value(*number) != 0;
        let cohort = (0..self.patients).filter(in_it).fold(0, |cohort, number| cohort | 1 << number);
        let exact: u64 = (0..self.patients).filter(in_it).map(Scenario::value).sum();
        (sum == exact && report["cohort"].as_u64()? == u64::from(Cohort::count_ones(cohort))).then_some(cohort)
    }

    /// A round has one sum; in a session cohorts of the one snapshot are the same or apart, in different ones apart.
    fn open(&mut self, round: Round, cohort: Cohort) -> Result<(), String> {
        for (earlier, other) in &self.opened {
            let apart = cohort & other == 0;
            let same = cohort == *other && earlier.0 == round.0;
            if !same && (!apart || *earlier == round) {
                return Err(format!("{earlier:?} opened {other:b} and {round:?} {cohort:b}"));
            }
        }
        self.opened.insert(round, cohort);
        Ok(())
    }

    /// Takes a line that patient `number` said.
    pub fn said(&mut self, number: u8, line: &str) {
        self.receipts.extend(receipt(line).map(|(round, count, included)| (round, count, number, included)));
    }

    /// Once all is said: every receipt must be of the sum that was printed, if one was.
    pub fn receipts_hold(&self) -> Result<(), String> {
        for (round, count, number, included) in &self.receipts {
            let Some(cohort) = self.opened.get(round) else { continue };
            let is_in = cohort >> number & 1 == 1;
            if (*count, *included) != (cohort.count_ones().into(), is_in) {
                return Err(format!("p{number} was told {count}, {included} of {round:?}, which opened {cohort:b}"));
            }
        }
        Ok(())
    }
}

fn round_of(report: &Value) -> Option<Round> {
    Some((report["session"].as_str()?.to_owned(), report["round"].as_u64()?))
}

/// What a patient's line `session S, round R: opened over N patients, with NAME` says.
fn receipt(line: &str) -> Option<(Round, u64, bool)> {
    let (session, rest) = line.strip_prefix("session ")?.split_once(", round ")?;
    let (round, rest) = rest.split_once(": opened over ")?;
    let (count, part) = rest.split_once(" patients, ")?;
    Some(((session.into(), round.parse().ok()?), count.parse().ok()?, part.starts_with("with ")))
}
