//! The story of README, with every party a process of its own, and what it promises about sessions, rounds and snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::{Home, Party};

/// A study by hand: broker, server, and these patients, all ready.
fn study(patients: &[(&str, &str)]) -> (Home, Vec<Party>) {
    let (home, broker) = Home::with_broker();
    let mut parties = vec![broker, home.server()];
    parties.extend(patients.iter().map(|(name, value)| home.patient(name, value)));
    (home, parties)
}

const THREE: [(&str, &str); 3] = [("alice", "100"), ("bob", "200"), ("charlie", "300")];

#[test]
fn the_story_of_readme() {
    let home = Home::new();
    // In any order: everybody waits for what is not there yet.
    let hospital = home.start("--json hospital sum --patients 3");
    let _alice = home.start("patient alice 100");
    let _charlie = home.start("patient charlie 300");
    let _server = home.start("server");
    let mut broker = home.start("broker");
    let _bob = home.start("patient bob 200");
    let first = hospital.ended();
    assert_eq!(first.sum(), "600");
    assert_eq!((first.round(), &first.json()["cohort"]), (1, &3.into()));

    let again = home.sum("");
    assert_eq!(again.sum(), "600");
    assert_eq!((again.session(), again.round()), (first.session(), 2), "the newest open session goes on");

    let connections = home.connections();
    assert!(connections.len() >= 4, "{connections:?}");
    let _dave = home.patient("dave", "5");
    broker.says("admitted dave");
    let refused = home.sum("--new");
    let why = refused.aborted("too_few_shared");
    let short = &first.session()[..8];
    for part in ["snapshot `1`", "alice, bob and charlie", short, "--session", "--snapshot"] {
        assert!(why.contains(part), "{part} is missing: {why}");
    }
    assert!(connections.is_subset(&home.connections()), "somebody lost the connection when dave was admitted");

    // A month later.
    for words in ["alice 110", "bob 190", "charlie 320", "dave 7"] {
        home.hand_over(&format!("{words} --snapshot 2"));
    }
    let later = home.sum("--snapshot 2");
    assert_eq!(later.sum(), "627");
    assert_eq!((later.session(), &later.json()["cohort"]), (refused.session(), &4.into()));

    let changed = home.run("patient alice 105");
    let why = changed.refused();
    assert!(why.contains("snapshot `1`") && why.contains("--snapshot") && !why.contains("105"), "{why}");
    home.hand_over("alice 100");

    let old = home.sum(&format!("--session {short}"));
    assert_eq!((old.sum().as_str(), old.session(), old.round()), ("600", first.session(), 3));
}

#[test]
fn several_rounds_and_the_last() {
    let (home, _parties) = study(&THREE);
    let rounds = home.sum("--rounds 3");
    let answers = rounds.all_json();
    assert_eq!(answers.iter().map(|answer| answer["round"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(answers.iter().all(|answer| answer["sum"][0] == 600), "{rounds:#?}");
    let last = home.sum("--last");
    assert_eq!((last.sum().as_str(), last.session()), ("600", rounds.session()));
    for words in ["alice 1", "bob 2", "charlie 3"] {
        home.hand_over(&format!("{words} --snapshot next"));
    }
    let next = home.sum("--snapshot next");
    assert_eq!(next.sum(), "6");
    assert_ne!(next.session(), last.session(), "the session was over");
    let gone = home.sum(&format!("--session {}", last.session()));
    assert!(gone.refused().contains("is not open"), "{gone:#?}");
}

#[test]
fn a_patient_that_serves_once_ends_with_its_result() {
    let (home, mut parties) = study(&THREE[..2]);
    let charlie = home.ready("patient charlie 300 --once");
    parties.push(home.patient("dave", "5"));
    assert_eq!(home.sum("").sum(), "605");
    let charlie = charlie.ended();
    assert_eq!(charlie.code, Some(0), "{charlie:#?}");
    assert!(charlie.stderr.contains("opened over 4 patients, with charlie"), "{charlie:#?}");
}

#[test]
fn decimals_and_negative_values_add_up_exactly() {
    let (home, mut parties) = study(&[("alice", "0.1"), ("bob", "0.2"), ("charlie", "-1000000000")]);
    parties.push(home.patient("dave", "999999999.999999"));
    parties.push(home.patient("erin", "-0.000001"));
    assert_eq!(home.sum("").sum(), "0.299998");
    let negative = Home::new().run("--json up a=-1.5 b=-2.25 c=1");
    assert_eq!(negative.sum(), "-2.75");
}

#[test]
fn who_is_started_again_takes_part_again() {
    let (home, mut parties) = study(&THREE);
    let first = home.sum("");
    let alice = parties.remove(2);
    assert_eq!(alice.stop().code, Some(0));
    // It has its values of old.
    parties.push(home.ready("patient alice"));
    let second = home.sum("");
    assert_eq!((second.sum().as_str(), second.session(), second.round()), ("600", first.session(), 2));

    let server = parties.remove(1);
    server.kill();
    parties.push(home.server());
    let third = home.sum("");
    assert_eq!((third.sum().as_str(), third.session(), third.round()), ("600", first.session(), 3));
}

#[test]
fn a_broker_that_is_started_again_finds_everybody_again() {
    let (home, mut parties) = study(&THREE);
    let first = home.sum("");
    assert_eq!(parties.remove(0).stop().code, Some(0));
    parties.push(home.broker());
    let second = home.sum("");
    assert_eq!((second.sum().as_str(), second.session(), second.round()), ("600", first.session(), 2));
}

/// A broker that lost all that it had: each party writes again what it wrote, and the session goes on.
#[test]
fn a_broker_that_lost_its_board_gets_it_again() {
    let (home, mut parties) = study(&THREE);
    let first = home.sum("");
    assert_eq!(parties.remove(0).stop().code, Some(0));
    std::fs::remove_dir_all(home.path().join("broker").join("jetstream")).unwrap();
    parties.push(home.broker());
    let second = home.sum("");
    assert_eq!((second.sum().as_str(), second.session(), second.round()), ("600", first.session(), 2));
}

/// Several servers share the work, and a session says which; the answer is the same.
#[test]
fn several_servers_give_the_same_answer() {
    let home = Home::new();
    let up = home.run("up --servers 3 --json");
    home.nothing_runs();
    assert_eq!((up.json()["sum"].to_string().as_str(), &up.json()["cohort"]), ("[600]", &serde_json::json!(3)));
    let (home, mut parties) = study(&THREE);
    parties.push(home.ready("server --name server-2"));
    assert_eq!(home.sum("--server server --server server-2").sum(), "600");
}

#[test]
fn up_answers_six_hundred_with_these_fields_and_no_others() {
    let home = Home::new();
    let up = home.run("up --json");
    home.nothing_runs();
    let answer = up.json();
    let keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "outcome",
        "session",
        "round",
        "fields",
        "sum",
        "cohort",
        "invited",
        "committee",
        "threshold",
        "quorum",
        "confirmations",
        "cohort_root",
        "checked",
        "elapsed_ms",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let fixed = serde_json::json!({
        "outcome": "opened", "round": 1, "fields": ["value"], "sum": [600], "cohort": 3, "invited": 3, "committee": 3,
        "threshold": 1, "quorum": 3, "confirmations": 3,
        "checked": { "chunks": 1, "masked_sum": 1, "mask_sums": 1, "caught": [] },
    });
    for (key, value) in fixed.as_object().unwrap() {
        assert_eq!(&answer[key], value, "{key}");
    }
    assert!(up.stderr.contains("all 3 members are needed"), "{up:#?}");
    // The same home again: a fresh label, and the answer for people.
    let again = home.run("up alice=1 bob=2 charlie=3");
    home.nothing_runs();
    assert_eq!(again.code, Some(0), "{again:#?}");
    assert!(again.stdout.starts_with("value  6\n") && again.stdout.contains("receipt: 3 of 3"), "{again:#?}");
}

#[test]
fn watch_sees_a_round_and_sizes_only() {
    let (home, _parties) = study(&[("alice", "271828.182845"), ("bob", "2"), ("charlie", "3")]);
    let mut watch = home.start("--json watch");
    let asked = home.sum("");
    assert_eq!(asked.sum(), "271833.182845");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|line: &serde_json::Value| line["kind"] != "result") {
        seen.push(serde_json::from_str(&watch.prints("")).unwrap());
    }
    for line in &seen {
        let mut keys: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["from", "kind", "round", "session", "size", "time", "to"]);
        assert_eq!(line["session"], asked.session().as_str());
        assert!(line["size"].as_u64().unwrap() > 0);
        assert!(!line.to_string().contains("271828"), "{line}");
    }
    let kinds: Vec<&str> = seen.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    for kind in
        ["announce", "join", "roster", "begin", "share", "held", "cohort", "confirm", "open", "masksum", "result"]
    {
        let kind_of = |seen: &&str| seen.replace(['-', '_'], "") == kind;
        assert!(kinds.iter().any(kind_of), "no {kind} in {kinds:?}");
    }
    assert_eq!(kinds[0], "announce");
}

/// A result says what was checked of its sums, and `--audit` how much is.
#[test]
fn a_result_says_what_was_checked() {
    for (audit, checked) in [
        ("full", serde_json::json!({ "chunks": 1, "masked_sum": 1, "mask_sums": 1, "caught": [] })),
        ("none", serde_json::json!({ "chunks": 1, "masked_sum": 0, "mask_sums": null, "caught": [] })),
    ] {
        let home = Home::new();
        let up = home.run_of(&["--json", "up", "--audit", audit, "alice=1", "bob=2", "charlie=3"]);
        assert_eq!(up.sums(), ["6"]);
        assert_eq!(up.json()["checked"], checked);
    }
}

/// The sum of a column's first `rows`, by plain addition of billionths.
fn plain_sum(csv: &str, column: &str, rows: usize) -> String {
    let mut lines = csv.lines();
    let place = lines.next().unwrap().split(',').position(|name| name == column).unwrap();
    let cell = |line: &str| line.split(',').nth(place).unwrap().to_owned();
    written(lines.take(rows).map(|line| billionths(&cell(line))).sum())
}

fn billionths(decimal: &str) -> i128 {
    let (sign, digits) = decimal.strip_prefix('-').map_or((1, decimal), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    sign * format!("{whole}{fraction:0<9}").parse::<i128>().unwrap()
}

fn written(billionths: i128) -> String {
    let sign = if billionths < 0 { "-" } else { "" };
    let digits = format!("{:010}", billionths.unsigned_abs());
    let (whole, fraction) = digits.split_at(digits.len() - 9);
    format!("{sign}{whole}.{fraction}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `ward up` over a table of `agents/data` must print what plain addition gives.
fn table(file: &str, columns: &[&str], rows: usize, more: &[&str]) {
    let path = format!("{}/data/{file}", env!("CARGO_MANIFEST_DIR"));
    let csv = std::fs::read_to_string(&path).unwrap();
    let mut arguments = vec!["--json", "up", "--csv", &path];
    columns.iter().for_each(|column| arguments.extend(["--column", column]));
    arguments.extend(more);
    let home = Home::new();
    let up = home.run_of(&arguments);
    home.nothing_runs();
    let expected: Vec<String> = columns.iter().map(|column| plain_sum(&csv, column, rows)).collect();
    assert_eq!(up.sums(), expected);
    let answer = up.json();
    assert_eq!(answer["fields"], serde_json::json!(columns));
    assert_eq!((&answer["cohort"], &answer["invited"]), (&rows.into(), &rows.into()));
}

#[test]
fn plain_addition_is_right() {
    let sum = |cells: [&str; 3]| written(cells.into_iter().map(billionths).sum());
    assert_eq!(sum(["0.1", "0.2", "3"]), "3.3");
    assert_eq!(sum(["-0.5", "0.25", "0"]), "-0.25");
    assert_eq!(sum(["10", "20.0", "70"]), "100");
}

#[test]
fn all_patients_and_measurements_of_the_breast_cancer_table() {
    let path = format!("{}/data/breast-cancer.csv", env!("CARGO_MANIFEST_DIR"));
    let csv = std::fs::read_to_string(path).unwrap();
    let header = csv.lines().next().unwrap();
    let columns: Vec<&str> = header.split(',').filter(|column| *column != "class").collect();
    assert_eq!((columns.len(), csv.lines().count()), (30, 570));
    table("breast-cancer.csv", &columns, 569, &[]);
}

#[test]
fn the_first_rows_of_the_diabetes_table() {
    table("diabetes.csv", &["bmi", "s5", "target"], 20, &["--limit", "20"]);
}
