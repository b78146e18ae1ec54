//! Values as people give them on the command line. No error here repeats a value.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use protocol::decimal::{self, DecimalError};
use protocol::{Column, Name, NameError, Record, RecordError, Role, Scale, Schema};
use zeroize::Zeroizing;

use crate::home::INFRASTRUCTURE;

/// A text that may hold a value: wiped on drop, printed as `..`.
#[derive(Clone)]
pub(crate) struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text itself: for parsing it or passing it to a child, never for a log or an error.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Never fails, so that the command line's own errors cannot repeat it.
impl FromStr for SecretText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// `NAME=VALUE` of `ward up`.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    /// The patient.
    pub(crate) name: Name,
    /// Its value, not yet read.
    pub(crate) value: SecretText,
}

/// What was given and cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// An argument of another form. It may be a bare value, so it is not repeated.
    #[error("argument {0} of `ward up` is not NAME=VALUE: write for instance alice=100")]
    NoAssignment(usize),
    /// What stands before `=` is no name.
    #[error("in argument {0} of `ward up`, what stands before `=` is no name: use 1 to 32 of a-z, 0-9 and '-'")]
    Malformed(usize),
    /// A name with a meaning of its own.
    #[error("`{0}` is reserved: choose another name for the patient")]
    Reserved(String),
    /// One patient twice.
    #[error("`{0}` is given twice: give each patient one value")]
    Repeated(Name),
    /// A name and nothing behind `=`.
    #[error("`{0}=` has no value: write for instance {0}=100")]
    NoValue(Name),
    /// A value that is no number.
    #[error("for column `{column}`: {cause}")]
    Value {
        /// Which column.
        column: String,
        /// Which rule.
        cause: CellError,
    },
    /// Another number of values than the columns have coordinates.
    #[error(
        "{given} values are given and the patient's columns ({columns}) take {expected}: separate them by commas, in \
         this order"
    )]
    Count {
        /// How many came.
        given: usize,
        /// How many the schema takes.
        expected: usize,
        /// The schema's columns.
        columns: String,
    },
    /// Values against the schema's rules.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Why one written value is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CellError {
    /// `1,5`, or `1,000`.
    #[error("the value has a comma: write decimals with '.', and thousands without a separator")]
    Comma,
    /// Anything else.
    #[error(transparent)]
    Decimal(#[from] DecimalError),
}

/// Reads the arguments of `ward up`: each `NAME=VALUE`, no name twice and none that the study uses itself.
///
/// # Errors
/// [`InputError`] names the argument by its place, from 1.
pub(crate) fn assignments(arguments: &[SecretText]) -> Result<Vec<Assignment>, InputError> {
    let mut seen = BTreeSet::new();
    let mut read = Vec::with_capacity(arguments.len());
    for (at, argument) in (1..).zip(arguments) {
        let assignment = assignment(at, argument)?;
        if !seen.insert(assignment.name.clone()) {
            return Err(InputError::Repeated(assignment.name));
        }
        read.push(assignment);
    }
    Ok(read)
}

fn assignment(at: usize, argument: &SecretText) -> Result<Assignment, InputError> {
    let (name, value) = argument.expose().split_once('=').ok_or(InputError::NoAssignment(at))?;
    let name = patient_name(name).map_err(|error| match error {
        NameError::Reserved(word) => InputError::Reserved(word),
        NameError::Malformed(_) => InputError::Malformed(at),
    })?;
    if value.trim().is_empty() {
        return Err(InputError::NoValue(name));
    }
    Ok(Assignment { name, value: value.to_owned().into() })
}

/// A name that a patient may have: none of the parties that every study has.
///
/// # Errors
/// [`NameError`].
pub(crate) fn patient_name(text: &str) -> Result<Name, NameError> {
    let is_text = |(name, _): &(&str, Role)| *name == text;
    if INFRASTRUCTURE.iter().any(is_text) { Err(NameError::Reserved(text.into())) } else { text.parse() }
}

/// The record of a patient that gives its values as one text: a number, or, where the schema has more
/// coordinates than one, as many, separated by commas, in the schema's order.
///
/// # Errors
/// [`InputError`] names the column and the rule.
pub(crate) fn value_record(text: &str, schema: &Schema) -> Result<Record, InputError> {
    let expected: usize = schema.columns.iter().map(|column| column.width as usize).sum();
    let parts: Vec<&str> = if expected == 1 { vec![text] } else { text.split(',').collect() };
    if parts.len() != expected {
        let columns: Vec<_> = schema.columns.iter().map(|column| column.name.as_str()).collect();
        return Err(InputError::Count { given: parts.len(), expected, columns: columns.join(", ") });
    }
    let mut parts = parts.into_iter();
    let mut columns = BTreeMap::new();
    for Column { name, width } in &schema.columns {
        let values = parts.by_ref().take(*width as usize).map(|part| cell(part, schema.scale));
        let values = values.collect::<Result<_, _>>();
        let values = values.map_err(|cause| InputError::Value { column: name.clone(), cause })?;
        columns.insert(name.clone(), values);
    }
    Ok(Record::new(columns, schema)?)
}

/// One written value, in units of 1 / `scale`.
pub(crate) fn cell(text: &str, scale: Scale) -> Result<i64, CellError> {
    decimal::parse(text, scale).map_err(|error| match error {
        DecimalError::NotANumber if decimal::parse(&without_commas(text), scale).is_ok() => CellError::Comma,
        other => other.into(),
    })
}

/// What is left of `1,5` or `1,000`: a whole number, unless the commas are not all that is wrong.
fn without_commas(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.chars().filter(|&letter| letter != ',').collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const BOUND: u64 = 1_000_000_000_000_000;

    fn schema(columns: &[(&str, u32)]) -> Schema {
        let columns = columns.iter().map(|&(name, width)| Column { name: name.into(), width }).collect();
        Schema { columns, scaled_bound: BOUND, scale: Scale::default() }
    }

    fn expected(columns: &[(&str, &[i64])], schema: &Schema) -> Record {
        Record::new(columns.iter().map(|(name, values)| ((*name).into(), values.to_vec())).collect(), schema).unwrap()
    }

    fn assign(arguments: &[&str]) -> Result<Vec<Assignment>, InputError> {
        let arguments: Vec<SecretText> = arguments.iter().map(|text| text.parse().unwrap()).collect();
        assignments(&arguments)
    }

    #[test]
    fn assignments_are_read() {
        let read = assign(&["alice=100", "bob=-2.5", "c-3=1,2=3"]).unwrap();
        let read: Vec<_> = read.iter().map(|one| (one.name.as_str(), one.value.expose())).collect();
        assert_eq!(read, [("alice", "100"), ("bob", "-2.5"), ("c-3", "1,2=3")]);
    }

    #[test]
    fn an_assignment_prints_no_value() {
        assert_eq!(format!("{:?}", assign(&["alice=100"]).unwrap()), "[Assignment { name: alice, value: .. }]");
    }

    #[test]
    fn bad_assignments_are_refused_without_their_value() {
        for (arguments, text) in [
            (&["alice=31", "31415"][..], "argument 2"),
            (&["=31415"], "argument 1"),
            (&["314.15=alice"], "argument 1"),
            (&["Alice=31415"], "argument 1"),
            (&["all=31415"], "`all` is reserved"),
            (&["hospital=31415"], "`hospital` is reserved"),
            (&["bob=", "31415=1"], "`bob=` has no value"),
            (&["bob=31415", "eve=31415", "bob=31415"], "`bob` is given twice"),
        ] {
            let refused = assign(arguments).unwrap_err();
            assert!(refused.to_string().contains(text), "{refused}");
            assert!(!format!("{refused:?} {refused}").contains("314"), "{refused:?}");
        }
    }

    #[test]
    fn one_value_makes_a_record() {
        let one = schema(&[("value", 1)]);
        assert_eq!(value_record(" 17.99", &one).unwrap(), expected(&[("value", &[17_990_000])], &one));
        let three = schema(&[("b", 1), ("a", 2)]);
        let record = value_record("1, -2,3.5", &three).unwrap();
        assert_eq!(record, expected(&[("b", &[1_000_000]), ("a", &[-2_000_000, 3_500_000])], &three));
    }

    #[test]
    fn values_against_the_rules_are_refused() {
        let (one, two) = (schema(&[("value", 1)]), schema(&[("x", 1), ("y", 1)]));
        for (text, schema, rule) in [
            ("31x", &one, "column `value`: the value is no decimal number"),
            ("31,5", &one, "has a comma"),
            ("NaN", &one, "not a finite number"),
            ("-inf", &one, "not a finite number"),
            ("31.1234567", &one, "more than six decimals"),
            ("", &one, "the value is empty"),
            ("3100000000", &one, "beyond the bound of 1000000000"),
            ("31", &two, "1 values are given and the patient's columns (x, y) take 2"),
            ("31,31,31", &two, "3 values"),
            ("1,31\0", &two, "column `y`"),
        ] {
            let refused = value_record(text, schema).unwrap_err();
            assert!(refused.to_string().contains(rule), "{refused}");
            assert!(!format!("{refused:?} {refused}").contains("31"), "{refused:?}");
        }
    }
}
