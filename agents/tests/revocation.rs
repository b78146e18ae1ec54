//! `ward certs revoke` over running studies: who is revoked is out at once and stays out, and nobody else notices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use nats::LinkError;
use protocol::Kind;
use support::{Home, Signal, Study};

/// Revokes `name`, and waits until the broker, which runs, has cut it off.
#[track_caller]
fn revoke(study: &Study, name: &str) {
    let revoked = study.home.run(&format!("--json certs revoke {name}"));
    assert_eq!(revoked.code, Some(0), "{revoked:#?}");
    let said = revoked.json();
    assert!(said["name"] == name && said["revoked"].is_string(), "{said}");
    study.parties["broker"].has_said(&format!("cut off {name}\n"), 1);
}

/// One connection of `before` is gone, and the others are there still.
#[track_caller]
fn one_is_gone(home: &Home, before: &BTreeSet<u16>) {
    let after = home.connections();
    assert_eq!(before.intersection(&after).count() + 1, before.len(), "{before:?} became {after:?}");
}

/// The broker refuses the key and certificate of `name`, wherever they are.
async fn is_out(study: &Study, name: &str) {
    let error = study.refused(&study.home.credentials(name)).await;
    assert!(matches!(error, LinkError::NotListed { .. }), "{error:?}");
    assert!(error.to_string().contains("revoked"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_patient_is_cut_off_for_good_and_the_others_go_on() {
    let patients = [("alice", "1"), ("bob", "2"), ("charlie", "3"), ("dave", "4")];
    let mut study = Study::start(None, &patients);
    for (name, value) in patients {
        study.home.hand_over(&format!("{name} {value} --snapshot 2"));
    }
    study.ask(&[]).opened("10", 4);
    let before = study.home.connections();
    revoke(&study, "dave");
    let dave = study.parties.remove("dave").unwrap().ended();
    assert!(dave.refused().contains("has cut off dave") && dave.refused().contains("was revoked"), "{dave:#?}");
    one_is_gone(&study.home, &before);
    is_out(&study, "dave").await;
    // A new session waits for those who are left.
    study.ask(&["--new", "--snapshot", "2"]).opened("6", 3);

    // The broker that comes next knows it too.
    study.parties.remove("broker").unwrap().kill();
    study.start_broker();
    is_out(&study, "dave").await;
    let again = study.home.run("patient dave 4");
    assert!(again.refused().contains("`dave` was revoked on"), "{again:#?}");
    study.ask(&["--snapshot", "2"]).opened("6", 3);
    // Its holder comes back under another name.
    study.start_patient("dave-2", "5");
    study.is_ready();
}

#[test]
fn a_revoked_hospital_asks_nothing_any_more_and_another_one_does() {
    let mut study = Study::start(None, &[("alice", "1"), ("bob", "2"), ("charlie", "3")]);
    study.enrol("clinic", "hospital");
    let mut asking = study.begin(&["--patients", "4", "--join-seconds", "600"]);
    asking.says("session ");
    revoke(&study, "hospital");
    let asked = asking.ended();
    assert!(asked.refused().contains("has cut off hospital"), "{asked:#?}");
    assert_eq!(asked.json()["outcome"], "error");
    let again = study.ask(&[]);
    assert!(again.refused().contains("`hospital` was revoked on"), "{again:#?}");
    study.ask(&["--name", "clinic"]).opened("6", 3);
    // A home whose hospital is revoked starts like any other.
    study.parties.remove("broker").unwrap().kill();
    study.start_broker();
    study.ask(&["--name", "clinic"]).opened("6", 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_revoked_server_left_to_be_checked_ends_the_round_in_words() {
    let study = Study::start(None, &[("alice", "1"), ("bob", "2"), ("charlie", "3")]);
    study.ask(&[]).opened("6", 3);
    study.home.hand_over("alice 4 --snapshot 2");
    study.home.hand_over("bob 5 --snapshot 2");
    study.home.hand_over("charlie 6 --snapshot 2");
    let mut capture = study.capture().await;
    study.parties["server"].signal(Signal::STOP);
    let asked = study.begin(&["--snapshot", "2", "--retries", "0"]);
    capture.until(Kind::Begin, 1).await;
    // The server adds, and is revoked before the hospital can look at what it added.
    asked.signal(Signal::STOP);
    study.parties["server"].signal(Signal::CONT);
    capture.until(Kind::MaskedSum, 1).await;
    revoke(&study, "server");
    asked.signal(Signal::CONT);
    asked.ended().aborted("check_lost");
}

#[test]
fn ward_up_goes_on_without_a_patient_that_is_revoked() {
    let home = Home::new();
    let mut up = home.start("up alice=1 bob=2 charlie=4 dave=8 --keep");
    up.says("everything stays running");
    assert_eq!(home.run("certs revoke dave").code, Some(0));
    let ended = up.says("dave ended:");
    assert!(ended.contains("has cut off dave") && ended.contains("the others go on"), "{ended}");
    ["alice 1", "bob 2", "charlie 4"].iter().for_each(|who| _ = home.hand_over(&format!("{who} --snapshot next")));
    home.run("--json hospital sum --new --patients 3 --snapshot next").opened("7", 3);
    up.stop();
}

#[test]
fn a_revoked_row_of_a_table_leaves_the_others_alone() {
    let mut study = Study::new(None);
    let names = ["p001", "p002", "p003", "p004"];
    names.iter().for_each(|name| study.enrol(name, "member"));
    study.start_broker();
    study.start_server();
    let table = study.home.write("table.csv", "value\n1\n2\n3\n4\n");
    let rows = ["--column", "value", "--snapshot", "1", "--bound", "1000", "--scale", "1000000"];
    let rows = study.home.start_of(&[&["patients", "--csv", table.to_str().unwrap()], &rows[..]].concat());
    study.parties.insert("rows".into(), rows);
    study.parties["rows"].has_said("is ready", 4);
    let before = study.home.connections();
    revoke(&study, "p002");
    study.parties["rows"].has_said("has cut off p002", 1);
    one_is_gone(&study.home, &before);
    study.ask(&["--bound", "1000"]).opened("8", 3);
    // Where all are out nobody is left to run.
    ["p001", "p003", "p004"].iter().for_each(|name| revoke(&study, name));
    let rows = study.parties.remove("rows").unwrap().ended();
    rows.refused();
}

#[test]
fn what_cannot_be_revoked_is_refused_in_words() {
    let study = Study::new(None);
    study.enrol("alice", "member");
    let refused = |words: &str, why: &str| {
        let ended = study.home.run(words);
        assert!(ended.refused().contains(why), "{words}: {ended:#?}");
    };
    refused("certs revoke nobody", "`nobody` was never issued");
    refused("certs revoke broker", "the study needs a new CA");
    refused("certs revoke operator", "stop the broker");
    assert_eq!(study.home.run("certs revoke No/Name").code, Some(2));
    assert_eq!(study.home.run("certs revoke").code, Some(2));
    assert_eq!(study.home.run("--json certs revoke nobody").json()["outcome"], "error");
    let elsewhere = Home::new();
    assert!(elsewhere.run("certs revoke alice").refused().contains("no certificate authority"));
    assert!(!elsewhere.path().exists());

    assert_eq!(study.home.run("certs revoke alice").code, Some(0));
    refused("certs revoke alice", "`alice` was revoked on");
    // Nor is it issued again, to its own key or to another.
    let request = study.home.party_dir("alice").join("request.pem");
    let sign = format!("certs sign {}", request.display());
    refused(&sign, "`alice` was revoked on");
    std::fs::remove_dir_all(study.home.party_dir("alice")).unwrap();
    assert_eq!(study.home.run("certs request alice member").code, Some(0));
    refused(&sign, "`alice` was revoked on");
    refused("patient alice 1", "`alice` was revoked on");
    refused("server --name alice", "`alice` was revoked on");
    // And it is shown as what it is.
    let all = study.home.run("--json certs show").json();
    let revoked = |one: &&serde_json::Value| one["revoked"].is_string();
    let shown: Vec<&serde_json::Value> = all["certificates"].as_array().unwrap().iter().filter(revoked).collect();
    assert!(matches!(shown[..], [one] if one["name"] == "alice"), "{all}");
    assert!(study.home.run("certs show alice").stdout.contains("(revoked on "));
}
