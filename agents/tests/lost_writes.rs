//! A broker that comes back with an older board than it had acknowledged, as one does whose disk lied or was restored, while
//! a party was down too: the round still has its answer, and so has the next question.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use support::{Home, Party, Signal, files};

/// Four patients who hold 1 each under the snapshots `1` and `2`.
const NAMES: [&str; 4] = ["alice", "bob", "charlie", "dave"];

/// A study of theirs that was asked once.
struct Study {
    parties: BTreeMap<String, Party>,
    committee: Vec<String>,
    // Last, so that nobody writes into it any more when it goes.
    home: Home,
}

impl Study {
    fn new() -> Self {
        let (home, broker) = Home::with_broker();
        let mut parties = BTreeMap::from([("broker".to_owned(), broker), ("server".to_owned(), home.server())]);
        parties.extend(NAMES.map(|name| (name.to_owned(), home.patient(name, "1"))));
        for name in NAMES {
            home.hand_over(&format!("{name} 1 --snapshot 2"));
        }
        let first = home.sum("--committee 3");
        assert_eq!(first.sum(), "4");
        let (_, names) = first.stderr.lines().find_map(|line| line.split_once("committee: ")).unwrap();
        let committee = names.replace(" and ", ", ").split(", ").map(Into::into).collect();
        Self { parties, committee, home }
    }

    fn kill(&mut self, name: &str) {
        self.parties.remove(name).unwrap().kill();
    }

    /// Starts a party again, and waits until it is ready.
    fn start(&mut self, name: &str) {
        let party = match name {
            "broker" => self.home.broker(),
            "server" => self.home.server(),
            patient => self.home.ready(&format!("patient {patient} --snapshot 2")),
        };
        self.parties.insert(name.into(), party);
    }

    fn says(&mut self, name: &str, text: &str) {
        self.parties.get_mut(name).unwrap().says(text);
    }

    /// Kills the broker and its nats-server, does `work` with the files of the board, and starts it again.
    fn with_the_broker_dead(&mut self, work: impl FnOnce(&Path)) {
        self.kill("broker");
        self.home.is_rid_of("nats-server.conf");
        work(&self.home.path().join("broker").join("jetstream"));
        self.start("broker");
    }
}

/// Copies every file below `from`.
fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let copied = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(copied.parent().unwrap()).unwrap();
        fs::copy(&file, copied).unwrap();
    }
}

/// Plays a round up to its Confirms, kills the broker and `victim`, has the board be as it was before the question, and
/// starts both again.
fn the_board_is_restored_while_one_is_down(victim: impl Fn(&Study) -> String) {
    let mut study = Study::new();
    let older = study.home.file("older board");
    study.kill("bob");
    study.with_the_broker_dead(|board| copy(board, &older));
    let watch = study.home.start("watch");
    let hospital = study.home.start("--json hospital sum --snapshot 2 --round-seconds 60 --retries 2");
    study.says("server", "round 2: began");
    // Everybody but the hospital goes on, once bob is there.
    hospital.signal(Signal::STOP);
    study.start("bob");
    study.says("server", "round 2: cohort of 4 fixed");
    watch.has_printed("  confirm  ", 3);
    let victim = victim(&study);
    study.kill(&victim);
    study.with_the_broker_dead(|board| {
        fs::remove_dir_all(board).unwrap();
        copy(&older, board);
    });
    study.start(&victim);
    hospital.signal(Signal::CONT);
    let answer = hospital.ended();
    assert_eq!(answer.sum(), "4");
    let next = study.home.sum("--snapshot 1");
    assert_eq!((next.sum().as_str(), next.session()), ("4", answer.session()));
    assert!(next.round() > answer.round(), "{next:#?}");
}

#[test]
fn a_board_that_is_restored_while_a_member_is_down_costs_no_answer() {
    the_board_is_restored_while_one_is_down(|study| study.committee[0].clone());
}

#[test]
fn a_board_that_is_restored_while_the_server_is_down_costs_no_answer() {
    the_board_is_restored_while_one_is_down(|_| "server".into());
}
