//! Bad input and what it gets: a message that names the thing, the rule and the remedy, exit code 2, and nothing that is
//! started or left running. A value is never repeated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use support::{Ended, Home, Party, expired_certificate};

/// It was refused with all these parts in its message, on stderr and in the last line of stdout; nothing runs.
fn refused(home: &Home, ended: &Ended, parts: &[&str]) {
    home.nothing_runs();
    told(ended, parts);
}

fn told(ended: &Ended, parts: &[&str]) {
    let message = ended.json()["message"].as_str().unwrap_or_default().to_owned();
    ended.refused();
    assert_eq!(ended.json()["outcome"], "error", "{ended:#?}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in the report: {ended:#?}");
        assert!(ended.stderr.contains(part), "`{part}` is missing: {ended:#?}");
    }
}

/// These arguments, with `--json`, are refused with these parts; the home was not even made, and `secret` not repeated.
fn refused_untouched(arguments: &[&str], secret: &str, parts: &[&str]) {
    let home = Home::new();
    let ended = home.run_of(&[&["--json"], arguments].concat());
    refused(&home, &ended, parts);
    assert!(!home.path().exists(), "something was begun: {ended:#?}");
    assert!(secret.is_empty() || !format!("{}{}", ended.stdout, ended.stderr).contains(secret), "{ended:#?}");
}

#[test]
fn values_that_are_none() {
    for (value, parts) in [
        ("4x7y1", &["is no decimal number", "use digits"][..]),
        ("4171,25", &["comma", "'.'"]),
        ("NaN", &["not a finite number", "correct it"]),
        ("inf", &["not a finite number", "correct it"]),
        ("-Infinity", &["not a finite number", "correct it"]),
        ("41.7126981", &["more than six decimals", "round it"]),
        ("4171269817", &["beyond the bound of 1000000000", "check its unit"]),
        ("-1000000000.000001", &["beyond the bound of 1000000000", "check its unit"]),
        ("41712698171269817126", &["too large", "larger unit"]),
    ] {
        let of_bob = [&["value"][..], parts].concat();
        refused_untouched(&["patient", "bob", value], value, &of_bob);
        let assignment = format!("bob={value}");
        let of_bob = [&["bob", "value"][..], parts].concat();
        refused_untouched(&["up", "alice=1", &assignment, "charlie=3"], value, &of_bob);
    }
    refused_untouched(&["up", "alice=1", "bob=", "charlie=3"], "", &["`bob=` has no value", "bob=100"]);
    refused_untouched(&["up", "alice=1", "4171269817", "charlie=3"], "4171269817", &["argument 2", "NAME=VALUE"]);
    refused_untouched(&["up", "alice=1", "-4171269817"], "4171269817", &["unexpected argument"]);
    refused_untouched(&["patient", "bob", "1", "4171269817"], "4171269817", &["unexpected argument"]);
    refused_untouched(&["patient", "bob"], "", &["value is missing", "NAME and VALUE"]);
    refused_untouched(&["patient"], "", &["name is missing", "NAME and VALUE"]);
}

#[test]
fn names_that_nobody_can_have() {
    for (name, parts) in [
        ("server", &["`server` is reserved", "choose another name"][..]),
        ("hospital", &["`hospital` is reserved", "choose another name"]),
        ("all", &["`all` is reserved", "choose another name"]),
    ] {
        refused_untouched(&["up", "alice=1", &format!("{name}=2"), "charlie=3"], "", parts);
        refused_untouched(&["patient", name, "2"], "", &[name, "reserved"]);
    }
    for name in ["Alice", "al.ice", "alice*", "a".repeat(33).as_str(), "älice"] {
        let rule = ["1 to 32 of a-z, 0-9 and '-'"];
        refused_untouched(&["up", "bob=1", &format!("{name}=2"), "charlie=3"], "", &["argument 2", rule[0]]);
        refused_untouched(&["patient", name, "2"], "", &rule);
    }
    refused_untouched(&["up", "bob=1", "alice=2", "bob=3"], "", &["`bob` is given twice", "one value"]);
}

#[test]
fn tables_that_are_none() {
    for (text, column, parts) in [
        ("", "bmi", &["is empty", "a header"][..]),
        ("bmi,age\n", "bmi", &["no row", "a row per patient"]),
        ("bmi,age\n1,2\n417126\n5,6\n", "bmi", &["line 3", "1 cells", "header has 2", "complete it"]),
        ("bmi,age\n1,2\n3,4\n5,6\n", "weight", &["no column `weight`", "bmi", "age"]),
        ("bmi,age\n1,2\n4x7y1,4\n5,6\n", "bmi", &["line 3", "column `bmi`", "no decimal number", "use digits"]),
        ("bmi,age\n1,2\n,4\n5,6\n", "bmi", &["line 3", "column `bmi`", "is empty"]),
        ("bmi,age\n1,2\nNaN,4\n5,6\n", "bmi", &["line 3", "column `bmi`", "not a finite number"]),
        ("bmi,age\n1,2\n3.4171269817,4\n5,6\n", "bmi", &["line 3", "column `bmi`", "more than nine decimals"]),
        ("bmi,age\n1,2\n4171269817,4\n5,6\n", "bmi", &["line 3", "column `bmi`", "beyond the bound"]),
        ("bmi,bmi\n1,2\n", "bmi", &["column `bmi` twice", "rename"]),
        ("bmi;age\n1;2\n", "bmi", &["no comma", "commas between the columns"]),
    ] {
        let home = Home::new();
        let table = home.write("table.csv", text);
        let ended = home.run_of(&["--json", "up", "--csv", table.to_str().unwrap(), "--column", column]);
        refused(&home, &ended, &[&["table.csv"][..], parts].concat());
        assert!(!home.path().exists(), "something was begun: {ended:#?}");
        for secret in ["417126", "4x7y1"] {
            assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(secret), "{ended:#?}");
        }
    }
    refused_untouched(&["up", "--csv", "no-such.csv", "--column", "x"], "", &["no-such.csv", "cannot read"]);
    refused_untouched(&["up", "--csv", "no-such.csv"], "", &["--column"]);
}

#[test]
fn rules_that_cannot_be_kept() {
    for (words, parts) in [
        ("--min-cohort 4", &["at least 4", "3 patients", "lower --min-cohort"][..]),
        ("--min-cohort 1", &["--min-cohort 1", "use 2 or more"]),
        ("--committee 3 --threshold 3", &["3 colluders of a committee of 3", "choose 1 to 2"]),
        ("--committee 3 --threshold 0", &["0 colluders", "choose 1 to 2"]),
        ("--committee 5", &["committee of 5", "3 are expected", "lower --committee"]),
        ("--committee 1", &["committee of 1", "choose 2 to 10"]),
        ("--committee 11", &["committee of 11", "choose 2 to 10"]),
        ("--round-seconds 0", &["--round-seconds", "not in 1..=86400"]),
        ("--join-seconds 90000", &["--join-seconds", "not in 1..=86400"]),
    ] {
        let up: Vec<&str> = ["up"].into_iter().chain(words.split(' ')).collect();
        refused_untouched(&up, "", parts);
        let home = Home::new();
        let ended = home.run(&format!("--json hospital sum --patients 3 {words}"));
        refused(&home, &ended, parts);
    }
    refused_untouched(&["up", "alice=1", "bob=2"], "", &["at least 3", "2 patients", "add patients"]);
    refused_untouched(&["up", "--bound", "0"], "", &["bound of 0", "use 1 or more"]);
    refused_untouched(&["patient", "bob", "1", "--min-cohort", "1"], "", &["--min-cohort 1", "use 2 or more"]);
    refused_untouched(&["patient", "bob", "1", "--scale", "7"], "", &["--scale", "power of ten"]);
    refused_untouched(&["patient", "bob", "1", "--snapshot", "a b"], "", &["--snapshot"]);
    let home = Home::new();
    refused(&home, &home.run("--json hospital sum"), &["no patient is enrolled", "ward patient NAME VALUE"]);
    refused(&home, &home.run("--json hospital sum --session abcd"), &["session abcd is not open", "--new"]);
    refused(&home, &home.run("--json --broker nowhere server"), &["`nowhere` is no broker's address", "host:port"]);
}

#[test]
fn a_port_in_use() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let home = Home::new();
    for words in ["broker", "up"] {
        let ended = home.run(&format!("--json {words} --port {port}"));
        refused(&home, &ended, &[&format!("port {port}"), "is in use", "another port"]);
    }
    // Only the port was wrong.
    assert_eq!(home.run("--json up").sum(), "600");
}

#[test]
fn another_homes_broker_on_the_address() {
    let (other, mut broker) = (Home::new(), None::<Party>);
    let mut started = other.start("broker");
    let ready = started.says("broker ready at");
    broker.replace(started);
    let address = ready.split_whitespace().find(|word| word.contains(':')).unwrap().to_owned();
    let home = Home::new();
    for words in ["server", "hospital sum --patients 3", "patient alice 417126", "watch"] {
        let ended = home.run(&format!("--json --broker {address} {words}"));
        refused(&home, &ended, &[&address, "not of this study", "ward broker"]);
        assert!(!ended.stderr.contains("417126"));
    }
    // Something that is no broker at all.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    std::thread::spawn(move || while silent.accept().is_ok() {});
    let ended = home.run(&format!("--json --broker {address} --wait 1 server"));
    refused(&home, &ended, &[&address]);
}

#[test]
fn no_broker() {
    let home = Home::new();
    for words in ["server", "hospital sum --patients 3", "patient alice 417126", "watch"] {
        let ended = home.run(&format!("--json --wait 1 {words}"));
        refused(&home, &ended, &["no broker answers", "ward broker"]);
        assert!(!ended.stderr.contains("417126"));
    }
    let ended = home.run("--json --wait 1 --broker 127.0.0.1:1 server");
    refused(&home, &ended, &["127.0.0.1:1", "no broker answers", "correct the address"]);
}

#[test]
fn an_old_broker_and_what_is_none() {
    let home = Home::new();
    let script = |name: &str, says: &str| {
        let path = home.write(name, &format!("#!/bin/sh\necho '{says}'\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    for (path, parts) in [
        (script("old", "nats-server: v2.9.10"), &["2.9.10", "needs 2.14 or newer"][..]),
        (script("other", "hello"), &["is no nats-server"]),
        (home.file("missing"), &["missing", "is no nats-server"]),
    ] {
        for words in ["--json broker", "--json up"] {
            let mut command = home.command(words);
            command.env("WARD_NATS_SERVER", &path);
            let ended = Party::spawn(words, command).ended();
            refused(&home, &ended, &[parts, &["WARD_NATS_SERVER", "nats.io/download"]].concat());
        }
    }
    assert_eq!(home.run("--json up").sum(), "600");
}

/// A home with a broker, the usual parties, and alice, who is enrolled and not running.
fn with_alice() -> (Home, Party) {
    let (home, broker) = Home::with_broker();
    let alice = home.patient("alice", "1");
    assert_eq!(alice.stop().code, Some(0));
    (home, broker)
}

fn copy(from: &Path, to: &Path, files: &[&str]) {
    for file in files {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// A home as on a party's own machine: nothing but the folder of `name`.
fn far_from(home: &Home, name: &str) -> Home {
    let far = Home::new();
    fs::create_dir_all(far.party_dir(name)).unwrap();
    copy(&home.party_dir(name), &far.party_dir(name), &["cert.pem", "key.pem", "ca.pem"]);
    far
}

#[test]
fn a_certificate_of_another_ca() {
    let (home, broker) = with_alice();
    let other = Home::new();
    assert_eq!(other.run("certs init").code, Some(0));
    let theirs = other.party_dir("server");
    // In the home of the CA.
    copy(&theirs, &home.party_dir("server"), &["cert.pem", "key.pem"]);
    told(&home.run("--json server"), &["server/cert.pem", "issued under that name", "move it away"]);
    // On the party's own machine, and then with the other CA's own certificate: this broker is not of its study.
    let far = far_from(&home, "server");
    refused(&far, &far.run("--json --wait 1 server"), &["server/cert.pem", "the CA"]);
    copy(&theirs, &far.party_dir("server"), &["ca.pem"]);
    let address = home.endpoint().to_string();
    let ended = far.run(&format!("--json --broker {address} server"));
    refused(&far, &ended, &[&address, "not of this study"]);
    assert!(!broker.said().contains("panicked"));
}

#[test]
fn a_certificate_for_another_party_or_another_key() {
    let (home, _broker) = with_alice();
    assert_eq!(home.patient("bob", "2").stop().code, Some(0));
    let far = far_from(&home, "alice");
    copy(&home.party_dir("bob"), &far.party_dir("alice"), &["cert.pem"]);
    refused(&far, &far.run("--json --wait 1 patient alice 5"), &["alice/cert.pem", "another key", "put back the key"]);
    copy(&home.party_dir("bob"), &far.party_dir("alice"), &["key.pem"]);
    refused(
        &far,
        &far.run("--json --wait 1 patient alice 5"),
        &["parties/alice", "/member/bob", "folder of that name"],
    );
    copy(&home.party_dir("bob"), &home.party_dir("alice"), &["cert.pem", "key.pem"]);
    told(&home.run("--json patient alice"), &["alice/cert.pem", "issued under that name", "move it away"]);
    copy(&home.party_dir("server"), &home.party_dir("hospital"), &["cert.pem", "key.pem"]);
    told(&home.run("--json hospital sum --patients 3"), &["hospital/cert.pem", "issued under that name"]);
}

#[test]
fn a_key_that_others_can_read() {
    let (home, broker) = with_alice();
    let open = |name: &str, mode| {
        fs::set_permissions(home.party_dir(name).join("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, words) in [("server", "server"), ("hospital", "hospital sum"), ("alice", "patient alice")] {
        open(name, 0o644);
        told(&home.run(&format!("--json {words}")), &[&format!("parties/{name}/key.pem"), "chmod 600"]);
    }
    drop(broker);
    home.is_quiet();
    refused(&home, &home.run("--json up"), &["key.pem", "chmod 600"]);
    ["server", "hospital", "alice"].into_iter().for_each(|name| open(name, 0o600));
    open("broker", 0o640);
    refused(&home, &home.run("--json broker"), &["parties/broker/key.pem", "chmod 600"]);
    open("broker", 0o600);
    let key = home.path().join("ca").join("ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o604)).unwrap();
    refused(&home, &home.run("--json patient dave 5"), &["ca.key", "chmod 600"]);
}

#[test]
fn an_expired_certificate() {
    let (home, _broker) = with_alice();
    let certificate = expired_certificate(&home, "alice");
    // As it stands with the party, and in the register of the CA.
    for path in [home.party_dir("alice").join("cert.pem"), home.path().join("ca/issued/alice.pem")] {
        assert!(path.exists(), "{}", path.display());
        fs::write(path, &certificate).unwrap();
    }
    told(&home.run("--json patient alice"), &["alice/cert.pem", "expired on", "renew it"]);
}
