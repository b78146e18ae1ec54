//! The masked sum is checked: the hospital adds up again what the patients signed.
//!
//! A test is called after its attack and says what stops it: the right sum, or a typed abort, and who is accused.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use protocol::message::*;
use protocol::*;
use support::*;

/// Eight chunks of 24 bits, four for each of two servers.
const LONG: u32 = 300_000;

fn long() -> Study {
    Build { servers: 2, ..Build::new(5, 4, 1) }.wide(LONG).start()
}

fn checked(study: &Study) -> Checked {
    study.net.answers().last().unwrap().checked.clone()
}

/// What the hospital says of a server that adds wrongly.
fn caught(server: &Name) -> Fault {
    let wrong = Wrong::Rule("a masked sum that is not the sum of the vectors it was sent");
    Fault { from: server.clone(), kind: Kind::MaskedSum, wrong }
}

/// Adds one to the first coordinate of the sum that `liar` sends, and signs it again.
fn add_one(study: &mut Study, liar: &Name) {
    let (liar, signing) = (liar.clone(), study.net.me(liar).unwrap().signing.clone());
    let lie = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[0] = bytes[0].wrapping_add(1);
        bytes
    };
    let mut said: Option<memory::Delivery> = None;
    study.net.tamper(move |d| {
        if d.address.from != liar || d.receiver != name("hospital") {
            return vec![d];
        }
        match d.address.kind {
            Kind::MaskedSum => {
                let frame = Frame::decode(&d.payload).unwrap();
                let sum: MaskedSum = frame.envelope.body().unwrap();
                if sum.chunks.len() == 1 && chunk_digest(&frame.attachment) == sum.chunks[0] {
                    let wrong = lie(&frame.attachment);
                    let sum = MaskedSum { chunks: vec![chunk_digest(&wrong)] };
                    let envelope = Envelope { body: encode(&sum).into(), ..frame.envelope };
                    return vec![memory::Delivery { payload: Signed::new(&envelope, &signing).frame(&wrong), ..d }];
                }
                said = Some(d);
                vec![]
            }
            Kind::Chunk => {
                // The sum's chunks follow the message that names them, its first one first.
                let Some(said) = said.take() else { return vec![d] };
                let frame = Frame::decode(&said.payload).unwrap();
                let mut sum: MaskedSum = frame.envelope.body().unwrap();
                assert_eq!(sum.chunks[0], chunk_digest(&d.payload));
                let wrong = lie(&d.payload);
                sum.chunks[0] = chunk_digest(&wrong);
                let envelope = Envelope { body: encode(&sum).into(), ..frame.envelope };
                let payload = Signed::new(&envelope, &signing).frame(&frame.attachment);
                vec![memory::Delivery { payload, ..said }, memory::Delivery { payload: wrong.into(), ..d }]
            }
            _ => vec![d],
        }
    });
}

/// Promise 3: in a vector of one chunk a server that adds one to one coordinate is always caught, and named; the right
/// sum is there all the same.
#[test]
fn a_server_that_adds_one_is_named_and_the_right_sum_stands() {
    let mut study = Build::new(5, 4, 1).wide(4).start();
    add_one(&mut study, &name("server"));
    assert_eq!(study.ask(), study.sum(0..5));
    assert_eq!(study.faults(), [(name("hospital"), caught(&name("server")))]);
    assert_eq!(checked(&study).caught, [name("server")]);
}

/// As above, in a long vector that is checked in full: of two servers the one that lies is named.
#[test]
fn of_two_servers_the_one_that_adds_wrongly_is_named() {
    for liar in 0..2 {
        let mut study = long();
        add_one(&mut study, &server(liar));
        assert_eq!(study.ask_with(|ask| ask.audit = Audit::Full), study.sum(0..5));
        assert_eq!(study.faults(), [(name("hospital"), caught(&server(liar)))]);
    }
}

/// SECURITY.md: what sampling misses. One of eight chunks is drawn: the lie is caught where it is that one, and then
/// all chunks are added again.
#[test]
fn a_sample_catches_a_lie_in_what_it_draws_and_no_other() {
    let mut caught = 0;
    for seed in 0..32 {
        let mut study = Build { seed, servers: 2, ..Build::new(5, 4, 1) }.wide(LONG).start();
        add_one(&mut study, &server(1));
        let end = study.ask();
        let is_caught = !study.accused().is_empty();
        assert_eq!(end == study.sum(0..5), is_caught);
        assert_eq!(checked(&study).masked, if is_caught { 8 } else { 1 });
        caught += u32::from(is_caught);
    }
    assert!((1..12).contains(&caught), "{caught} of 32");
}

/// Honest rounds, checked in any way, give the same sum and accuse nobody.
#[test]
fn honest_rounds_pass_every_check() {
    for (audit, masked) in [(Audit::Full, 8), (Audit::Sample, 1), (Audit::None, 0)] {
        let mut study = long();
        assert_eq!(study.ask_with(|ask| ask.audit = audit), study.sum(0..5));
        assert_eq!(study.accused(), []);
        let found = checked(&study);
        assert_eq!((found.chunks, found.masked, found.caught), (8, masked, vec![]));
    }
}

/// *Checks*: what the board cannot produce is an Abort, never a skipped check; nobody is accused of it.
#[test]
fn a_share_or_chunk_that_the_board_has_lost_is_an_abort() {
    for (kind, is_altered) in [(Kind::Share, false), (Kind::Share, true), (Kind::Chunk, false), (Kind::Chunk, true)] {
        let mut study = long();
        let cut = study.cut(|d| d.address.kind == Kind::Cohort && d.receiver == name("hospital"));
        study.put(|ask| ask.audit = Audit::Full);
        study.net.sleep(1_000);
        let of =
            |address: &Address| address.kind == kind && address.from == p(4) && address.to == To::One(name("server"));
        let address = study.net.board().keys().find(|address| of(address)).unwrap().clone();
        if is_altered {
            study.net.alter(&address, vec![7; 100].into());
        } else {
            study.net.lose(&address);
        }
        cut.mend();
        let cohort = study.cohort();
        let listed = study
            .net
            .board()
            .iter()
            .find(|(address, _)| address.kind == Kind::Cohort && address.to == To::One(name("hospital")));
        let attachment = Frame::decode(listed.unwrap().1).unwrap().attachment;
        study.deliver(&cohort.signed(), &name("hospital"), &attachment);
        study.net.run();
        assert_eq!(study.end(), End::Aborted(AbortReason::CheckLost { patient: p(4) }), "{kind} {is_altered}");
        assert_eq!(study.accused(), []);
    }
}

/// The hospital reads Shares and chunks of the cohort that are addressed to servers, and nothing else.
#[test]
fn the_hospital_reads_what_servers_were_sent_and_nothing_else() {
    let mut study = long();
    let read = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = read.clone();
    study.net.watch(move |who, step| {
        if let (memory::Step::Effects(effects), true) = (step, *who == name("hospital")) {
            seen.borrow_mut().extend(effects.read.iter().cloned());
        }
    });
    study.ask();
    let read = read.borrow();
    assert_eq!(read.len(), 10);
    let servers = [To::One(server(0)), To::One(server(1))];
    assert!(read.iter().all(|a| servers.contains(&a.to) && matches!(a.kind, Kind::Share | Kind::Chunk)));
}
