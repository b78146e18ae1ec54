//! `ward bench` measures what it says; how fast anything is, is no matter here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::Home;

#[test]
fn bench_measures_pairs_and_checks_every_sum() {
    let home = Home::new();
    let ended = home.run("--json bench --patients 6 --dim 1000 --rounds 2");
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let report = ended.json();
    assert_eq!((&report["patients"], &report["dim"], &report["ring"]), (&6.into(), &1000.into(), &32.into()));
    assert_eq!(report["cohort"], 6);
    assert_eq!(report["audit"], "sample");
    for field in ["plain_s", "secure_s", "ratio", "checks_s", "client_mask_ms", "server_peak_mib"] {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}: {report}");
    }
    for field in ["server_cpu_s", "member_cpu_s"] {
        assert!(report[field].as_f64().unwrap() >= 0.0, "{field}: {report}");
    }
    assert!(report["bytes_up_per_coordinate"].as_f64().unwrap() > 4.0, "{report}");
    for part in ["keystream", "BLAKE3", "pair 1 of 2", "pair 2 of 2"] {
        assert!(ended.stderr.contains(part), "{part}: {ended:#?}");
    }
    home.nothing_runs();
    // A home that is in use is nobody's to measure in.
    assert!(home.run("bench --patients 6").refused().contains("not empty"));
}

#[test]
fn who_drops_in_the_middle_of_an_upload_is_in_neither_sum() {
    let home = Home::new();
    // Three chunks at 24 bits, over two servers; one of ten patients sends only the first of them.
    let ended =
        home.run("--json bench --patients 10 --dim 400000 --ring 24 --drop 10 --servers 2 --rounds 1 --audit full");
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(ended.json()["cohort"], 9, "{ended:#?}");
}
