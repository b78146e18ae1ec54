//! Bad tables, profiles and offers: committed corpora, each file called after what is wrong with it, and mutations of them;
//! `just fuzz table` goes on with these. A table is CSV: Ward reads no npy, Parquet or safetensors, so these have no corpus.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use certs::Study;
use protocol::memory::Network;
use protocol::{Column, Policy, Role, Scale, Schema};

use crate::offers::{self, Offer};
use crate::profile::{PROFILE_FILE, Profile};
use crate::table::read_table_exactly;

#[path = "../../protocol/tests/support/corpus.rs"]
mod corpus;

use corpus::Corpus;

fn pelt(target: &str, made: Corpus, run: impl Fn(&Path, &[u8]) -> bool) {
    corpus::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target), &made);
    let home = tempfile::tempdir().unwrap();
    // Files are written, and synced: one mutation in four.
    corpus::pelt(&made, 4, |name, bytes| {
        let run = std::panic::AssertUnwindSafe(|| run(home.path(), bytes));
        let taken = std::panic::catch_unwind(run);
        let taken = taken.unwrap_or_else(|_| panic!("{name}: {:?}", String::from_utf8_lossy(bytes)));
        assert!(name.starts_with("mutation") || taken == name.starts_with("good"), "{name}");
    });
}

fn named(texts: &[(&str, &str)]) -> Corpus {
    texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

/// Reads column `age` of a table; read again it says the same.
fn table(home: &Path, bytes: &[u8]) -> bool {
    let path = home.join("table.csv");
    std::fs::write(&path, bytes).unwrap();
    let read = |scale| read_table_exactly(&path, &["age".to_owned()], None, scale, 1_000_000_000);
    let (once, scale) = match read(None) {
        Ok(read) => read,
        Err(error) => return error.to_string().is_empty(),
    };
    assert!(!once.rows.is_empty() && once.rows == read(None).unwrap().0.rows);
    // With the scale that was found nothing is finer than it.
    read(Some(scale)).is_ok_and(|(again, _)| again.rows == once.rows)
}

fn tables() -> Corpus {
    let digits = format!("age,x\n{},2\n", "9".repeat(400));
    let cell = format!("age,x\n1,{}\n2\n", "x".repeat(4000));
    let header = format!("{}age\n1\n", "x,".repeat(500));
    let mut corpus = named(&[
        ("good-table", "age,x\n40,1\n41,2\n"),
        ("good-mark-and-windows-lines", "\u{feff}age,x\r\n40,a\r\n41,b"),
        ("good-quotes", "\"age\",x\n\" 40\",\"a,\nb\"\n"),
        ("good-nine-decimals", "age\n0.123456789\n"),
        ("good-exponent", "age\n1e1\n-2.5E-1\n"),
        ("good-one-row", "age\n1\n"),
        ("good-formula-in-another-column", "age,x\n1,=cmd|'/c calc'!A0\n"),
        ("nothing", ""),
        ("blanks", " \n\t\n"),
        ("mark-alone", "\u{feff}"),
        ("header-alone", "age,x\n"),
        ("no-such-column", "a,x\n1,2\n"),
        ("column-with-a-capital", "Age,x\n1,2\n"),
        ("column-twice", "age,x,age\n1,2,3\n"),
        ("another-column-twice", "age,x,x\n1,2,3\n"),
        ("semicolons", "age;x\n1;2\n"),
        ("tabs", "age\tx\n1\t2\n"),
        ("row-too-short", "age,x\n1,2\n3\n"),
        ("row-too-long", "age,x\n1,2\n3,4,5\n"),
        ("row-too-long-behind-blank-lines", "age,x\n1,2\n\n\r\n3,4,5\n"),
        ("row-with-a-comma-at-its-end", "age,x\n1,2,\n"),
        ("cell-empty", "age,x\n,2\n"),
        ("cell-of-blanks", "age,x\n  ,2\n"),
        ("cell-of-empty-quotes", "age,x\n\"\",2\n"),
        ("cell-of-letters", "age,x\nabc,2\n"),
        ("cell-of-na", "age,x\nNA,2\n"),
        ("cell-of-null", "age,x\nnull,2\n"),
        ("cell-of-true", "age,x\ntrue,2\n"),
        ("cell-of-a-date", "age,x\n2026-11-23,2\n"),
        ("cell-of-a-formula", "age,x\n=1+1,2\n"),
        ("cell-of-hexadecimal", "age,x\n0x10,2\n"),
        ("not-a-number", "age,x\nNaN,2\n"),
        ("infinity", "age,x\ninf,2\n"),
        ("minus-infinity", "age,x\n-Infinity,2\n"),
        ("decimal-comma", "age,x\n\"1,5\",2\n"),
        ("thousands", "age,x\n\"1,000\",2\n"),
        ("thousands-by-blanks", "age,x\n1 000,2\n"),
        ("two-dots", "age,x\n1.2.3,2\n"),
        ("two-signs", "age,x\n--1,2\n"),
        ("a-unit", "age,x\n40 years,2\n"),
        ("a-percentage", "age,x\n40%,2\n"),
        ("digits-of-another-script", "age,x\n\u{661},2\n"),
        ("minus-of-typography", "age,x\n\u{2212}1,2\n"),
        ("ten-decimals", "age,x\n0.0123456789,2\n"),
        ("beyond-the-bound", "age,x\n1000000001,2\n"),
        ("beyond-the-bound-below", "age,x\n-1000000000.000001,2\n"),
        ("exponent-without-end", "age,x\n1e9999999999,2\n"),
        ("exponent-without-digits", "age,x\n1e,2\n"),
        ("more-than-64-bits", "age,x\n18446744073709551616,2\n"),
        ("400-digits", &digits),
        ("quote-never-closed", "age,x\n\"1,2\n3,4\n"),
        ("quote-in-the-header-never-closed", "\"age,x\n1,2\n"),
        ("quote-inside-a-cell", "age,x\n1\"0,2\n"),
        ("nul", "age,x\n1\0,2\n"),
        ("nul-alone", "\0"),
        ("old-lines-of-a-row", "age,x\n1,2\r3\r"),
        ("long-cell-and-a-short-row", &cell),
        ("many-columns-and-a-short-row", &header),
        ("a-second-table-below", "age,x\n1,2\nage,x\n3,4\n"),
        ("page-of-the-web", "<!DOCTYPE html>\n<html></html>\n"),
        ("json", "{\"age\": 1}\n"),
        ("workbook", "PK\u{3}\u{4}\u{14}"),
    ]);
    corpus.insert("not-utf-8".into(), b"age\n1\n\xff\xfe\n".to_vec());
    corpus.insert("utf-16".into(), "age\n1\n".encode_utf16().flat_map(u16::to_le_bytes).collect());
    corpus.insert("latin-1".into(), b"age,gr\xf6\xdfe\n1,2\n".to_vec());
    corpus
}

#[test]
fn bad_tables_are_refused() {
    pelt("table", tables(), table);
}

/// Reads a profile; written and read again it is the same.
fn profile(home: &Path, bytes: &[u8]) -> bool {
    std::fs::write(home.join(PROFILE_FILE), bytes).unwrap();
    let Ok(once) = Profile::load_or_default(home, &Study::default()) else { return false };
    assert!(Scale::new(once.schema.scale.get()).is_ok());
    once.save(home).unwrap();
    assert_eq!(Profile::load_or_default(home, &Study::default()).unwrap(), once);
    true
}

fn profiles() -> Corpus {
    let nested = format!("[schema]\ncolumns = {}\n", "[".repeat(300));
    let long = format!("[policy]\nhospitals = [\"{}\"]\n", "a".repeat(300));
    let mut corpus = named(&[
        ("good-empty", ""),
        ("good-comment", "# nothing\n"),
        ("good-schema", "[schema]\ncolumns = [{ name = \"age\", width = 2 }]\nbound = 10\nscale = 100\n"),
        ("good-policy", "[policy]\nmin_cohort = 5\ncommittee = 4\nthreshold = 1\nhospitals = [\"charite\"]\n"),
        ("unknown-table", "[schemas]\n"),
        ("unknown-key", "[schema]\ncolour = 1\n"),
        ("unknown-key-of-the-policy", "[policy]\nk = 3\n"),
        ("table-twice", "[schema]\nscale = 1\n[schema]\nscale = 1\n"),
        ("key-twice", "[schema]\nscale = 1\nscale = 10\n"),
        ("text-for-a-number", "[schema]\nscale = \"ten\"\n"),
        ("list-for-a-table", "schema = []\n"),
        ("no-columns", "[schema]\ncolumns = []\n"),
        ("column-without-a-name", "[schema]\ncolumns = [{ width = 1 }]\n"),
        ("column-of-no-name", "[schema]\ncolumns = [{ name = \"\" }]\n"),
        ("column-of-no-width", "[schema]\ncolumns = [{ name = \"age\", width = 0 }]\n"),
        ("column-of-a-negative-width", "[schema]\ncolumns = [{ name = \"age\", width = -1 }]\n"),
        ("column-of-4-gib", "[schema]\ncolumns = [{ name = \"age\", width = 4294967296 }]\n"),
        ("column-twice", "[schema]\ncolumns = [{ name = \"age\" }, { name = \"age\" }]\n"),
        ("column-with-an-unknown-key", "[schema]\ncolumns = [{ name = \"age\", unit = \"y\" }]\n"),
        ("scale-of-zero", "[schema]\nscale = 0\n"),
        ("scale-of-seven", "[schema]\nscale = 7\n"),
        ("scale-too-fine", "[schema]\nscale = 10000000000\n"),
        ("scale-negative", "[schema]\nscale = -10\n"),
        ("scale-of-a-float", "[schema]\nscale = 1e6\n"),
        ("bound-of-letters", "[schema]\nbound = \"large\"\n"),
        ("bound-of-infinity", "[schema]\nbound = inf\n"),
        ("bound-that-is-not-a-number", "[schema]\nbound = nan\n"),
        ("bound-negative", "[schema]\nbound = -1\n"),
        ("bound-of-zero", "[schema]\nbound = 0\n"),
        ("bound-beyond-64-bits", "[schema]\nbound = \"99999999999999999999\"\n"),
        ("bound-finer-than-the-scale", "[schema]\nbound = \"0.5\"\nscale = 1\n"),
        ("cohort-of-one", "[policy]\nmin_cohort = 1\n"),
        ("cohort-negative", "[policy]\nmin_cohort = -3\n"),
        ("committee-of-one", "[policy]\ncommittee = 1\n"),
        ("committee-of-eleven", "[policy]\ncommittee = 11\n"),
        ("committee-of-256", "[policy]\ncommittee = 256\n"),
        ("threshold-of-none", "[policy]\nthreshold = 0\n"),
        ("threshold-of-all", "[policy]\ncommittee = 3\nthreshold = 10\n"),
        ("hospitals-of-a-word", "[policy]\nhospitals = \"everybody\"\n"),
        ("hospitals-with-a-capital", "[policy]\nhospitals = [\"Charite\"]\n"),
        ("hospitals-of-a-long-name", &long),
        ("members-of-numbers", "[policy]\nmembers = [1, 2]\n"),
        ("columns-that-the-schema-lacks", "[policy]\ncolumns = [\"no-such\"]\n"),
        ("line-without-a-value", "[schema]\nscale =\n"),
        ("text-never-closed", "[policy]\nhospitals = \"any\n"),
        ("table-never-closed", "[schema\n"),
        ("list-nested-300-deep", &nested),
        ("nul", "[schema]\0\n"),
        ("json", "{\"schema\": {}}\n"),
        ("csv", "age,x\n1,2\n"),
    ]);
    corpus.insert("not-utf-8".into(), b"[schema]\n# \xff\xfe\n".to_vec());
    corpus
}

#[test]
fn bad_profiles_are_refused() {
    pelt("profile", profiles(), profile);
}

/// Under which schema an offer of the corpus is one.
fn schema() -> Schema {
    Schema { columns: vec![Column::scalar("age")], scaled_bound: 1_000_000_000, scale: Scale::default() }
}

/// Reads what lies in a patient's folder, and hands it to the patient; an offer that was read is the same when it is written.
fn offer(home: &Path, bytes: &[u8]) -> bool {
    let folder = home.join("offers");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("1.offer"), bytes).unwrap();
    let mut found = offers::waiting(home).unwrap();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "an offer is looked at once");
    let Some((file, offer)) = found.pop() else { return false };
    assert_eq!(file, folder.join("1.answer"));
    let written = rmp_serde::to_vec(&offer).unwrap();
    let again: Offer = rmp_serde::from_slice(&written).unwrap();
    assert_eq!(rmp_serde::to_vec(&again).unwrap(), written);
    let mut study = Network::new(1);
    let alice = crate::fixtures::name("alice");
    study.add_patient(&alice, Role::Patient, Policy::open("ward", 2), schema());
    study.offer(&alice, &offer.snapshot, offer.record).is_ok()
}

fn offers() -> Corpus {
    let offer = |label: &str, scale: u64, columns: &[(&str, &[i64])]| {
        let columns: BTreeMap<&str, &[i64]> = columns.iter().copied().collect();
        rmp_serde::to_vec(&(label, (scale, columns))).unwrap()
    };
    let whole = offer("2026-11", 1_000_000, &[("age", &[40_000_000])]);
    let labelled = |label: &str| offer(label, 1_000_000, &[("age", &[1])]);
    // In the place of the column's one number, which is the last thing in it.
    let behind = |bytes: &[u8]| [&whole[..whole.len() - 6], bytes].concat();
    assert_eq!(whole, behind(&[0x91, 0xce, 0x02, 0x62, 0x5a, 0x00]));
    let corpus: [(&str, Vec<u8>); 29] = [
        ("good-offer", whole.clone()),
        ("good-smallest-number", offer("1", 1_000_000, &[("age", &[-1_000_000_000])])),
        ("nothing", vec![]),
        ("junk", b"junk".to_vec()),
        ("cut-in-half", whole[..whole.len() / 2].to_vec()),
        ("cut-before-its-last-byte", whole[..whole.len() - 1].to_vec()),
        ("an-array-of-4-gib", vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
        ("nested-300-deep", vec![0x91; 300]),
        ("a-record-alone", whole[9..].to_vec()),
        ("label-empty", labelled("")),
        ("label-of-a-folder-above", labelled("../../labels")),
        ("label-of-300-letters", labelled(&"a".repeat(300))),
        ("label-of-two-lines", labelled("1\n2")),
        ("scale-of-zero", offer("1", 0, &[("age", &[1])])),
        ("scale-of-seven", offer("1", 7, &[("age", &[1])])),
        ("scale-of-another-schema", offer("1", 1, &[("age", &[1])])),
        ("no-columns", offer("1", 1_000_000, &[])),
        ("another-column", offer("1", 1_000_000, &[("weight", &[1])])),
        ("a-column-too-many", offer("1", 1_000_000, &[("age", &[1]), ("weight", &[1])])),
        ("column-without-numbers", offer("1", 1_000_000, &[("age", &[])])),
        ("column-of-two-numbers", offer("1", 1_000_000, &[("age", &[1, 2])])),
        ("beyond-the-bound", offer("1", 1_000_000, &[("age", &[1_000_000_001])])),
        ("beyond-the-bound-below", offer("1", 1_000_000, &[("age", &[i64::MIN])])),
        ("numbers-of-4-gib", behind(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0x01])),
        ("number-beyond-63-bits", behind(&[0x91, 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ("number-that-is-none", behind(&[0x91, 0xca, 0x7f, 0xc0, 0, 0])),
        ("number-of-text", behind(&[0x91, 0xa2, b'4', b'0'])),
        ("number-of-nil", behind(&[0x91, 0xc0])),
        ("good-numbers-as-bytes", behind(&[0xc4, 0x01, 0x28])),
    ];
    corpus.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

#[test]
fn bad_offers_are_refused() {
    pelt("offer", offers(), offer);
}

/// One cell of 10 MB, wherever it stands: to read the table takes a few times its size in memory, and what is wrong with
/// it is said in few words.
#[test]
fn a_cell_of_ten_megabytes_takes_little_and_is_not_repeated() {
    const SIZE: usize = 10 << 20;
    const TIMES: u64 = 10;
    let cell = |of: &str| of.repeat(SIZE / of.len());
    let (letters, digits) = (cell("x"), cell("9"));
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("table.csv");
    for (text, wrong) in [
        (format!("age,x\n1,{letters}\n"), None),
        (format!("age,{letters}\n1,2\n"), None),
        (format!("age,x\n1,\"{}\"\n", cell("a,\nb")), None),
        (format!("age,x\n{letters},2\n"), Some("line 2: column `age`: the value is no decimal number")),
        (format!("age,x\n{digits},2\n"), Some("line 2: column `age`: the value is too large")),
        (format!("age,x\n0.{digits},2\n"), Some("line 2: column `age`: the value has more than nine decimals")),
        (format!("age,x\n1e{digits},2\n"), Some("line 2: column `age`: the value is too large")),
        (format!("age,x\n\"{}\",2\n", cell("0,")), Some("line 2: column `age`: the value has a comma")),
        (format!("age,x\n1,2\n{letters}\n"), Some("line 3: the row has 1 cells and the header has 2")),
        (format!("age,x\n\"{letters}\n1,2\n"), Some("line 2: the row has 1 cells and the header has 2")),
        (format!("age,x\n{letters}\0,2\n"), Some("line 2: a NUL byte")),
        (format!("{letters},x\n1,2\n"), Some("line 1: there is no column `age`: the table has xx")),
        (format!("{letters},{letters}\n1,2\n"), Some("line 1: the header has column `xx")),
    ] {
        std::fs::write(&path, &text).unwrap();
        let mut read = None;
        let took = allocation_counter::measure(|| {
            read = Some(read_table_exactly(&path, &["age".to_owned()], None, None, 1_000_000_000));
        });
        let begins = text.get(..20).unwrap_or_default();
        assert!(took.bytes_max < TIMES * text.len() as u64, "{begins}: {} bytes took {}", text.len(), took.bytes_max);
        match (read.unwrap(), wrong) {
            (Ok((table, _)), None) => assert_eq!(table.rows.len(), 1, "{begins}"),
            (Err(error), Some(wrong)) => {
                let error = error.to_string();
                assert!(error.contains(wrong) && error.len() < 4096, "{begins}: {error:.300}");
            }
            (read, _) => panic!("{begins}: {:.300}", format!("{:?}", read.map(|_| ()))),
        }
    }
}
