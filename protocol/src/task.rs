//! Questions and what a patient answers them from. A new kind of question is added here, in one place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::decimal::Scale;
use crate::form::{self, MAX_TEXT};
use crate::id::{Digest, Name};
use crate::kdf;

/// A column of a patient's data: a name and how many coordinates it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// How many coordinates it has: 1 for a measurement.
    #[serde(default = "one")]
    pub width: u32,
}

fn one() -> u32 {
    1
}

impl Column {
    /// A column of one coordinate.
    pub fn scalar(name: &str) -> Self {
        Self { name: name.into(), width: 1 }
    }
}

/// A typed question over named columns of one snapshot, never a free encoding (PROTOCOL.md, *Begin*).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// The sum of each coordinate of these columns over the cohort.
    Sum(#[serde(deserialize_with = "form::list_of::<_, _, MAX_COLUMNS>")] Vec<Column>),
}

/// The most columns one question may name.
pub const MAX_COLUMNS: usize = 4096;

/// The most bytes that the names of a question's columns take together: a Begin must fit a message.
pub const MAX_COLUMN_NAMES: usize = 256 << 10;

impl Question {
    /// The columns that the question reads.
    pub fn columns(&self) -> &[Column] {
        match self {
            Question::Sum(columns) => columns,
        }
    }

    /// How many coordinates an answer has.
    pub fn dimension(&self) -> u64 {
        self.columns().iter().map(|column| u64::from(column.width)).sum()
    }

    /// Whether the question is one that can be asked: some columns, each with a name of its own and a width, and their
    /// names no longer than a message has room for.
    pub fn is_sound(&self) -> bool {
        let columns = self.columns();
        let mut names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        (1..=MAX_COLUMNS).contains(&columns.len())
            && names.len() == columns.len()
            && names.iter().map(|name| name.len()).sum::<usize>() <= MAX_COLUMN_NAMES
            && columns.iter().all(|column| column.width > 0 && (1..=MAX_TEXT).contains(&column.name.len()))
    }

    /// A name for each coordinate of the answer.
    pub fn fields(&self) -> Vec<String> {
        self.columns()
            .iter()
            .flat_map(|column| match column.width {
                1 => vec![column.name.clone()],
                width => (0..width).map(|at| format!("{}[{at}]", column.name)).collect(),
            })
            .collect()
    }
}

/// A patient's data under one snapshot: for each column its coordinates in units of 1 / scale.
///
/// Wiped on drop; prints only the names of its columns.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    scale: Scale,
    columns: BTreeMap<String, Vec<i64>>,
}

/// Why values do not make a [`Record`] under a schema. It never repeats a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A column that the schema does not know.
    #[error("column `{0}` is not in the schema: its columns are {1}")]
    UnknownColumn(String, String),
    /// A column of the schema without values.
    #[error("column `{0}` of the schema has no value")]
    MissingColumn(String),
    /// Another number of coordinates than the schema says.
    #[error("column `{column}` has {got} coordinates and the schema says {expected}")]
    Width {
        /// Which column.
        column: String,
        /// How many values came.
        got: usize,
        /// How many the schema says.
        expected: u32,
    },
    /// Data in other units than the schema's.
    #[error("the values are in units of 1/{got} and the schema says 1/{expected}: give them under the schema's scale")]
    Scale {
        /// The units of the values.
        got: u64,
        /// The units of the schema.
        expected: u64,
    },
    /// A value beyond the bound.
    #[error(
        "a value in column `{column}` is beyond the bound of {bound}: check its unit, or raise the bound for everybody"
    )]
    OutOfBound {
        /// Which column.
        column: String,
        /// The bound, as a decimal.
        bound: String,
    },
}

impl Record {
    /// Checks `columns` against `schema`, coordinate by coordinate.
    ///
    /// # Errors
    /// [`RecordError`] names the column and the rule.
    pub fn new(columns: BTreeMap<String, Vec<i64>>, schema: &Schema) -> Result<Self, RecordError> {
        let record = Self { scale: schema.scale, columns };
        record.check(schema)?;
        Ok(record)
    }

    /// Checks the record against `schema`: it may have been made under another one.
    ///
    /// # Errors
    /// [`RecordError`] names the column and the rule.
    pub fn check(&self, schema: &Schema) -> Result<(), RecordError> {
        if self.scale != schema.scale {
            return Err(RecordError::Scale { got: self.scale.get(), expected: schema.scale.get() });
        }
        for name in self.columns.keys() {
            if !schema.columns.iter().any(|column| column.name == *name) {
                let known: Vec<_> = schema.columns.iter().map(|column| column.name.as_str()).collect();
                return Err(RecordError::UnknownColumn(name.clone(), known.join(", ")));
            }
        }
        schema.columns.iter().try_for_each(|column| self.check_column(column, schema))
    }

    fn check_column(&self, column: &Column, schema: &Schema) -> Result<(), RecordError> {
        let values = self.columns.get(&column.name).ok_or_else(|| RecordError::MissingColumn(column.name.clone()))?;
        if values.len() != column.width as usize {
            let (column, got, expected) = (column.name.clone(), values.len(), column.width);
            return Err(RecordError::Width { column, got, expected });
        }
        if values.iter().any(|value| value.unsigned_abs() > schema.scaled_bound) {
            let bound = crate::decimal::format(i128::from(schema.scaled_bound), schema.scale);
            return Err(RecordError::OutOfBound { column: column.name.clone(), bound });
        }
        Ok(())
    }
}

impl Record {
    /// The coordinates of `column`; `None` where the record has no such column or one of another width.
    pub(crate) fn column(&self, column: &Column) -> Option<&[i64]> {
        self.columns.get(&column.name).map(Vec::as_slice).filter(|values| values.len() == column.width as usize)
    }

    /// A digest of the data keyed by a secret of the owner: what is frozen when a snapshot is first shared, and what the
    /// masks are bound to.
    pub(crate) fn digest(&self, secret: &[u8; 32]) -> Digest {
        let columns = self.columns.iter().map(|(name, values)| {
            let values = keyed_digest("ward/1 column", secret, values.iter());
            kdf::digest("ward/1 named column", &[name.as_bytes(), &values.0])
        });
        let mut columns: Vec<Digest> = columns.collect();
        columns.push(kdf::digest("ward/1 record scale", &[&self.scale.get().to_le_bytes()]));
        kdf::digest("ward/1 record", &columns.iter().map(|column| &column.0[..]).collect::<Vec<_>>())
    }
}

fn keyed_digest<'a>(context: &'static str, key: &[u8; 32], values: impl Iterator<Item = &'a i64>) -> Digest {
    let key = kdf::derive(context, key, &[]);
    let mut hasher = blake3::Hasher::new_keyed(&key);
    let mut buffer = zeroize::Zeroizing::new(Vec::with_capacity(8 * 1024));
    for value in values {
        buffer.extend_from_slice(&value.to_le_bytes());
        if buffer.len() == 8 * 1024 {
            hasher.update(&buffer);
            buffer.clear();
        }
    }
    hasher.update(&buffer);
    Digest(*hasher.finalize().as_bytes())
}

impl Drop for Record {
    fn drop(&mut self) {
        self.columns.values_mut().for_each(|values| values.as_mut_slice().zeroize());
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({:?})", self.columns.keys())
    }
}

/// A patient's vector in the clear; wiped on drop, prints as `SecretVector(..)`.
pub struct SecretVector(pub(crate) Vec<i64>);

impl Drop for SecretVector {
    fn drop(&mut self) {
        // A slice is wiped in bulk, a vector element by element.
        self.0.as_mut_slice().zeroize();
    }
}

impl ZeroizeOnDrop for SecretVector {}

impl std::fmt::Debug for SecretVector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretVector(..)")
    }
}

/// What a patient's data look like: columns, bound and scale belong to the patient, never to the question
/// (PROTOCOL.md, *Sharing*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The columns, in the owner's order.
    pub columns: Vec<Column>,
    /// The largest absolute value of a coordinate, in units of 1 / scale.
    pub scaled_bound: u64,
    /// Units per 1 of a value.
    pub scale: Scale,
}

/// Which sessions and questions a patient takes part in, whatever its values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The study that the patient belongs to.
    pub study: String,
    /// The smallest cohort it accepts; the larger of this and Announce's holds.
    pub min_cohort: u32,
    /// The smallest committee it accepts.
    pub min_committee: u8,
    /// The smallest threshold it accepts.
    pub min_threshold: u8,
    /// The hospitals it answers.
    pub hospitals: Accepted,
    /// The members it lets hold its seeds.
    pub members: Accepted,
    /// The columns that may be asked for.
    pub columns: AcceptedColumns,
}

impl Policy {
    /// Any hospital and any member of `study` and any column, over `min_cohort` patients or more, with every committee
    /// that the protocol has.
    pub fn open(study: &str, min_cohort: u32) -> Self {
        Self {
            study: study.to_owned(),
            min_cohort,
            min_committee: 2,
            min_threshold: 1,
            hospitals: Accepted::Anyone,
            members: Accepted::Anyone,
            columns: AcceptedColumns::All,
        }
    }
}

/// Whom a patient accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Whoever the CA names in that role.
    Anyone,
    /// These only.
    Only(Vec<Name>),
}

impl Accepted {
    /// Whether `name` is among them.
    pub fn accepts(&self, name: &Name) -> bool {
        match self {
            Accepted::Anyone => true,
            Accepted::Only(names) => names.contains(name),
        }
    }
}

/// Which columns a patient lets be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptedColumns {
    /// All of its schema.
    All,
    /// These only.
    Only(Vec<String>),
}

impl AcceptedColumns {
    /// Whether `column` is among them.
    pub fn accepts(&self, column: &str) -> bool {
        match self {
            AcceptedColumns::All => true,
            AcceptedColumns::Only(names) => names.iter().any(|name| name == column),
        }
    }
}
