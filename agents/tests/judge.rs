//! Who judges `just chaos` sees what is wrong, whom it kills and when leaves nobody out, and its clocks move.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "chaos/clock.rs"]
mod clock;
#[path = "chaos/judge.rs"]
mod judge;
#[path = "chaos/left.rs"]
mod left;
#[path = "chaos/report.rs"]
mod report;
#[path = "chaos/scenario.rs"]
mod scenario;
#[path = "chaos/steps.rs"]
mod steps;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use clock::Clock;
use judge::Judge;
use report::{COMPLETE, Happened, Outcome, Report};
use scenario::{Blow, Scenario, Whom};
use steps::{Step, pairs};

/// A judge of a study of five patients, k = 3.
fn judge() -> Judge {
    Judge::new(&Scenario { patients: 5, min_cohort: 3, ..Scenario::draw(1, Blow::Kill) })
}

/// What a hospital prints of a sum over so many patients.
fn answer(session: &str, round: u32, sum: u64, cohort: u32) -> String {
    let caught: [&str; 0] = [];
    serde_json::json!({
        "outcome": "opened", "session": session, "round": round, "sum": [sum], "cohort": cohort,
        "checked": { "caught": caught },
    })
    .to_string()
}

/// What is wrong with the last of these answers, after the others were right.
fn wrong(right: &[String], last: &str) -> String {
    let mut judge = judge();
    right.iter().for_each(|line| judge.printed(line).unwrap());
    judge.printed(last).unwrap_err()
}

#[test]
fn right_sums_are_right() {
    let mut judge = judge();
    for line in [answer("a", 1, 0x111, 3), answer("a", 1, 0x111, 3), answer("a", 2, 0x111, 3)] {
        judge.printed(&line).unwrap();
    }
    judge.said(0, "session a, round 2: opened over 3 patients, with p0");
    judge.said(4, "session a, round 2: opened over 3 patients, without p4");
    judge.said(4, "session b, round 1: opened over 2 patients, with p4");
    assert_eq!((judge.answers, judge.receipts_hold()), (3, Ok(())));
}

#[test]
fn a_sum_that_no_cohort_of_its_size_has_is_wrong() {
    for (sum, cohort) in [(0x112, 3), (0x121, 3), (0x111, 4), (0x1111, 3), (0x10_0111, 4), (0, 3)] {
        assert!(wrong(&[], &answer("a", 1, sum, cohort)).contains("no patients add up"), "{sum:x}");
    }
    assert!(wrong(&[], &answer("a", 1, 0x11, 2)).contains("fewer than 3"));
}

#[test]
fn a_second_opening_is_wrong() {
    let first = [answer("a", 1, 0x111, 3)];
    for (session, round, sum, cohort) in
        [("a", 1, 0x1_1111, 5), ("a", 2, 0x1111, 4), ("b", 1, 0x111, 3), ("b", 1, 0x1_1100, 3)]
    {
        assert!(
            wrong(&first, &answer(session, round, sum, cohort)).contains("opened 111"),
            "{session} {round} {sum:x}"
        );
    }
}

#[test]
fn who_is_honest_is_accused_of_nothing() {
    let accused = answer("a", 1, 0x111, 3).replace("[]", r#"["server"]"#);
    assert!(wrong(&[], &accused).contains("accused"));
}

#[test]
fn a_receipt_of_another_sum_is_wrong() {
    for line in ["over 4 patients, with p0", "over 3 patients, without p0"] {
        let mut judge = judge();
        judge.printed(&answer("a", 1, 0x111, 3)).unwrap();
        judge.said(0, &format!("session a, round 1: opened {line}"));
        assert!(judge.receipts_hold().is_err(), "{line}");
    }
}

#[test]
fn a_hospital_ends_with_an_answer_or_a_typed_abort() {
    let aborted = r#"{"outcome":"aborted","reason":"no_cohort"}"#;
    let opened = answer("a", 1, 0x111, 3);
    let ended = |code, last: &str| judge().ended(code, Some(last));
    assert_eq!((ended(Some(0), &opened), ended(Some(3), aborted)), (Ok(true), Ok(false)));
    for (code, last) in [(Some(0), aborted), (Some(3), &opened), (Some(1), aborted), (Some(2), ""), (None, aborted)] {
        assert!(ended(code, last).is_err(), "{code:?} {last}");
    }
}

/// The scenarios of a run from this seed on.
fn run(first: u64) -> impl Iterator<Item = Scenario> {
    (first..first + COMPLETE).map(|seed| Scenario::draw(seed, Blow::of(seed)))
}

#[test]
fn every_run_kills_each_party_at_each_step() {
    let written = [Step::Written(protocol::Kind::Confirm), Step::Written(protocol::Kind::Result)];
    assert!(written.iter().all(|step| pairs().contains(&(Whom::Member(0), *step))), "{:?}", pairs());
    let named = |whom: Whom, step: Step| format!("{} {}", whom.name(), step.name());
    let wanted: BTreeSet<String> = pairs().into_iter().map(|(whom, step)| named(whom, step)).collect();
    for first in [0, 1, 77, 5_000_000] {
        let turns = run(first).map(|scenario| {
            let kill = &scenario.faults[0];
            assert_eq!(kill.blow, Blow::Kill);
            assert!(kill.when.nth <= kill.when.step.times(1), "{kill}");
            let outsiders = matches!(kill.whom, Whom::Outsider(_)) && scenario.committee == scenario.patients;
            assert!(!outsiders, "nobody to kill: {scenario}");
            named(kill.whom, kill.when.step)
        });
        assert_eq!(turns.collect::<BTreeSet<_>>(), wanted, "from seed {first}");
    }
}

#[test]
fn every_run_strikes_each_party_with_each_blow() {
    let wanted: usize = Blow::ALL.into_iter().map(|blow| Whom::all(blow, 0, 1).len()).sum();
    for first in [0, 1, 77, 5_000_000] {
        let turns = run(first).map(|scenario| {
            let fault = &scenario.faults[1];
            assert_eq!(fault.blow, scenario.first);
            (fault.blow.name(), fault.whom.name())
        });
        assert_eq!(turns.collect::<BTreeSet<_>>().len(), wanted, "from seed {first}");
    }
}

#[test]
fn a_seed_says_the_same_scenario_again() {
    let drawn: Vec<String> = run(400).map(|scenario| format!("{scenario:?}")).collect();
    let again = |seed: u64| format!("{:?}", Scenario::draw(seed, Blow::of(seed)));
    assert!((400..).zip(&drawn).all(|(seed, scenario)| again(seed) == *scenario));
    assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), drawn.len());
}

/// A report of so many scenarios in which everything happened that must, but for what `is_left_out` says.
fn report(scenarios: u64, is_left_out: impl Fn(&Happened) -> bool) -> Report {
    let kills = pairs().into_iter().map(|(whom, step)| Happened { blow: Blow::Kill, role: whom.name(), step });
    let faults = Blow::ALL.into_iter().flat_map(|blow| {
        let happened = move |whom: Whom| Happened { blow, role: whom.name(), step: Step::Ready };
        Whom::all(blow, 0, 1).into_iter().map(happened)
    });
    let happened = kills.chain(faults).filter(|happened| !is_left_out(happened)).collect();
    let mut report = Report::new(true);
    report.add(Outcome { happened, ..Outcome::default() });
    (1..scenarios).for_each(|_| report.add(Outcome::default()));
    report
}

#[test]
fn what_never_happened_in_a_whole_run_is_named() {
    let confirm = |happened: &Happened| happened.role == "member" && happened.step.name() == "confirm";
    let cut = |happened: &Happened| happened.blow == Blow::Cut && happened.role == "hospital";
    assert_eq!(report(COMPLETE, |_| false).missing(), Vec::<String>::new());
    assert_eq!(report(COMPLETE, confirm).missing(), ["kill_member_at_confirm"]);
    assert_eq!(report(COMPLETE, cut).missing(), ["cut_hospital"]);
    assert_eq!(report(COMPLETE - 1, confirm).missing(), Vec::<String>::new());
    assert_eq!(report(COMPLETE, |_| false).json(1, Default::default())["kills"]["kill_member_at_confirm"], 1);
}

#[test]
fn what_a_home_does_not_keep_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let write = |name: &str| {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        path
    };
    for kept in ["lock", "ca/issued/p0.pem", "parties/server-2/state.redb", "broker/jetstream/any/thing.blk"] {
        write(kept);
    }
    assert_eq!(left::strays(home), Vec::<std::path::PathBuf>::new());
    for stray in [
        "broker/address",
        "broker/nats-server.pid",
        "ca/issued/.ward-x.pem",
        "parties/p0/.tmpAbCdEf",
        "parties/p0/offers/1-2.claimed",
        "parties/p0/state.redb.new",
        "core",
    ] {
        let path = write(stray);
        let [found] = &left::strays(home)[..] else { panic!("{stray}: {:?}", left::strays(home)) };
        assert!(path.starts_with(found), "{stray}: {found:?}");
        if found.is_dir() { fs::remove_dir_all(found).unwrap() } else { fs::remove_file(found).unwrap() }
    }
}

/// Says the time of this process for each line that it is told.
fn tell_time() {
    for _ in std::io::stdin().lock().lines() {
        println!("time {}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    }
}

#[test]
fn a_clock_moves_under_a_process_that_runs() {
    const NAME: &str = "a_clock_moves_under_a_process_that_runs";
    if std::env::var_os("CHAOS_CLOCK").is_some() {
        return tell_time();
    }
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::new(dir.path().join("clock"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    clock.give(&mut command);
    let mut child = command.spawn().unwrap();
    let mut asked = child.stdin.take().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // What the harness says of the test stands on a line with the first answer.
    let mut times = lines.filter_map(|line| line.rsplit_once("time ").and_then(|(_, time)| time.parse::<i64>().ok()));
    for moved in [0, 80 * 86_400, -50 * 60] {
        clock.move_to(moved);
        writeln!(asked, "what time is it?").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let off = times.next().unwrap() - now - moved;
        assert!((-60..60).contains(&off), "{off} s off where it was moved by {moved}");
    }
    drop(asked);
    assert!(child.wait().unwrap().success());
}
