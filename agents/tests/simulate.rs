//! `ward simulate`: a session without a broker, whose sum is checked against the true one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::Value;
use support::{Ended, Home};

/// What `ward simulate` did with these arguments; it leaves nothing behind.
fn simulate(arguments: &str) -> Ended {
    let home = Home::new();
    let all: Vec<&str> = ["simulate", "--json"].into_iter().chain(arguments.split_whitespace()).collect();
    let ended = home.run_of(&all);
    assert!(!home.path().exists(), "a home was made: {ended:#?}");
    ended
}

fn simulated(arguments: &str) -> Value {
    let ended = simulate(arguments);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let report = ended.json();
    assert_eq!(report["correct"], true, "{report}");
    report
}

#[test]
fn each_role_says_what_it_spent_and_who_dropped_is_not_in_the_sum() {
    let report = simulated("--patients 50 --dim 200 --drop 10");
    for (field, value) in [("patients", 50), ("dim", 200), ("ring", 32), ("drop", 10), ("cohort", 45), ("committee", 5)]
    {
        assert_eq!(report[field], value, "{report}");
    }
    for (role, parties) in [("patient", 45), ("member", 5), ("server", 1), ("hospital", 1)] {
        let role = &report["roles"][role];
        assert_eq!(role["parties"], parties, "{report}");
        assert!(role["largest_store_bytes"].as_u64().unwrap() > 0, "{report}");
        for phase in ["setup", "round"] {
            assert!(role[phase]["cpu_s"].as_f64().unwrap() > 0.0, "{report}");
            assert!(role[phase]["bytes_up"].as_u64().unwrap() > 0, "{report}");
            assert!(role[phase]["bytes_down"].as_u64().unwrap() > 0, "{report}");
        }
    }
    // Every vector, and what was taken out of the sum again, came to the server.
    assert!(report["roles"]["server"]["round"]["bytes_down"].as_u64().unwrap() >= 55 * 200 * 4);
    assert!(report["cpu_ms_per_patient"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn the_same_seed_writes_the_same_bytes_and_another_shape_is_right_too() {
    let bytes = |report: &Value| report["roles"]["patient"]["round"]["bytes_up"].clone();
    let (one, other) = (simulated("--patients 12 --dim 3 --seed 7"), simulated("--patients 12 --dim 3 --seed 7"));
    assert_eq!(bytes(&one), bytes(&other));
    // Vectors of several chunks over two servers: who drops has written all Shares and some chunks.
    simulated("--patients 9 --dim 400000 --drop 30 --ring 24 --servers 2 --committee 4 --threshold 1");
    simulated("--patients 2 --dim 1 --ring 16");
}

#[test]
fn numbers_that_do_not_fit_together_are_refused() {
    for (arguments, part) in [
        ("--patients 4 --dim 5 --committee 5", "committee of 5"),
        ("--patients 50 --dim 5 --drop 101", "101"),
        ("--patients 50 --dim 5 --drop 100", "lower --drop"),
        ("--patients 50 --dim 5 --ring 20", "multiple of 8"),
        ("--patients 40000 --dim 5 --ring 16", "raise --ring"),
        ("--patients 1000001 --dim 5", "1000000"),
        ("--patients 50 --dim 4000000000 --ring 64", "cannot be shared"),
    ] {
        let ended = simulate(arguments);
        assert_eq!(ended.code, Some(2), "{arguments}: {ended:#?}");
        let message = ended.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(part), "{arguments}: {message}");
    }
}

#[test]
fn studies_under_faults_keep_every_promise_and_follow_from_their_seeds() {
    let play = |arguments: &str| {
        let ended = simulate(arguments);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        ended.json()
    };
    let report = play("--faults --seeds 20 --seed 3");
    assert_eq!((&report["seeds"], &report["violations"]), (&20.into(), &0.into()), "{report}");
    assert!(report["opened"].as_u64().unwrap() > 20, "{report}");
    assert!(report["faults"]["drop"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["trace"], play("--faults --seeds 20 --seed 3")["trace"]);
    assert_ne!(report["trace"], play("--faults --seeds 20 --seed 4")["trace"]);
}

#[test]
fn a_case_that_was_kept_is_played_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let shape = serde_json::json!({
        "patients": 4, "marked": 4, "servers": 1, "committee": 3, "threshold": 1, "min_cohort": 2, "dimension": 1,
        "acts": ["open", { "ask": 1 }], "silent": [],
    });
    let crash = serde_json::json!({ "blow": [40, { "crash": { "who": "server-0", "down": 2000 } }] });
    let drop = serde_json::json!({
        "message": [{ "round": 1, "kind": "share", "from": "p3", "to": "server-0", "nth": 0 }, "drop"],
    });
    let case = serde_json::json!({ "seed": 9, "shape": shape, "faults": [crash, drop] });
    std::fs::write(file.path(), case.to_string()).unwrap();
    let ended = simulate(&format!("--faults --replay {}", file.path().display()));
    assert_eq!((ended.code, &ended.json()["failure"]), (Some(0), &Value::Null), "{ended:#?}");
    std::fs::write(file.path(), "{}").unwrap();
    assert_eq!(simulate(&format!("--faults --replay {}", file.path().display())).code, Some(1));
}
