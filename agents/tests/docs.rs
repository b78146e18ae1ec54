//! What the documents name exists.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// `file::test` for every test of every test file.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["protocol/tests", "nats/tests", "certs/tests", "agents/tests"] {
        for entry in fs::read_dir(workspace().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
            let is_test = |line: &&str| *line == "#[test]" || line.starts_with("#[tokio::test");
            for (at, _) in lines.iter().enumerate().filter(|(_, line)| is_test(line)) {
                let function = lines[at..].iter().find(|line| !line.starts_with("#[")).unwrap();
                let rest = function.strip_prefix("async fn ").or_else(|| function.strip_prefix("fn ")).unwrap();
                found.insert(format!("{file}::{}", rest.split('(').next().unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_test_that_security_names_exists() {
    let tests = tests();
    let security = fs::read_to_string(workspace().join("SECURITY.md")).unwrap();
    let named: Vec<&str> = security.split('`').skip(1).step_by(2).filter(|word| is_test_name(word)).collect();
    assert!(named.len() > 50, "SECURITY.md names {} tests", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:?}");
}

/// What the simulator does not see, another test does.
#[test]
fn every_test_of_a_survivor_exists() {
    let text = fs::read_to_string(workspace().join(".cargo/survivors.toml")).unwrap();
    let known: toml::Table = toml::from_str(&text).unwrap();
    let survivors = known["survivors"].as_array().unwrap();
    let named: Vec<&str> = survivors.iter().filter_map(|known| known.get("test")?.as_str()).collect();
    assert!(named.len() > 5, "{named:?}");
    for (path, test) in named.iter().map(|name| name.split_once("::").unwrap()) {
        let text = fs::read_to_string(workspace().join(path)).unwrap();
        assert!(text.contains(&format!("fn {test}(")), "{path} has no {test}");
    }
}

/// Where a promise is proven beside the code, there are tests.
#[test]
fn every_file_of_unit_tests_that_security_names_has_some() {
    let security = fs::read_to_string(workspace().join("SECURITY.md")).unwrap();
    let named: Vec<&str> =
        security.split("unit tests of `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(named.len() > 5, "{named:?}");
    for path in named {
        let text = fs::read_to_string(workspace().join(path));
        assert!(text.is_ok_and(|text| text.contains("#[test]")), "{path} has no tests");
    }
}

fn is_test_name(word: &str) -> bool {
    let Some((file, test)) = word.split_once("::") else { return false };
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    plain(file) && plain(test) && (file, test) != ("file", "test") && test != "tests"
}

/// The table of messages in PROTOCOL.md has a row for each kind that a subject may name, and no other.
#[test]
fn the_specification_names_every_kind_of_message() {
    let text = fs::read_to_string(workspace().join("protocol/PROTOCOL.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let named: BTreeSet<String> = rows.filter(|row| *row != "kind").map(str::to_lowercase).collect();
    let kinds: BTreeSet<String> = protocol::Kind::ALL.iter().map(|kind| kind.to_string()).collect();
    assert_eq!(named, kinds);
}
