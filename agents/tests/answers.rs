//! A round that was opened is never without its answer, whenever the hospital is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::Read as _;
use std::process::Stdio;

use support::Study;

#[test]
fn an_answer_is_printed_before_it_is_forgotten() {
    let mut study = Study::new(None);
    ["p001", "p002", "p003"].iter().for_each(|name| study.enrol(name, "member"));
    study.start_broker();
    study.start_server();
    let columns: Vec<String> = (0..1000).map(|at| format!("column-{at}")).collect();
    let row = vec!["1"; columns.len()].join(",");
    let table = study.home.write("table.csv", &format!("{}\n{row}\n{row}\n{row}\n", columns.join(",")));
    let named: Vec<&str> = columns.iter().flat_map(|column| ["--column", column]).collect();
    let rows =
        ["patients", "--csv", table.to_str().unwrap(), "--snapshot", "1", "--bound", "1000", "--scale", "1000000"];
    study.parties.insert("rows".into(), study.home.start_of(&[&rows[..], &named[..]].concat()));
    study.parties["rows"].has_said("is ready", 3);

    // Nobody reads its answer, which is longer than what a pipe takes: it stands in the middle of it, and is killed there.
    let asked = [&["--json", "hospital", "sum", "--bound", "1000", "--last"], &named[..]].concat();
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut hospital = study.home.command_of(&asked).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    hospital.kill().unwrap();
    hospital.wait().unwrap();
    let again = study.home.run_of(&asked);
    assert_eq!((again.round(), again.sums()), (1, vec!["3".to_string(); columns.len()]), "{}", again.stderr);
    assert_eq!(study.home.run("hospital sum --session 0").code, Some(2), "its session is over");
}
