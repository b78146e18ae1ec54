//! Nothing that prints shows a secret: every machine, input, effect, event, job and outcome of whole rounds is printed and
//! searched for the values, the sum and every key, in decimal and in hexadecimal; and what travels for the bytes themselves.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::*;
use support::*;

/// A value that occurs nowhere by chance.
fn canary(i: usize) -> i64 {
    987_654_321_000_000 + 7_919 * (i as i64 + 1)
}

/// How a secret may show in print: hexadecimal, and as a list of bytes in decimal.
fn prints(secret: &[u8]) -> Vec<String> {
    let list = format!("{:?}", &secret[..12]);
    let escaped: String =
        secret[..12].iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    vec![hex::encode(&secret[..12]), hex::encode_upper(&secret[..12]), list[1..list.len() - 1].into(), escaped]
}

struct Canaries {
    study: Study,
    trace: Rc<RefCell<String>>,
    secrets: Vec<[u8; 32]>,
}

/// Two rounds with payload keys, everything printed on its way.
fn run() -> Canaries {
    let mut study = Build { payloads: true, bound: 1 << 50, ..Build::new(5, 3, 1) }.parties();
    let trace = Rc::new(RefCell::new(String::new()));
    let sink = trace.clone();
    study.net.watch(move |who, step| {
        let mut sink = sink.borrow_mut();
        *sink += &format!("{who}: {step:?}\n{step:#?}\n");
        if let memory::Step::Effects(effects) = step {
            // Alone too, as a program would log them.
            effects.events.iter().for_each(|event| *sink += &format!("{event:?}\n"));
            effects.jobs.iter().for_each(|job| *sink += &format!("{job:?}\n"));
        }
    });
    for i in 0..5 {
        let record = Record::new(BTreeMap::from([("value".into(), vec![canary(i)])]), &study.build.schema()).unwrap();
        *trace.borrow_mut() += &format!("{record:?}\n");
        study.net.offer(&p(i), &snapshot("2"), record).unwrap();
    }
    study.announce();
    let mut secrets = Vec::new();
    for round in 0..3 {
        if round > 0 {
            study.put(|ask| ask.snapshot = snapshot("2"));
        }
        let until = study.net.now().plus_seconds(100);
        let mut steps = 0;
        while study.net.advance(until) {
            steps += 1;
            if steps % 10 == 0 {
                secrets.extend(support::secrets(&study));
                for who in (0..5).map(p).chain([name("server"), name("hospital")]) {
                    *trace.borrow_mut() += &study.net.describe(&who);
                }
            }
        }
    }
    secrets.sort_unstable();
    secrets.dedup();
    let sum: i64 = (0..5).map(canary).sum();
    assert_eq!(study.ends(), [End::Opened(vec![sum]), End::Opened(vec![sum])]);
    Canaries { study, trace, secrets }
}

/// No secret reaches a log, an error, a panic or a header.
#[test]
fn nothing_that_prints_shows_a_value_a_sum_or_a_key() {
    let canaries = run();
    let trace = canaries.trace.borrow();
    // What is searched is there: every kind of thing was printed, and the needles would be found.
    for present in [
        "Input(Message",
        "Done(",
        "Effects {",
        "Opened(Answer(",
        "Mask {",
        "Expand {",
        "Reconstructed(",
        "Member {",
        "Enrolled(",
        "Running {",
        "Opening",
        "Write(session/",
        "SealSecret(..)",
        "Seed(..)",
        "Root(..)",
    ] {
        assert!(trace.contains(present), "{present} was never printed");
    }
    assert!(canaries.secrets.len() > 60, "{}", canaries.secrets.len());
    let sum: i64 = (0..5).map(canary).sum();
    for number in (0..5).map(canary).chain([sum]) {
        for text in [number.to_string(), format!("{number:x}"), hex::encode(number.to_le_bytes())] {
            assert!(!trace.contains(&text), "a value is printed as {text}");
        }
    }
    for secret in &canaries.secrets {
        for text in prints(secret) {
            assert!(!trace.contains(&text), "a key is printed as {text}");
        }
    }
}

/// Promise 1: nothing that travels has a value or a key in the clear, in its bytes or in its name.
#[test]
fn nothing_that_travels_has_a_value_or_a_key_in_the_clear() {
    let canaries = run();
    let needles: Vec<Vec<u8>> = (0..5)
        .flat_map(|i| [canary(i).to_le_bytes()[..6].to_vec(), canary(i).to_string().into_bytes()])
        .chain(canaries.secrets.iter().map(|secret| secret.to_vec()))
        .collect();
    assert!(canaries.study.net.board().len() > 100);
    for (address, payload) in canaries.study.net.board() {
        let print = format!("{address:?}");
        assert!(!(0..5).any(|i| print.contains(&canary(i).to_string())));
        for needle in &needles {
            assert!(!payload.windows(needle.len()).any(|window| window == needle), "{address:?}");
        }
    }
}

/// Who guesses the sum of a few ages finds nothing to test a guess by: what travels has no digest of the sum, and none of the
/// mask sums, from which it would follow.
#[test]
fn nothing_that_travels_lets_a_guess_of_the_sum_be_tested() {
    let (mut study, ring) = (Build::new(5, 3, 1).start(), Ring::new(32).unwrap());
    let sums: Rc<RefCell<Vec<Lanes>>> = Rc::default();
    let (sink, masked): (_, Rc<RefCell<Vec<Digest>>>) = (sums.clone(), Rc::default());
    let packed = masked.clone();
    study.net.watch(move |_, step| match step {
        memory::Step::Input(Input::Done(_, Outcome::Expanded { sum, .. })) => sink.borrow_mut().push(sum.clone()),
        memory::Step::Input(Input::Done(_, Outcome::Packed { digests, .. })) => packed.borrow_mut().extend(digests),
        _ => {}
    });
    study.put(|ask| ask.ring = Some(ring));
    study.net.run();
    let [End::Opened(sum)] = &study.ends()[..] else { panic!("{:?}", study.ends()) };
    let guess = sum.iter().flat_map(|word| word.to_le_bytes()[..ring.word_bytes()].to_vec()).collect();
    let sums = sums.borrow();
    assert!(sums.len() >= 3, "{}", sums.len());
    let travels = |digest: &[u8]| study.net.board().iter().any(|(_, text)| text.windows(32).any(|part| part == digest));
    assert!(masked.borrow().iter().any(|digest| travels(&digest.0)), "a digest that travels is found");
    for words in sums.iter().map(|sum| sum.pack(ring)).chain([guess]) {
        assert!(!travels(&chunk_digest(&words).0) && !travels(blake3::hash(&words).as_bytes()));
    }
}

/// Nobody's store but a patient's own has its value; nobody's but the two ends' has a chain.
#[test]
fn nobody_else_stores_a_value() {
    let canaries = run();
    for who in (0..5).map(p).chain([name("server"), name("hospital")]) {
        for (key, value) in canaries.study.net.store(&who).unwrap() {
            for i in (0..5).filter(|i| p(*i) != who) {
                for number in [canary(i).to_le_bytes(), canary(i).to_be_bytes()] {
                    let needle = if number[0] == 0 { &number[2..] } else { &number[..6] };
                    assert!(!value.windows(6).any(|window| window == needle), "{who}: {key}");
                }
            }
        }
    }
    let own = canaries.study.net.store(&p(0)).unwrap();
    let number = canary(0).to_be_bytes();
    assert!(own["values/2"].windows(6).any(|window| window == &number[2..]), "the needle would be found");
}

/// Errors name the column and the rule, never the value.
#[test]
fn an_error_about_a_value_does_not_repeat_it() {
    let schema = Build::new(3, 3, 1).schema();
    let error = Record::new(BTreeMap::from([("value".into(), vec![canary(1)])]), &schema).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("987"));
}
