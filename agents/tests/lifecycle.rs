//! How processes end: nothing is left of them, and whoever drops costs no more than it must.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::{Home, Party, Signal};

/// `ward up --keep` that has its answer, and stays.
fn kept(home: &Home) -> Party {
    let mut up = home.start("--json up --keep --round-seconds 10");
    up.prints("\"sum\":[600]");
    up.says("stays running until Ctrl-C");
    let lines: String = home.processes().into_iter().map(|process| process.command_line + "\n").collect();
    for part in ["nats-server.conf", " broker", " server", " patient alice", " patient bob", " patient charlie"] {
        assert!(lines.contains(part), "{part} is missing:\n{lines}");
    }
    up
}

#[test]
fn ctrl_c_and_kill_end_all_that_up_started() {
    let home = Home::new();
    for (round, signal) in [Signal::INT, Signal::TERM, Signal::HUP].into_iter().enumerate() {
        let up = kept(&home);
        if round == 0 {
            let again = home.sum("--snapshot 1");
            assert_eq!((again.sum().as_str(), again.round()), ("600", 2));
        }
        up.signal_group(signal);
        let ended = up.ended();
        home.nothing_runs();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
}

#[test]
fn kill_9_ends_all_that_up_started() {
    let home = Home::new();
    kept(&home).kill();
    home.is_quiet();
    // Nothing is in the way of the next one.
    assert_eq!(home.run("--json up").sum(), "600");
}

/// What a `ward up` left that was killed is ending: the next one waits for that, and does not take it for another study.
#[test]
fn up_can_be_started_again_at_once_after_kill_9() {
    let home = Home::new();
    kept(&home).kill();
    assert_eq!(home.run("--json up").sum(), "600");
    home.nothing_runs();
}

#[test]
fn up_that_is_stopped_before_its_answer_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let home = Home::new();
        let mut up = home.start("--json up");
        up.says("starting the broker");
        up.signal_group(signal);
        let ended = up.ended();
        home.nothing_runs();
        assert_eq!(ended.code, Some(3), "{ended:#?}");
        assert_eq!((&ended.json()["outcome"], &ended.json()["reason"]), (&"aborted".into(), &"stopped".into()));
    }
    let home = Home::new();
    let mut up = home.start("up");
    up.says("starting the broker");
    up.kill();
    home.is_quiet();
}

#[test]
fn a_name_runs_once_per_home() {
    let home = Home::new();
    let up = kept(&home);
    for words in ["broker", "server", "patient alice"] {
        let ended = home.run(words);
        let name = words.split(' ').next_back().unwrap();
        let why = ended.refused();
        for part in [name, "is already running in this home (process ", "stop that process first"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
    let second = home.run("--json up");
    assert!(second.refused().contains("runs already in"), "{second:#?}");
    assert_eq!(second.json()["outcome"], "error");
    // The first one did not notice.
    assert_eq!(home.sum("").sum(), "600");
    assert_eq!(up.stop().code, Some(0));
    home.nothing_runs();
}

#[test]
fn a_hospital_asks_one_thing_at_a_time() {
    let home = Home::new();
    let mut first = home.start("hospital sum --patients 3");
    first.says("waiting for the broker");
    let second = home.sum("--patients 3");
    assert!(second.refused().contains("hospital is already running"), "{second:#?}");
    // Stopped while it waits, it had no answer.
    let first = first.stop();
    assert_eq!(first.code, Some(3), "{first:#?}");
    home.nothing_runs();
}

/// What a hospital finds in a patient's store is no session of its own: it would forget it, and the patient would be out.
#[test]
fn who_is_named_for_the_task_of_another_keeps_its_sessions() {
    let mut study = Study::new(&["alice", "bob", "charlie"], "");
    study.kill("alice");
    let asked = study.home.sum("--name alice");
    assert!(asked.refused().contains("`alice` is a member of this study and cannot run as a hospital"), "{asked:#?}");
    study.patients.push(("alice", study.home.patient("alice", "1")));
    let again = study.home.sum("");
    assert_eq!((again.sum().as_str(), again.round()), ("3", 2));
}

#[test]
fn a_broker_that_is_killed_takes_nats_server_with_it_and_starts_again() {
    let home = Home::new();
    let broker = home.broker();
    let _parties = [home.server(), home.patient("alice", "1"), home.patient("bob", "2"), home.patient("charlie", "3")];
    let first = home.sum("");
    assert!(home.processes().iter().any(|process| process.command_line.contains("nats-server.conf")));
    broker.kill();
    home.is_rid_of("nats-server.conf");
    let broker = home.broker();
    let second = home.sum("");
    assert_eq!((second.sum().as_str(), second.session(), second.round()), ("6", first.session(), 2));
    assert_eq!(broker.stop().code, Some(0));
}

/// A study by hand, with one patient for each name, each holding 1 under snapshots `1` and `2`; who is on the committee.
struct Study {
    home: Home,
    infrastructure: Vec<Party>,
    patients: Vec<(&'static str, Party)>,
    committee: String,
}

impl Study {
    /// Asks once over snapshot `1`, so that there is a session and a committee.
    fn new(names: &[&'static str], rules: &str) -> Self {
        let (home, broker) = Home::with_broker();
        let infrastructure = vec![broker, home.server()];
        let patients: Vec<_> = names.iter().map(|name| (*name, home.patient(name, "1"))).collect();
        for name in names {
            home.hand_over(&format!("{name} 1 --snapshot 2"));
        }
        let first = home.sum(rules);
        assert_eq!(first.sum(), names.len().to_string());
        let joined = first.stderr.lines().find_map(|line| line.split_once("committee: ")).unwrap();
        let committee = joined.1.to_owned();
        Self { home, infrastructure, patients, committee }
    }

    fn kill(&mut self, name: &str) {
        let at = self.patients.iter().position(|(patient, _)| *patient == name).unwrap();
        self.patients.remove(at).1.kill();
    }

    fn is_member(&self, name: &str) -> bool {
        self.committee.replace(" and ", ", ").split(", ").any(|member| member == name)
    }
}

#[test]
fn a_patient_that_is_no_member_drops_and_the_sum_is_over_the_others() {
    let names = ["alice", "bob", "charlie", "dave", "erin", "frank", "grace", "heidi"];
    let mut study = Study::new(&names, "--committee 5");
    let outside = *names.iter().find(|name| !study.is_member(name)).unwrap();
    study.kill(outside);
    let second = study.home.sum("--snapshot 2 --round-seconds 6");
    assert_eq!((second.sum().as_str(), second.round()), ("7", 2));
    let answer = second.json();
    assert_eq!((&answer["cohort"], &answer["invited"]), (&7.into(), &8.into()));
}

#[test]
fn a_member_drops_within_the_tolerance_and_the_sum_is_over_the_others() {
    let mut study = Study::new(&["alice", "bob", "charlie", "dave", "erin"], "--committee 5 --threshold 1");
    study.kill("bob");
    let second = study.home.sum("--snapshot 2 --round-seconds 6");
    assert_eq!(second.sum(), "4");
    let answer = second.json();
    assert_eq!((&answer["cohort"], &answer["quorum"], &answer["confirmations"]), (&4.into(), &4.into(), &4.into()));
}

/// A committee of five goes on without a member whose store is gone; that one says so, once, and what to do.
#[test]
fn what_a_killed_patient_was_writing_is_gone_once_it_is_ready_again() {
    let (home, _broker) = Home::with_broker();
    home.patient("alice", "1").kill();
    let dir = home.party_dir("alice");
    std::fs::create_dir(dir.join("offers")).unwrap();
    // A store, a key, and the data of an offer.
    let drafts = [".draft-Ab", ".ward-draft-Cd", "offers/.draft-1-2.claimed"].map(|name| dir.join(name));
    drafts.iter().for_each(|draft| std::fs::write(draft, "half").unwrap());
    let _alice = home.patient("alice", "1");
    let left: Vec<_> = drafts.iter().filter(|draft| draft.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_member_that_lost_its_store_says_so_and_the_sum_is_over_the_others() {
    let mut study = Study::new(&["alice", "bob", "charlie", "dave", "erin"], "--committee 5 --threshold 1");
    study.kill("bob");
    let state = study.home.party_dir("bob").join("state.redb");
    std::fs::write(&state, "junk").unwrap();
    let damaged = study.home.run("patient bob 1");
    assert!(damaged.code != Some(0) && damaged.stderr.contains("state.redb is damaged ("), "{damaged:#?}");
    std::fs::remove_file(&state).unwrap();
    let mut bob = study.home.patient("bob", "1");
    let loss = "a message to bob is for members of session ";
    for round in 2..=3 {
        let answer = study.home.sum("--snapshot 2 --round-seconds 6");
        assert_eq!((answer.sum().as_str(), answer.round()), ("4", round));
        if round == 2 {
            assert!(bob.says(loss).contains(&answer.session()));
        }
    }
    assert_eq!(bob.said().matches(loss).count(), 1, "{}", bob.said());
}

#[test]
fn a_member_beyond_the_tolerance_costs_the_round() {
    let mut study = Study::new(&["alice", "bob", "charlie"], "");
    study.kill("charlie");
    let second = study.home.sum("--snapshot 2 --round-seconds 6 --retries 0");
    let why = second.aborted("too_few_shared");
    assert!(why.contains("takes 3 patients and 2 can be in it"), "{why}");
    assert!(why.contains("no share came in time from charlie; start who is missing and ask again"), "{why}");
    // Back again, it has its values of old.
    study.patients.push(("charlie", study.home.ready("patient charlie --snapshot 2")));
    assert_eq!(study.home.sum("--snapshot 2 --round-seconds 10").sum(), "3");
}

#[test]
fn a_hospital_that_is_stopped_in_a_round_asks_again_later() {
    let mut study = Study::new(&["alice", "bob", "charlie"], "");
    study.kill("bob");
    let mut hospital = study.home.start("--json hospital sum --snapshot 2");
    hospital.says("round 2: asked");
    hospital.stop().aborted("stopped");
    study.patients.push(("bob", study.home.ready("patient bob --snapshot 2")));
    let later = study.home.sum("--snapshot 2 --round-seconds 10");
    assert_eq!((later.sum().as_str(), later.round()), ("3", 3));
}

#[test]
fn a_round_that_went_on_without_its_hospital_has_its_answer_once_it_is_back() {
    let mut study = Study::new(&["alice", "bob", "charlie"], "");
    study.kill("bob");
    let hospital = study.home.start("--json hospital sum --snapshot 2");
    study.infrastructure[1].says("round 2: began");
    hospital.kill();
    // Nobody stopped that round: bob, back again, shares in it, and its cohort is fixed.
    study.patients.push(("bob", study.home.ready("patient bob --snapshot 2")));
    study.infrastructure[1].says("round 2: cohort of 3 fixed");
    let later = study.home.sum("--snapshot 2");
    assert_eq!((later.sum().as_str(), later.round()), ("3", 2));
}

#[test]
fn a_round_that_its_hospital_left_for_another_session_is_over() {
    let mut study = Study::new(&["alice", "bob", "charlie"], "");
    for name in ["alice", "bob", "charlie"] {
        study.home.hand_over(&format!("{name} 1 --snapshot 3"));
    }
    study.kill("bob");
    let mut hospital = study.home.start("--json hospital sum --snapshot 2");
    hospital.says("round 2: asked");
    // Whoever dies before the question is on its way has left no round.
    study.patients[0].1.says("shared snapshot `2`");
    hospital.kill();
    let other = study.home.start("--json hospital sum --new --snapshot 3 --join-seconds 60");
    study.patients[0].1.says("round 2: aborted");
    study.patients.push(("bob", study.home.patient("bob", "1")));
    let answer = other.ended();
    assert_eq!((answer.sum().as_str(), answer.round()), ("3", 1));
}

#[test]
fn other_rules_are_refused_also_where_the_question_is_open() {
    let mut study = Study::new(&["alice", "bob", "charlie", "dave"], "--committee 3");
    study.kill("bob");
    let mut hospital = study.home.start("--json hospital sum --snapshot 2");
    hospital.says("round 2: asked");
    hospital.kill();
    let refused = study.home.sum("--snapshot 2 --min-cohort 4");
    assert!(refused.refused().contains("its rules never change"), "{refused:#?}");
}

#[test]
fn the_last_question_ends_the_session_also_where_it_was_asked_before() {
    let mut study = Study::new(&["alice", "bob", "charlie"], "");
    study.kill("bob");
    let mut hospital = study.home.start("--json hospital sum --snapshot 2");
    hospital.says("round 2: asked");
    hospital.kill();
    study.patients.push(("bob", study.home.patient("bob", "1")));
    let last = study.home.sum("--snapshot 2 --last");
    assert_eq!((last.sum().as_str(), last.round()), ("3", 2));
    let after = study.home.sum(&format!("--snapshot 2 --session {}", last.session()));
    assert!(after.refused().contains("is not open"), "{after:#?}");
}

#[test]
fn a_patient_that_serves_once_waits_for_a_session_of_its_own() {
    let study = Study::new(&["alice", "bob", "charlie"], "");
    let mut dave = study.home.start("patient dave 5 --snapshot 2 --once");
    // The result of the session that it was not in is on the board.
    dave.says("without dave");
    assert_eq!(study.home.sum("--new --snapshot 2").sum(), "8");
    dave.says("with dave");
    assert_eq!(dave.ended().code, Some(0));
}

#[test]
fn a_broker_is_reached_under_the_names_that_it_was_given() {
    let home = Home::new();
    let mut broker = home.start("broker --host 0.0.0.0 --name 127.0.0.2");
    broker.says("broker ready");
    let far = format!("--broker 127.0.0.2:{}", home.endpoint().port);
    let _server = home.ready(&format!("{far} server"));
    let _patients = ["alice", "bob", "charlie"].map(|name| home.ready(&format!("{far} patient {name} 1")));
    assert_eq!(home.run(&format!("{far} --json hospital sum")).sum(), "3");
    let other = home.run(&format!("--broker 127.0.0.3:{} --json hospital sum", home.endpoint().port));
    assert!(other.refused().contains("127.0.0.3"), "{other:#?}");
    assert_eq!(broker.stop().code, Some(0));
    // Where it listens is a name that it has, without being told.
    let mut broker = home.start("broker --host 127.0.0.3");
    broker.says("broker ready at 127.0.0.3");
}

/// Its session is not left behind: nobody would ask in it again.
#[test]
fn a_hospital_that_is_killed_before_the_list_is_here_goes_on_with_its_session() {
    let (home, _broker) = Home::with_broker();
    let _patients = [home.patient("alice", "1"), home.patient("bob", "2"), home.patient("charlie", "3")];
    let mut watch = home.start("watch");
    watch.prints("session");
    let mut hospital = home.start("--json hospital sum");
    let announced = hospital.says("session ");
    watch.prints("  announce  ");
    hospital.kill();
    let _server = home.server();
    watch.prints("  list  ");
    let answer = home.sum("");
    assert_eq!(answer.sum(), "6");
    assert!(announced.contains(&answer.session()), "{announced}: {answer:#?}");
}

/// A round that waits for one patient, while everybody else, and the broker, is killed and started again with the command
/// line of before.
#[test]
fn whoever_is_killed_in_a_round_goes_on_with_it() {
    let names = ["alice", "bob", "charlie", "dave"];
    let mut study = Study::new(&names, "--committee 3");
    let ask = "--json hospital sum --snapshot 2 --round-seconds 240";
    study.kill("bob");
    let mut hospital = study.home.start(ask);
    hospital.says("round 2: asked");
    for name in ["alice", "charlie", "dave"] {
        let at = study.patients.iter().position(|(patient, _)| *patient == name).unwrap();
        study.patients[at].1.says("shared snapshot `2`");
        study.kill(name);
        let mut again = study.home.patient(name, "1");
        // It makes the same Share again: the board keeps one of them.
        again.says("shared snapshot `2`");
        study.patients.push((name, again));
    }
    study.infrastructure.remove(1).kill();
    study.infrastructure.push(study.home.server());
    hospital.kill();
    let mut hospital = study.home.start(ask);
    hospital.says("going on with the round that is open");
    study.infrastructure.remove(0).kill();
    study.home.is_rid_of("nats-server.conf");
    study.infrastructure.push(study.home.broker());
    study.patients.push(("bob", study.home.patient("bob", "1")));
    let answer = hospital.ended();
    assert_eq!((answer.sum().as_str(), answer.round()), ("4", 2));
}

#[test]
fn a_round_without_an_answer_is_asked_again_by_itself() {
    let mut study = Study::new(&["alice", "bob", "charlie"], "");
    study.kill("bob");
    let mut hospital = study.home.start("--json hospital sum --snapshot 2 --round-seconds 20 --retries 2");
    hospital.says("asking again");
    study.patients.push(("bob", study.home.patient("bob", "1")));
    let answer = hospital.ended();
    assert_eq!(answer.sum(), "3");
    assert!(answer.round() > 2, "{answer:?}");
}

#[test]
fn a_hospital_ends_also_while_the_broker_is_away() {
    let mut study = Study::new(&["alice", "bob", "charlie"], "");
    study.kill("bob");
    let mut hospital = study.home.start("--json hospital sum --snapshot 2");
    hospital.says("asked");
    study.infrastructure.remove(0).kill();
    hospital.stop().aborted("stopped");
}
