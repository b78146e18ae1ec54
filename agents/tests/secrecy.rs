//! What stays with its owner: values, seeds and keys, through whole rounds of real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use protocol::Kind;
use support::{Capture, Home, Party, Played, Study, files, records};

const CANARIES: [(&str, &str); 3] =
    [("alice", "720394158.586213"), ("bob", "835019726.264831"), ("charlie", "691742093.935178")];

/// Bytes that must not be found where they do not belong.
struct Needle {
    what: String,
    bytes: Vec<u8>,
    /// Below these folders it may stand.
    home: Vec<PathBuf>,
}

impl Needle {
    fn is_in(&self, hay: &[u8]) -> bool {
        let (first, rest) = (self.bytes[0], &self.bytes[1..]);
        hay.iter().enumerate().any(|(at, byte)| *byte == first && hay[at + 1..].starts_with(rest))
    }
}

/// All the ways in which a program may write `value`.
fn value_needles(owner: &str, value: &str, home: &[PathBuf]) -> Vec<Needle> {
    let scaled: u64 = value.replace('.', "").parse().unwrap();
    let float: f64 = value.parse().unwrap();
    let bytes = scaled.to_be_bytes();
    let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
    let mut little = significant.to_vec();
    little.reverse();
    let forms: [(&str, Vec<u8>); 10] = [
        ("as written", value.into()),
        ("before the point", value.split_once('.').unwrap().0.into()),
        ("scaled", scaled.to_string().into()),
        ("in hex", format!("{scaled:x}").into()),
        ("in capital hex", format!("{scaled:X}").into()),
        ("in little-endian hex", hex::encode(&little).into()),
        ("in MessagePack, or big-endian", significant.into()),
        ("little-endian", little),
        ("as a float", float.to_be_bytes().into()),
        ("as a little-endian float", float.to_le_bytes().into()),
    ];
    let needle = |(form, bytes)| Needle { what: format!("{owner}'s value {form}"), bytes, home: home.into() };
    forms.map(needle).into()
}

/// A secret of 32 bytes, raw and in hex.
fn key_needles(what: &str, key: &[u8], home: &[PathBuf]) -> Vec<Needle> {
    assert_eq!(key.len(), 32, "{what}");
    let mut list = String::new();
    key.iter().take(8).for_each(|byte| list += &format!("{byte}, "));
    [key.to_vec(), hex::encode(key).into(), hex::encode_upper(key).into(), list.into()]
        .map(|bytes| Needle { what: what.into(), bytes, home: home.into() })
        .into()
}

/// The byte strings of 32 bytes in a MessagePack text.
fn strings_of_32(text: &[u8]) -> Vec<&[u8]> {
    text.windows(34).filter(|window| window.starts_with(&[0xc4, 32])).map(|window| &window[2..]).collect()
}

/// The secrets that a patient's store holds in the middle of a round.
fn patient_needles(owner: &str, records: &BTreeMap<String, Vec<u8>>, study: &Study) -> Vec<Needle> {
    let own = [study.home.party_dir(owner)];
    let of = |what: &str| records.iter().find(|(key, _)| key.ends_with(what)).unwrap_or_else(|| panic!("no {what}")).1;
    let (randomness, round, seal) = (of("/randomness"), of("/round"), of("/seal"));
    let mut needles = key_needles(&format!("{owner}'s session randomness"), randomness, &own);
    needles.extend(key_needles(&format!("{owner}'s root"), strings_of_32(round)[0], &own));
    needles.extend(key_needles(&format!("{owner}'s seal key"), seal, &own));
    needles.extend(key_needles(&format!("{owner}'s snapshot secret"), strings_of_32(of("values/1"))[0], &own));
    // Both ends of a chain have it.
    let chains = strings_of_32(of("/chains"));
    assert!(chains.len() >= 3, "{owner} has {} chains", chains.len());
    for chain in chains {
        needles.extend(key_needles(&format!("a chain of {owner}'s"), chain, &[study.home.path().join("parties")]));
    }
    needles
}

/// Every party's private key: as it signs, and as its file has it.
fn file_key_needles(study: &Study, parties: &[&str]) -> Vec<Needle> {
    let mut needles = Vec::new();
    for party in parties {
        let own = [study.home.party_dir(party)];
        let what = format!("the private key of {party}");
        needles.extend(key_needles(&what, &study.home.credentials(party).signing_key().to_bytes(), &own));
        let pem = fs::read_to_string(own[0].join("key.pem")).unwrap();
        // The last line alone: what stands before it is the same in every key.
        let line = pem.lines().rfind(|line| !line.starts_with('-') && line.len() > 20).unwrap();
        let tail = line.as_bytes()[line.len() - 20..].to_vec();
        needles.push(Needle { what, bytes: tail, home: own.into() });
    }
    needles
}

/// The records of a party that runs.
fn store_copy(study: &Study, name: &str, party: &Party) -> BTreeMap<String, Vec<u8>> {
    let copy = study.home.file("copy.redb");
    party.while_stopped(|| fs::copy(study.home.party_dir(name).join("state.redb"), &copy)).unwrap();
    let records = records(&copy, name);
    fs::remove_file(&copy).unwrap();
    records
}

fn search_files(home: &Home, needles: &[Needle], found: &mut Vec<String>) {
    for path in files(&home.path()) {
        // A broker that is at work replaces files; its program is nobody's data.
        let Ok(hay) = fs::read(&path) else { continue };
        let misplaced = needles.iter().filter(|needle| !needle.home.iter().any(|dir| path.starts_with(dir)));
        found.extend(misplaced.filter(|n| n.is_in(&hay)).map(|n| format!("{} in {}", n.what, path.display())));
    }
}

/// Checks the search itself: each secret is found where it belongs, and the board is among what is searched.
fn searching_finds(study: &Study, needles: &[Needle]) {
    let all: Vec<(PathBuf, Vec<u8>)> =
        files(&study.home.path()).into_iter().filter_map(|path| fs::read(&path).ok().map(|hay| (path, hay))).collect();
    for what in
        ["'s value in MessagePack", "session randomness", "root", "seal key", "snapshot secret", "chain", "key of"]
    {
        let some = needles.iter().filter(|needle| needle.what.contains(what));
        let found = |needle: &Needle| {
            all.iter().any(|(path, hay)| needle.home.iter().any(|home| path.starts_with(home)) && needle.is_in(hay))
        };
        assert!(some.into_iter().any(found), "no {what} anywhere");
    }
    let board = study.home.path().join("broker/jetstream");
    let share = Needle { what: "a Share".into(), bytes: b".alice.server.share.".into(), home: Vec::new() };
    assert!(all.iter().any(|(path, hay)| path.starts_with(&board) && share.is_in(hay)), "the board was not searched");
}

fn search_capture(capture: &Capture, needles: &[Needle], found: &mut Vec<String>) {
    for message in &capture.seen {
        let headers = format!("{:?}", message.headers);
        for (part, hay) in
            [("payload", &message.payload[..]), ("subject", message.subject.as_bytes()), ("header", headers.as_bytes())]
        {
            let named = needles.iter().filter(|needle| needle.is_in(hay));
            found.extend(named.map(|n| format!("{} in the {part} of {}", n.what, message.subject)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_value_or_a_key_leaves_its_owner() {
    let mut study = Study::new(Some("trace"));
    study.enrol("dora", "member");
    study.start_broker();
    study.start_server();
    for (name, value) in CANARIES {
        study.start_patient(name, value);
    }
    let mut capture = study.capture().await;
    let mut dora = Played::new(&study, "dora", 4).await;
    let asking = study.begin(&["--patients", "4", "--committee", "4"]);

    // The round waits for dora: everybody else has shared, and holds all the secrets of a round.
    dora.until(Kind::Begin).await;
    for (name, _) in CANARIES {
        study.parties[name].has_said("shared snapshot `1`, masked", 1);
    }
    let mut needles =
        file_key_needles(&study, &["alice", "bob", "charlie", "server", "hospital", "operator", "monitor"]);
    for (name, value) in CANARIES {
        needles.extend(value_needles(name, value, &[study.home.party_dir(name)]));
        needles.extend(patient_needles(name, &store_copy(&study, name, &study.parties[name]), &study));
    }
    for (name, party) in [("server", &study.parties["server"]), ("hospital", &asking)] {
        let records = store_copy(&study, name, party);
        let (_, state) = records.iter().find(|(key, _)| key.ends_with("/state")).unwrap();
        let what = format!("the session randomness of {name}");
        needles.extend(key_needles(&what, &state[state.len() - 32..], &[study.home.party_dir(name)]));
    }
    searching_finds(&study, &needles);
    let mut found = Vec::new();
    search_files(&study.home, &needles, &mut found);

    dora.until(Kind::Result).await;
    let asked = asking.ended();
    asked.opened("2247155982.786222", 4);
    capture.until(Kind::Result, 1).await;
    search_files(&study.home, &needles, &mut found);
    search_capture(&capture, &needles, &mut found);
    let mut said = study.stop();
    said.insert("hospital".into(), asked.said());
    for (party, text) in &said {
        assert!(party == "hospital" || text.contains("DEBUG") || text.contains("TRACE"), "{party} told nothing");
        let told = needles.iter().filter(|needle| needle.is_in(text.as_bytes()));
        found.extend(told.map(|needle| format!("{} in what {party} says", needle.what)));
    }
    search_files(&study.home, &needles, &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_sees_who_and_when_and_no_column() {
    let study = Study::start(None, &[("alice", "100"), ("bob", "200"), ("charlie", "300")]);
    let mut capture = study.capture().await;
    let watch = study.home.start("watch --json");
    let text = study.home.start("watch");
    text.has_printed("kind", 1);
    study.ask(&["--patients", "3", "--last"]).opened("600", 3);
    capture.until(Kind::Result, 1).await;
    let kinds = ["announce", "join", "roster", "list", "place", "key", "begin", "share", "held", "cohort", "confirm"];
    for kind in kinds.into_iter().chain(["open", "maskedsum", "masksum", "result"]) {
        let seen = capture.of(kind.parse().unwrap()).count();
        assert!(seen > 0, "no {kind} passed");
    }
    for message in &capture.seen {
        let address = support::address_of(message).unwrap();
        let headers = message.headers.as_ref().unwrap();
        let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_string()).collect();
        names.sort();
        assert_eq!(names, ["Ward-Kind", "Ward-Round"]);
        assert_eq!(headers.get("Ward-Kind").unwrap().as_str(), address.kind.as_str());
        assert_eq!(headers.get("Ward-Round").unwrap().as_str(), address.round.to_string());
        // The only column is called `value`.
        assert!(!message.subject.contains("value"), "{}", message.subject);
    }
    // A watcher has a line for each message, and a line has no room for a payload.
    watch.has_printed("\"kind\":\"result\"", 1);
    text.has_printed("result", 1);
    let keys = ["from", "kind", "round", "session", "size", "time", "to"];
    for line in watch.printed().lines() {
        let seen: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        assert_eq!(seen.keys().collect::<Vec<_>>(), keys, "{line}");
        assert!(line.len() < 300, "{line}");
    }
    let lines = text.printed();
    assert!(lines.lines().all(|line| line.split_whitespace().count() == 7 && line.len() < 150), "{lines}");
}

#[test]
fn a_value_is_not_in_the_list_of_processes_and_files_are_private() {
    let home = Home::new();
    let assignments = CANARIES.map(|(name, value)| format!("{name}={value}"));
    let mut up = home.start(&format!("up --keep {}", assignments.join(" ")));
    up.says("everything stays running");

    let mut parties = 0;
    for process in home.processes().into_iter().filter(|process| process.pid != up.pid()) {
        parties += 1;
        let line = process.command_line;
        let environment = fs::read(format!("/proc/{}/environ", process.pid.as_raw_nonzero())).unwrap();
        let environment = String::from_utf8_lossy(&environment);
        for (name, value) in CANARIES {
            assert!(!line.contains(value), "{name}'s value in the list of processes: {line}");
            assert!(!environment.contains(value), "{name}'s value in the environment of {line}");
        }
    }
    // ward broker, nats-server, server and three patients.
    assert!(parties >= 6, "only {parties} processes");
    private(&home.path());
    let ended = up.terminate();
    assert_eq!(ended.code, Some(0), "{ended:#?}");

    let mut found = Vec::new();
    let canaries = CANARIES.iter().flat_map(|(name, value)| value_needles(name, value, &[home.party_dir(name)]));
    let needles: Vec<Needle> = canaries.collect();
    search_files(&home, &needles, &mut found);
    let said = ended.said();
    found.extend(needles.iter().filter(|n| n.is_in(said.as_bytes())).map(|n| format!("{} in what `up` says", n.what)));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Checks that nothing in `home` is open to anybody but its owner.
fn private(home: &Path) {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for dir in ["", "ca", "parties", "parties/alice", "parties/server", "parties/hospital", "broker", "logs"] {
        assert_eq!(mode(&home.join(dir)), 0o700, "{dir}");
    }
    let secret = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(".key")
            || name == "key.pem"
            || [".redb", ".conf", ".log", "patient.toml"].iter().any(|end| name.ends_with(end))
    };
    let secrets: Vec<PathBuf> = files(home).into_iter().filter(secret).collect();
    for name in ["ca.key", "key.pem", "state.redb", "nats-server.conf", "nats-server.log", "alice.log"] {
        assert!(secrets.iter().any(|path| path.ends_with(name)), "no {name} in {secrets:?}");
    }
    for path in secrets {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn an_error_names_the_rule_and_not_the_value() {
    let home = Study::new(Some("trace")).home;
    let table = home.write("table.csv", "bmi\n1\n7203941,586213\n");
    let bad =
        ["7203941.5862131", "7203941586213.1", "7203941x586213", "7203941,586213", "-7203941586213", "7203941e586213"];
    for value in bad {
        let runs = [
            home.start_of(&["patient", "alice", "--", value]),
            home.start_of(&["up", &format!("alice={value}"), "bob=1", "charlie=2"]),
            home.start_of(&["up", "bob=1", "charlie=2", value]),
            home.start_of(&["--json", "up", &format!("alice={value}"), "bob=1", "charlie=2"]),
            home.start_of(&["up", "--csv", table.to_str().unwrap(), "--column", "bmi"]),
            home.start_fed(&["patient", "alice", "--value-on-stdin"], value),
        ];
        for run in runs {
            let ended = run.ended();
            assert_eq!(ended.code, Some(2), "{ended:#?}");
            let said = ended.said();
            assert!(said.contains("error"), "{said}");
            assert!(!said.contains("7203941") && !said.contains("586213"), "{value}: {said}");
        }
    }
    let left: Vec<PathBuf> = files(&home.path())
        .into_iter()
        .filter(|path| fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("7203941")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!home.party_dir("alice").exists(), "alice was enrolled with a bad value");
}

#[test]
fn after_the_last_answer_no_store_holds_a_key_of_the_session() {
    let mut study = Study::start(None, &[("alice", "100"), ("bob", "200"), ("charlie", "300")]);
    study.ask(&["--patients", "3"]).opened("600", 3);
    study.ask(&["--patients", "3", "--last"]).opened("600", 3);
    for name in ["alice", "bob", "charlie"] {
        study.parties[name].has_said("round 2: opened over 3 patients", 1);
    }
    study.parties["server"].has_said("over", 1);
    study.stop();
    for name in ["alice", "bob", "charlie", "server", "hospital"] {
        let records = records(&study.home.party_dir(name).join("state.redb"), name);
        let keys: Vec<&String> = records.keys().filter(|key| key.starts_with("session/")).collect();
        assert!(keys.is_empty(), "{name} still has {keys:?}");
        let kept = |start: &str| records.keys().filter(|key| key.starts_with(start)).count();
        let profile = study.home.party_dir(name).join("patient.toml");
        if !["server", "hospital"].contains(&name) {
            assert_eq!(fs::metadata(profile).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            // Where its snapshot went, and the receipts: for ever. The values: no longer than the session.
            assert_eq!((kept("snapshot/"), kept("receipt/"), kept("values/")), (1, 2, 0), "{name}");
        }
    }
}

#[test]
fn a_party_that_crashes_leaves_no_core_dump() {
    let (home, broker) = Home::with_broker();
    for party in [broker, home.server(), home.patient("alice", "100")] {
        // Soft and hard: nobody raises it again.
        let limit = party.limit("Max core file size");
        assert_eq!(limit.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{limit}");
    }
}
