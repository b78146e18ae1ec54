//! Values as people give them: on the command line, or as a table in CSV. No error here repeats a value.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs, io};

use csv::StringRecord;
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
    /// A table that cannot be used.
    #[error("`{}`{}: {wrong}", .file.display(), at(*.line))]
    Table {
        /// The file.
        file: PathBuf,
        /// The line, from 1; `None` where the whole file is meant.
        line: Option<u64>,
        /// Which rule it breaks.
        wrong: TableError,
    },
}

fn at(line: Option<u64>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
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

/// The rule that a table breaks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The file cannot be read.
    #[error("cannot read the table: {0}")]
    Read(io::Error),
    /// Not UTF-8.
    #[error("the text is not UTF-8: save the table as CSV in UTF-8")]
    Encoding,
    /// A byte that no text has.
    #[error("a NUL byte: this is no CSV text, or a damaged one; save the table as CSV in UTF-8")]
    Nul,
    /// Nothing in it.
    #[error("the file is empty: it takes a header with column names and a row per patient")]
    Empty,
    /// A header alone.
    #[error("there is a header and no row: it takes a row per patient")]
    NoRows,
    /// No column asked for.
    #[error("no column is chosen: name at least one with --column; the table has {0}")]
    NoColumn(String),
    /// A limit of nobody.
    #[error("a limit of 0 rows leaves no patient: use --limit 1 or more")]
    Limit,
    /// The header separates names by something else.
    #[error("the header has no comma but {0}: save the table with commas between the columns")]
    Separator(&'static str),
    /// A column that is not in the header.
    #[error("there is no column `{column}`: the table has {columns}")]
    UnknownColumn {
        /// Which one was asked for.
        column: String,
        /// What the header has.
        columns: String,
    },
    /// A name twice in the header.
    #[error("the header has column `{0}` twice: rename one of them")]
    DuplicateHeader(String),
    /// A column asked for twice.
    #[error("column `{0}` is asked for twice: name it once")]
    RepeatedColumn(String),
    /// A row with another number of cells than the header.
    #[error("the row has {found} cells and the header has {expected}: complete it, or quote cells that hold commas")]
    Ragged {
        /// Cells of the row.
        found: usize,
        /// Cells of the header.
        expected: usize,
    },
    /// A cell that is no value.
    #[error("column `{column}`: {cause}")]
    Cell {
        /// Which column.
        column: String,
        /// Which rule.
        cause: CellError,
    },
    /// A row against the schema's rules.
    #[error(transparent)]
    Record(RecordError),
    /// A patient's name that cannot be made.
    #[error(transparent)]
    Name(NameError),
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

fn cell(text: &str, scale: Scale) -> Result<i64, CellError> {
    decimal::parse(text, scale).map_err(|error| match error {
        DecimalError::NotANumber if decimal::parse(&without_commas(text), scale).is_ok() => CellError::Comma,
        other => other.into(),
    })
}

/// What is left of `1,5` or `1,000`: a whole number, unless the commas are not all that is wrong.
fn without_commas(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.chars().filter(|&letter| letter != ',').collect())
}

/// The chosen columns of a table, a patient per row.
#[derive(Debug)]
pub(crate) struct Table {
    /// The columns, in the order asked for.
    pub(crate) columns: Vec<Column>,
    /// The patients, `p001` for the first row, each with its record.
    pub(crate) rows: Vec<(Name, Record)>,
}

impl InputError {
    /// Whether a cell has more decimals than the scale holds.
    fn is_too_fine(&self) -> bool {
        let InputError::Table { wrong: TableError::Cell { cause: CellError::Decimal(cause), .. }, .. } = self else {
            return false;
        };
        matches!(cause, DecimalError::TooFine { .. })
    }
}

/// Reads `columns` of the CSV file at `path`: a header, then a row per patient, of which the first `limit` are taken.
///
/// `bound` is the largest absolute value in units of 1 / `scale`. Rows beyond the limit must have all their cells, but
/// their values are not looked at. Patients are called by their row, with as many digits as the number of all rows
/// has and at least three, so another limit does not rename them.
///
/// # Errors
/// [`InputError::Table`] names the file, the line, the column and the rule, never a value.
pub(crate) fn read_table(
    path: &Path,
    columns: &[String],
    limit: Option<usize>,
    scale: Scale,
    bound: u64,
) -> Result<Table, InputError> {
    let columns_wanted = columns.iter().map(|name| Column::scalar(name)).collect();
    let schema = Schema { columns: columns_wanted, scaled_bound: bound, scale };
    let failed = |(line, wrong)| InputError::Table { file: path.into(), line, wrong };
    let text = read_text(path).map_err(failed)?;
    let rows = read_rows(&text, &schema, limit).map_err(failed)?;
    Ok(Table { columns: schema.columns, rows })
}

/// As [`read_table`], with `scale`, or else the smallest from the default on in which every value is exact: a table
/// that its owner recorded with seven decimals is no bad input. `bound` is the largest absolute value, in whole units.
///
/// # Errors
/// As [`read_table`]; the table's largest scale is 10^9.
pub(crate) fn read_table_exactly(
    path: &Path,
    columns: &[String],
    limit: Option<usize>,
    scale: Option<Scale>,
    bound: u64,
) -> Result<(Table, Scale), InputError> {
    let read = |scale: Scale| read_table(path, columns, limit, scale, bound.saturating_mul(scale.get()));
    let mut now = scale.unwrap_or_default();
    loop {
        match (read(now), Scale::new(now.get().saturating_mul(10))) {
            (Err(error), Ok(finer)) if scale.is_none() && error.is_too_fine() => now = finer,
            (table, _) => return table.map(|table| (table, now)),
        }
    }
}

/// What is wrong, and in which line.
type At<T> = Result<T, (Option<u64>, TableError)>;

fn read_text(path: &Path) -> At<Zeroizing<String>> {
    let bytes = Zeroizing::new(fs::read(path).map_err(|cause| (None, TableError::Read(cause)))?);
    let line = |end: usize| Some(1 + bytes[..end].iter().filter(|&&byte| byte == b'\n').count() as u64);
    let text = std::str::from_utf8(&bytes).map_err(|error| (line(error.valid_up_to()), TableError::Encoding))?;
    if let Some(nul) = text.find('\0') {
        return Err((line(nul), TableError::Nul));
    }
    Ok(Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()))
}

fn read_rows(text: &str, schema: &Schema, limit: Option<usize>) -> At<Vec<(Name, Record)>> {
    if text.trim().is_empty() {
        return Err((None, TableError::Empty));
    }
    // Flexible, because the library's own error for a ragged row counts lines from the row before.
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
    let mut lines = reader.records().map(|row| row.map_err(|error| (None, TableError::Read(error.into()))));
    let header = Header::read(lines.next().ok_or((None, TableError::Empty))??)?;
    let places = header.find(&schema.columns).map_err(|wrong| (Some(1), wrong))?;
    if limit == Some(0) {
        return Err((None, TableError::Limit));
    }
    let mut records = Vec::new();
    let mut rows = 0_usize;
    for row in lines {
        let row = row?;
        rows += 1;
        let located = |wrong| (line_of(&row, text), wrong);
        header.check(&row).map_err(located)?;
        if limit.is_none_or(|limit| rows <= limit) {
            records.push(record(&row, &places, schema).map_err(located)?);
        }
    }
    if rows == 0 {
        return Err((None, TableError::NoRows));
    }
    named(records, rows).map_err(|error| (None, TableError::Name(error)))
}

/// The line on which a row begins; the library's position stands before the blank lines that it skipped.
fn line_of(row: &StringRecord, text: &str) -> Option<u64> {
    let position = row.position()?;
    let rest = text.get(usize::try_from(position.byte()).ok()?..)?;
    let blank = rest.bytes().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|&byte| byte == b'\n').count();
    Some(position.line() + blank as u64)
}

fn named(records: Vec<Record>, rows: usize) -> Result<Vec<(Name, Record)>, NameError> {
    let width = rows.to_string().len().max(3);
    (1..).zip(records).map(|(row, record): (usize, _)| Ok((format!("p{row:0width$}").parse()?, record))).collect()
}

/// The names in the first line.
struct Header(Vec<String>);

impl Header {
    fn read(row: StringRecord) -> At<Self> {
        let names: Vec<String> = row.iter().map(|name| name.trim().to_owned()).collect();
        let mut seen = BTreeSet::new();
        // Columns without a name, such as a row number, can be there and cannot be asked for.
        match names.iter().find(|name| !name.is_empty() && !seen.insert(name.as_str())) {
            Some(twice) => Err((Some(1), TableError::DuplicateHeader(twice.clone()))),
            None => Ok(Self(names)),
        }
    }

    /// Where the wanted columns stand.
    fn find(&self, wanted: &[Column]) -> Result<Vec<usize>, TableError> {
        if wanted.is_empty() {
            return Err(TableError::NoColumn(self.list()));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = wanted.iter().find(|column| !seen.insert(column.name.as_str())) {
            return Err(TableError::RepeatedColumn(twice.name.clone()));
        }
        wanted.iter().map(|column| self.place(&column.name)).collect()
    }

    fn place(&self, column: &str) -> Result<usize, TableError> {
        let found = self.0.iter().position(|name| name == column).filter(|_| !column.is_empty());
        found.ok_or_else(|| match &self.0[..] {
            [one] if one.contains(';') => TableError::Separator("semicolons"),
            [one] if one.contains('\t') => TableError::Separator("tabs"),
            _ => TableError::UnknownColumn { column: column.into(), columns: self.list() },
        })
    }

    fn check(&self, row: &StringRecord) -> Result<(), TableError> {
        let (found, expected) = (row.len(), self.0.len());
        if found == expected { Ok(()) } else { Err(TableError::Ragged { found, expected }) }
    }

    fn list(&self) -> String {
        self.0.iter().filter(|name| !name.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

fn record(row: &StringRecord, places: &[usize], schema: &Schema) -> Result<Record, TableError> {
    let mut columns = BTreeMap::new();
    for (column, place) in schema.columns.iter().zip(places) {
        let value = cell(row.get(*place).unwrap_or_default(), schema.scale);
        let value = value.map_err(|cause| TableError::Cell { column: column.name.clone(), cause })?;
        columns.insert(column.name.clone(), vec![value]);
    }
    Record::new(columns, schema).map_err(TableError::Record)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

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

    fn read(text: impl AsRef<[u8]>, columns: &[&str], limit: Option<usize>) -> Result<Table, InputError> {
        let mut file = tempfile::NamedTempFile::with_suffix("-table.csv").unwrap();
        file.write_all(text.as_ref()).unwrap();
        let columns: Vec<String> = columns.iter().map(|&name| name.into()).collect();
        read_table(file.path(), &columns, limit, Scale::default(), BOUND)
    }

    /// What is said behind the file's path, whose random part may hold any digits.
    fn refusal(text: impl AsRef<[u8]>, columns: &[&str]) -> String {
        let refused = read(text, columns, None).unwrap_err().to_string();
        refused.split_once("-table.csv").unwrap().1.to_owned()
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

    #[test]
    fn a_table_is_read() {
        let table = read("id,age,\"weight, kg\"\n1,40,80.5\n\n2,-1e1,\" 3\"\n3,1,2\n", &["weight, kg", "age"], Some(2))
            .unwrap();
        assert_eq!(table.columns, [Column::scalar("weight, kg"), Column::scalar("age")]);
        let schema = schema(&[("weight, kg", 1), ("age", 1)]);
        let names: Vec<_> = table.rows.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["p001", "p002"]);
        assert_eq!(table.rows[0].1, expected(&[("age", &[40_000_000]), ("weight, kg", &[80_500_000])], &schema));
        assert_eq!(table.rows[1].1, expected(&[("age", &[-10_000_000]), ("weight, kg", &[3_000_000])], &schema));
    }

    #[test]
    fn mark_carriage_returns_and_a_missing_last_newline_do_not_matter() {
        let table = read("\u{feff}age , x\r\n40,a\r\n41,b", &["age"], None).unwrap();
        assert_eq!(table.rows.len(), 2);
        assert_eq!(read("\u{feff}\"age\"\n40\n", &["age"], None).unwrap().rows.len(), 1);
    }

    #[test]
    fn names_are_as_wide_as_the_table_whatever_the_limit() {
        let text = format!("age\n{}", "1\n".repeat(1000));
        assert_eq!(read(&text, &["age"], Some(1)).unwrap().rows[0].0.as_str(), "p0001");
        assert_eq!(read(&text, &["age"], None).unwrap().rows[999].0.as_str(), "p1000");
        assert_eq!(read("age\n1\n", &["age"], Some(7)).unwrap().rows[0].0.as_str(), "p001");
    }

    #[test]
    fn bad_tables_are_refused() {
        for (text, rule) in [
            ("", "`: the file is empty"),
            ("\u{feff}\n\n", "`: the file is empty"),
            ("age,x\n", "`: there is a header and no row"),
            ("a,x\n1,2\n", "line 1: there is no column `age`: the table has a, x"),
            ("age,x,age\n1,2,3\n", "line 1: the header has column `age` twice"),
            ("id;age\n1;2\n", "line 1: the header has no comma but semicolons"),
            ("id\tage\n1\t2\n", "line 1: the header has no comma but tabs"),
            ("age,x\n1,2\n31\n", "line 3: the row has 1 cells and the header has 2"),
            ("age,x\n1,2\n\n\r\n31,2,3\n", "line 5: the row has 3 cells"),
            ("age,x\n1,\"a\nb\"\n31,2,3\n", "line 4: the row has 3 cells"),
            ("age,x\n1,2\nabc31,2\n", "line 3: column `age`: the value is no decimal number"),
            ("age,x\n,2\n", "line 2: column `age`: the value is empty"),
            ("age,x\nNaN,2\n", "line 2: column `age`: the value is not a finite number"),
            ("age,x\ninf,2\n", "line 2: column `age`: the value is not a finite number"),
            ("age,x\n31.0000001,2\n", "line 2: column `age`: the value has more than six decimals"),
            ("age,x\n\"31,5\",2\n", "line 2: column `age`: the value has a comma"),
            ("age,x\n3100000000,2\n", "line 2: a value in column `age` is beyond the bound of 1000000000"),
            ("age,x\n1,2\n31\0,2\n", "line 3: a NUL byte"),
            ("age,x\n\"1,2\n3,4\n", "line 2: the row has 1 cells"),
        ] {
            let refused = refusal(text, &["age"]);
            assert!(refused.contains(rule), "{refused}");
            assert!(!refused.contains("31"), "{refused}");
        }
        assert!(refusal(b"age\n1\n\xff\xfe\n", &["age"]).contains("line 3: the text is not UTF-8"));
    }

    #[test]
    fn bad_wishes_are_refused() {
        assert!(refusal("age,x\n1,2\n", &[]).contains("the table has age, x"));
        assert!(refusal("age,x\n1,2\n", &["age", "age"]).contains("column `age` is asked for twice"));
        assert!(refusal(",x\n1,2\n", &[""]).contains("there is no column ``: the table has x"));
        assert!(read("age\n1\n", &["age"], Some(0)).unwrap_err().to_string().contains("--limit 1 or more"));
        let missing = read_table(Path::new("no-such.csv"), &["age".into()], None, Scale::default(), BOUND);
        assert!(missing.unwrap_err().to_string().starts_with("`no-such.csv`: cannot read the table"));
    }

    #[test]
    fn values_beyond_the_limit_are_not_looked_at() {
        assert_eq!(read("age\n1\nx\n", &["age"], Some(1)).unwrap().rows.len(), 1);
        assert!(read("age\n1\n2,3\n", &["age"], Some(1)).is_err());
    }

    /// Sums of the shipped tables, from a plain addition of their decimals by another program.
    #[test]
    fn shipped_tables_add_up() {
        for (file, scale, rows, sums) in [
            (
                "diabetes.csv",
                1_000_000,
                442,
                &[("age", "21445"), ("bp", "41833.98"), ("s5", "2051.5036"), ("target", "67243")][..],
            ),
            (
                "breast-cancer.csv",
                1_000_000,
                569,
                &[("mean_radius", "8038.429"), ("worst_area", "501051.8"), ("class", "357")],
            ),
            (
                "breast-cancer.csv",
                10_000_000,
                569,
                &[
                    ("mean_concavity", "50.5268107"),
                    ("concavity_error", "18.1475246"),
                    ("fractal_dimension_error", "2.1593003"),
                ],
            ),
        ] {
            let scale = Scale::new(scale).unwrap();
            let columns: Vec<String> = sums.iter().map(|(column, _)| (*column).into()).collect();
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file);
            let table = read_table(&path, &columns, None, scale, BOUND).unwrap();
            assert_eq!(table.rows.len(), rows);
            for (column, sum) in sums {
                let steps = table.rows.iter().map(|(_, record)| i128::from(steps(record, column)));
                assert_eq!(decimal::format(steps.sum(), scale), *sum, "{column}");
            }
        }
    }

    /// A record shows its values to a store alone, so this reads what would be stored.
    fn steps(record: &Record, column: &str) -> i64 {
        serde_json::to_value(record).unwrap()["columns"][column][0].as_i64().unwrap()
    }
}
