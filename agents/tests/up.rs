//! What `ward up` may decide for patients, and what it goes on without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use support::Home;

#[test]
fn up_does_not_lower_what_a_patient_wrote_down_itself() {
    let home = Home::new();
    assert_eq!(home.run("certs init").code, Some(0));
    let dir = home.party_dir("alice");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("patient.toml"), "[policy]\nmin_cohort = 50\n").unwrap();
    let ended = home.run("--json up alice=5 bob=6 charlie=7 --min-cohort 3 --join-seconds 3");
    assert_eq!(ended.code, Some(3), "{ended:#?}");
    let log = fs::read_to_string(home.path().join("logs/alice.log")).unwrap();
    assert!(log.contains("alice takes no part") && log.contains("50"), "{log}");

    fs::write(dir.join("patient.toml"), "[schema]\nbound = 10\n").unwrap();
    let ended = home.run("--json up alice=500 bob=6 charlie=7 --bound 1000");
    assert!(ended.refused().contains("beyond the bound of 10"), "{ended:#?}");
}

#[test]
fn an_up_without_an_answer_says_which_patient_ended_and_why() {
    let home = Home::new();
    assert_eq!(home.run("certs init").code, Some(0));
    fs::create_dir_all(home.party_dir("alice")).unwrap();
    fs::write(home.party_dir("alice").join("state.redb"), "junk").unwrap();
    let ended = home.run("up alice=5 bob=6 charlie=7 --join-seconds 3");
    assert_eq!(ended.code, Some(3), "{ended:#?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("alice ended: ") && last.contains("state.redb is damaged ("), "{ended:#?}");
}

#[test]
fn up_goes_on_without_a_patient_that_is_killed() {
    let home = Home::new();
    let mut up = home.start("--json up a=1 b=2 c=4 d=8 e=16 f=32 g=64 h=128 --keep --scale 1000 --bound 5000");
    up.prints("\"sum\":[255]");
    let again = up.says("ask again:");
    let words = again.split_once("hospital sum ").unwrap().1.trim().to_owned();
    let patients = home.processes();
    // Whoever was not drawn into the committee of five.
    let joined = fs::read_to_string(home.path().join("logs/hospital.log")).unwrap();
    let committee = joined.lines().find_map(|line| line.split_once("committee: ")).unwrap().1.replace(" and ", ", ");
    let members: Vec<&str> = committee.trim().split(", ").collect();
    let outside = ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().find(|name| !members.contains(name)).unwrap();
    let victim =
        patients.iter().find(|process| process.command_line.contains(&format!(" patient {outside} "))).unwrap();
    victim.kill();
    up.says(&format!("{outside} was killed by signal 9; the others go on"));
    // What it printed works as it stands, and finds the same people.
    let sum = home.run(&format!("--json hospital sum {words} --round-seconds 6 --retries 0"));
    assert!(sum.code == Some(0) || sum.code == Some(3), "{sum:#?}");
    assert!(!sum.stderr.contains("declined"), "{sum:#?}");
    assert_eq!(up.stop().code, Some(0));
}
