//! Values as a table in CSV: a header, then a patient per row. No error here repeats a value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use csv::StringRecord;
use protocol::decimal::DecimalError;
use protocol::{Column, Name, NameError, Record, RecordError, Scale, Schema};
use zeroize::Zeroizing;

use crate::input::{CellError, cell};

/// So many letters of a header stand in an error at most.
const SHOWN: usize = 2000;

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{}`{}: {wrong}", .file.display(), at(*.line))]
pub(crate) struct TableError {
    /// The file.
    file: PathBuf,
    /// The line, from 1; `None` where the whole file is meant.
    line: Option<u64>,
    /// Which rule it breaks.
    wrong: Broken,
}

fn at(line: Option<u64>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

/// The rule that a table breaks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
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

/// The chosen columns of a table, a patient per row.
#[derive(Debug)]
pub(crate) struct Table {
    /// The columns, in the order asked for.
    pub(crate) columns: Vec<Column>,
    /// The patients, `p001` for the first row, each with its record.
    pub(crate) rows: Vec<(Name, Record)>,
}

impl TableError {
    /// Whether a cell has more decimals than the scale holds.
    fn is_too_fine(&self) -> bool {
        matches!(self.wrong, Broken::Cell { cause: CellError::Decimal(DecimalError::TooFine { .. }), .. })
    }
}

/// Reads `columns` of the CSV file at `path`: a header, then a row per patient, of which the first `limit` are taken.
///
/// `bound` is the largest absolute value in units of 1 / `scale`. Rows beyond the limit must have all their cells, but
/// their values are not looked at. Patients are called by their row, with as many digits as the number of all rows
/// has and at least three, so another limit does not rename them.
///
/// # Errors
/// [`TableError`] names the file, the line, the column and the rule, never a value.
fn read_table(
    path: &Path,
    columns: &[String],
    limit: Option<usize>,
    scale: Scale,
    bound: u64,
) -> Result<Table, TableError> {
    let columns_wanted = columns.iter().map(|name| Column::scalar(name)).collect();
    let schema = Schema { columns: columns_wanted, scaled_bound: bound, scale };
    let failed = |(line, wrong)| TableError { file: path.into(), line, wrong };
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
) -> Result<(Table, Scale), TableError> {
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
type At<T> = Result<T, (Option<u64>, Broken)>;

fn read_text(path: &Path) -> At<Zeroizing<String>> {
    let bytes = Zeroizing::new(fs::read(path).map_err(|cause| (None, Broken::Read(cause)))?);
    let line = |end: usize| Some(1 + bytes[..end].iter().filter(|&&byte| byte == b'\n').count() as u64);
    let text = std::str::from_utf8(&bytes).map_err(|error| (line(error.valid_up_to()), Broken::Encoding))?;
    if let Some(nul) = text.find('\0') {
        return Err((line(nul), Broken::Nul));
    }
    Ok(Zeroizing::new(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()))
}

fn read_rows(text: &str, schema: &Schema, limit: Option<usize>) -> At<Vec<(Name, Record)>> {
    if text.trim().is_empty() {
        return Err((None, Broken::Empty));
    }
    // Flexible, because the library's own error for a ragged row counts lines from the row before.
    let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
    let mut lines = reader.records().map(|row| row.map_err(|error| (None, Broken::Read(error.into()))));
    let header = Header::read(lines.next().ok_or((None, Broken::Empty))??)?;
    let places = header.find(&schema.columns).map_err(|wrong| (Some(1), wrong))?;
    if limit == Some(0) {
        return Err((None, Broken::Limit));
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
        return Err((None, Broken::NoRows));
    }
    named(records, rows).map_err(|error| (None, Broken::Name(error)))
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
            Some(twice) => Err((Some(1), Broken::DuplicateHeader(shown(twice)))),
            None => Ok(Self(names)),
        }
    }

    /// Where the wanted columns stand.
    fn find(&self, wanted: &[Column]) -> Result<Vec<usize>, Broken> {
        if wanted.is_empty() {
            return Err(Broken::NoColumn(self.list()));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = wanted.iter().find(|column| !seen.insert(column.name.as_str())) {
            return Err(Broken::RepeatedColumn(twice.name.clone()));
        }
        wanted.iter().map(|column| self.place(&column.name)).collect()
    }

    fn place(&self, column: &str) -> Result<usize, Broken> {
        let found = self.0.iter().position(|name| name == column).filter(|_| !column.is_empty());
        found.ok_or_else(|| match &self.0[..] {
            [one] if one.contains(';') => Broken::Separator("semicolons"),
            [one] if one.contains('\t') => Broken::Separator("tabs"),
            _ => Broken::UnknownColumn { column: column.into(), columns: self.list() },
        })
    }

    fn check(&self, row: &StringRecord) -> Result<(), Broken> {
        let (found, expected) = (row.len(), self.0.len());
        if found == expected { Ok(()) } else { Err(Broken::Ragged { found, expected }) }
    }

    fn list(&self) -> String {
        shown(&self.0.iter().filter(|name| !name.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", "))
    }
}

/// What an error says of a header: of megabytes only the beginning.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}

fn record(row: &StringRecord, places: &[usize], schema: &Schema) -> Result<Record, Broken> {
    let mut columns = BTreeMap::new();
    for (column, place) in schema.columns.iter().zip(places) {
        let value = cell(row.get(*place).unwrap_or_default(), schema.scale);
        let value = value.map_err(|cause| Broken::Cell { column: column.name.clone(), cause })?;
        columns.insert(column.name.clone(), vec![value]);
    }
    Record::new(columns, schema).map_err(Broken::Record)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write;

    use protocol::decimal;

    use super::*;

    const BOUND: u64 = 1_000_000_000_000_000;

    fn schema(columns: &[&str]) -> Schema {
        let columns = columns.iter().map(|name| Column::scalar(name)).collect();
        Schema { columns, scaled_bound: BOUND, scale: Scale::default() }
    }

    fn expected(columns: &[(&str, i64)], schema: &Schema) -> Record {
        Record::new(columns.iter().map(|(name, value)| ((*name).into(), vec![*value])).collect(), schema).unwrap()
    }

    fn read(text: impl AsRef<[u8]>, columns: &[&str], limit: Option<usize>) -> Result<Table, TableError> {
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
    fn a_table_is_read() {
        let table = read("id,age,\"weight, kg\"\n1,40,80.5\n\n2,-1e1,\" 3\"\n3,1,2\n", &["weight, kg", "age"], Some(2))
            .unwrap();
        assert_eq!(table.columns, [Column::scalar("weight, kg"), Column::scalar("age")]);
        let schema = schema(&["weight, kg", "age"]);
        let names: Vec<_> = table.rows.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["p001", "p002"]);
        assert_eq!(table.rows[0].1, expected(&[("age", 40_000_000), ("weight, kg", 80_500_000)], &schema));
        assert_eq!(table.rows[1].1, expected(&[("age", -10_000_000), ("weight, kg", 3_000_000)], &schema));
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
