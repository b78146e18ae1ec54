//! Mask sums are checked: t+1 holders of each block vouch for its sum.
//!
//! A test is called after its attack and says what stops it: the right sum, or a typed abort, and who is accused, which is
//! never somebody honest.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use protocol::memory::{Delivery, Step};
use protocol::message::*;
use protocol::*;
use serde_bytes::ByteBuf;
use support::*;

/// What a liar does to the words of its sealed piece `piece`, of those that answer this kind.
#[derive(Clone, Copy)]
struct Lie {
    kind: Kind,
    piece: usize,
}

/// One who adds one to a coordinate of what it seals, whenever it seals.
struct Liar {
    me: Me,
    session: SessionId,
    lies: Vec<Lie>,
    hospital: SealSecret,
    /// What it sent whose pieces are on their way.
    held: Option<(Delivery, MaskSum, Vec<ByteBuf>)>,
    /// Whether it says nothing before it has seen which chunks are checked, and then lies in another one.
    waits: bool,
}

impl Liar {
    fn sit(study: &mut Study, who: usize, lies: &[Lie]) {
        let mut liar = Self::new(study, who, lies);
        study.net.tamper(move |delivery| liar.pass(delivery));
    }

    /// One that lies in its mask sum of eight chunks, in one that is not drawn.
    fn sit_and_wait(study: &mut Study, who: usize) {
        let mut liar = Liar { waits: true, ..Self::new(study, who, &[]) };
        study.net.tamper(move |delivery| match delivery.address.kind {
            Kind::Check if liar.waits => {
                let check: Check = Frame::decode(&delivery.payload).unwrap().envelope.body().unwrap();
                liar.waits = false;
                // The first piece says what of: that of chunk j is j + 1.
                let another = (check.chunks[0] as usize + 1) % 8;
                liar.lies = vec![lie(Kind::MaskSum, another + 1)];
                let late = liar.finish();
                [vec![delivery], late].concat()
            }
            _ => liar.pass(delivery),
        });
    }

    fn new(study: &Study, who: usize, lies: &[Lie]) -> Self {
        let state = study.stored_bytes(&name("hospital"), "state").unwrap();
        let randomness = SessionRandomness::new(state[state.len() - 32..].try_into().unwrap());
        let hospital = SealSecret::from_randomness(&randomness, &[b"hospital"]);
        let me = study.net.me(&p(who)).unwrap().clone();
        let (session, lies) = (study.session, lies.to_vec());
        Liar { me, session, lies, hospital, held: None, waits: false }
    }

    fn pass(&mut self, d: Delivery) -> Vec<Delivery> {
        if d.address.from != self.me.name || d.receiver != name("hospital") {
            return vec![d];
        }
        match d.address.kind {
            Kind::Chunk => self.chunk(d),
            kind if self.lies.iter().any(|lie| lie.kind == kind) || (self.waits && kind == Kind::MaskSum) => {
                let frame = Frame::decode(&d.payload).unwrap();
                // A CheckSum has the same fields.
                let sum: MaskSum = rmp_serde::from_slice(&frame.envelope.body).unwrap();
                let pieces: Vec<ByteBuf> = rmp_serde::from_slice(&frame.attachment).unwrap();
                self.held = Some((d, sum, pieces));
                self.finish()
            }
            _ => vec![d],
        }
    }

    /// A piece that follows its message.
    fn chunk(&mut self, d: Delivery) -> Vec<Delivery> {
        let Some((_, sum, pieces)) = &mut self.held else { return vec![d] };
        if !sum.pieces.contains(&chunk_digest(&d.payload)) {
            return vec![d];
        }
        pieces.push(ByteBuf::from(d.payload.to_vec()));
        self.finish()
    }

    /// Once all pieces are here: the same again, with the lie.
    fn finish(&mut self) -> Vec<Delivery> {
        let waits = self.waits;
        let whole = |held: &mut (Delivery, MaskSum, Vec<ByteBuf>)| !waits && held.1.pieces.len() == held.2.len();
        let Some((d, sum, pieces)) = self.held.take_if(whole) else { return vec![] };
        let frame = Frame::decode(&d.payload).unwrap();
        let (after, round) = (frame.envelope.after, d.address.round.0.to_le_bytes());
        let parts: [&[u8]; 4] = [&self.session.0, &round, self.me.name.as_str().as_bytes(), &after.0];
        let info = digest("ward/1 mask sum info", &parts).0;
        let opener = SumOpener::new(&self.hospital, &sum.encapsulation, &info).unwrap();
        let (sealer, encapsulation) = SumSealer::new(&self.hospital.public(), &info, [9; 32]).unwrap();
        let seal = |(at, piece): (usize, &ByteBuf)| {
            let mut text = opener.open(at as u32, piece).unwrap().to_vec();
            if self.lies.iter().any(|lie| lie.kind == d.address.kind && lie.piece == at) {
                text[0] = text[0].wrapping_add(1);
            }
            ByteBuf::from(sealer.seal(at as u32, &text).unwrap())
        };
        let pieces: Vec<ByteBuf> = pieces.iter().enumerate().map(seal).collect();
        let digests = pieces.iter().map(|piece| chunk_digest(piece)).collect();
        let body = MaskSum { encapsulation: ByteBuf::from(encapsulation), pieces: digests };
        let envelope = Envelope { body: encode(&body).into(), ..frame.envelope };
        let signed = Signed::new(&envelope, &self.me.signing);
        let mut out = vec![Delivery { payload: signed.frame(&encode(&pieces[..1].to_vec())), ..d.clone() }];
        out.extend(pieces[1..].iter().map(|piece| {
            let address = Address { kind: Kind::Chunk, ..d.address.clone() };
            Delivery { address, payload: Bytes::from(piece.to_vec()), ..d.clone() }
        }));
        out
    }
}

fn lie(kind: Kind, piece: usize) -> Lie {
    Lie { kind, piece }
}

fn checked(study: &Study) -> Checked {
    study.net.answers().last().unwrap().checked.clone()
}

/// Who was found to lie in which kind.
fn found(study: &Study) -> Vec<(Name, Kind)> {
    study.faults().into_iter().map(|(_, fault)| (fault.from, fault.kind)).collect()
}

/// Who sends a mask sum of the first round, if all confirm: the seat that comes first.
const SENDER: usize = 1;

/// Promise 3: with c=4, t=1 a member that adds one to one coordinate is named, in its mask sum, in what it vouches for or
/// in both alike; and the right sum stands.
#[test]
fn a_member_that_adds_one_is_named_and_the_right_sum_stands() {
    let (sum, vouched) = (lie(Kind::MaskSum, 1), lie(Kind::CheckSum, 1));
    for lies in [vec![sum], vec![vouched], vec![sum, vouched]] {
        let mut study = Build::new(6, 4, 1).wide(3).start();
        Liar::sit(&mut study, SENDER, &lies);
        assert_eq!(study.ask(), study.sum(0..6));
        assert_eq!(study.accused(), [p(SENDER)]);
        // What it vouches for is compared first.
        let kind = lies.last().unwrap().kind;
        assert_eq!(found(&study), [(p(SENDER), kind)]);
        assert_eq!(checked(&study).caught, [p(SENDER)]);
    }
}

/// A hospital that is killed while it finds out who lies goes on: it asks nobody for the same twice, so nobody honest
/// accuses it, and only the liar is named.
#[test]
fn a_hospital_that_is_killed_at_any_step_still_names_the_liar_alone() {
    let (sum, vouched) = (lie(Kind::MaskSum, 1), lie(Kind::CheckSum, 1));
    for lies in [vec![sum], vec![sum, vouched]] {
        for steps in (80..).step_by(7) {
            let mut study = Build::new(6, 4, 1).wide(3).start();
            Liar::sit(&mut study, SENDER, &lies);
            study.put(|_| {});
            let until = study.net.now().plus_seconds(60);
            if !(0..steps).all(|_| study.net.advance(until)) || !study.ends().is_empty() {
                break;
            }
            study.net.kill(&name("hospital"));
            study.net.revive(&name("hospital"));
            study.net.run();
            assert_eq!(study.end(), study.sum(0..6), "after {steps} steps");
            assert_eq!(study.accused(), [p(SENDER)], "after {steps} steps: {:?}", study.faults());
        }
    }
}

/// With c=3, t=1 each block has two holders: where they differ nobody can tell who lies, so nobody is accused; a sender that
/// contradicts what it vouches for itself is named.
#[test]
fn two_holders_that_differ_are_named_with_their_block_and_nobody_is_accused() {
    let mut study = Build::new(5, 3, 1).start();
    Liar::sit(&mut study, SENDER, &[lie(Kind::CheckSum, 1)]);
    let End::Aborted(AbortReason::MaskSumsDiffer { block, holders }) = study.ask() else { panic!("{:?}", study.end()) };
    assert!(block != SENDER as u16 && holders.len() == 2 && holders.contains(&p(SENDER)), "{block} {holders:?}");
    assert_eq!(study.accused(), []);

    let mut study = Build::new(5, 3, 1).start();
    Liar::sit(&mut study, SENDER, &[lie(Kind::MaskSum, 1)]);
    assert_eq!(study.ask(), study.sum(0..5));
    assert_eq!(found(&study), [(p(SENDER), Kind::MaskSum)]);
}

/// *Checks*: for c < 3t mask sums are unchecked: the plan and the result say so, and a lie is not seen.
#[test]
fn below_three_t_mask_sums_are_unchecked_and_it_is_said() {
    for (c, t) in [(5, 2), (3, 2)] {
        let mut study = Build::new(6, c, t).start();
        assert!(study.build.plan(study.net.now()).explain().contains("mask sums unchecked"));
        Liar::sit(&mut study, SENDER, &[lie(Kind::MaskSum, 1)]);
        assert_ne!(study.ask(), study.sum(0..6));
        assert_eq!((checked(&study).masks, checked(&study).masked), (None, 1));
        assert_eq!(study.net.count(Kind::Check), 0);
        assert_eq!(study.accused(), []);
    }
}

/// Honest rounds, of any committee, give the same sum and accuse nobody.
#[test]
fn honest_holders_vouch_for_each_other() {
    for (c, t) in [(3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (10, 3)] {
        let mut study = Build::new(11, c, t).start();
        assert_eq!(study.ask(), study.sum(0..11), "{c}, {t}");
        assert_eq!((checked(&study).masks, checked(&study).caught), (Some(1), vec![]));
        assert!(study.net.count(Kind::CheckSum) > usize::from(t));
        assert_eq!(study.accused(), []);
    }
}

/// In a long vector that is checked in full a lie in any chunk is found; a sample, here of one of eight chunks, finds it where
/// it draws that chunk.
#[test]
fn a_lie_in_a_long_vector_is_found_in_what_is_checked() {
    let is_found = |audit, seed| {
        let mut study = Build { seed, ..Build::new(5, 4, 1) }.wide(300_000).start();
        Liar::sit(&mut study, SENDER, &[lie(Kind::MaskSum, 2)]);
        let end = study.ask_with(|ask| ask.audit = audit);
        let is_found = study.accused() == [p(SENDER)];
        assert_eq!(end == study.sum(0..5), is_found);
        is_found
    };
    assert!((0..4).all(|seed| is_found(Audit::Full, seed)));
    let sampled = (0..24).filter(|seed| is_found(Audit::Sample, *seed)).count();
    assert!((1..12).contains(&sampled), "{sampled} of 24");
}

/// Who sees which chunks are checked before it sends its mask sum would lie in the others: what comes after they were drawn
/// does not count.
#[test]
fn a_mask_sum_that_comes_when_it_is_known_what_is_checked_does_not_count() {
    for seed in 0..8 {
        let mut study = Build { seed, ..Build::new(5, 4, 1) }.wide(300_000).start();
        Liar::sit_and_wait(&mut study, SENDER);
        let end = study.ask();
        assert!(end == study.sum(0..5), "seed {seed}");
        assert_eq!(study.accused(), []);
        assert!(study.dropped(&name("hospital")).iter().any(|(kind, _)| *kind == Kind::MaskSum), "seed {seed}");
    }
}

/// A holder that does not answer is replaced by another one where there is one.
#[test]
fn a_holder_that_says_nothing_is_replaced_or_named() {
    for c in [3, 4] {
        let mut study = Build::new(6, c, 1).start();
        let cut = study.cut(|d| d.address.kind == Kind::CheckSum && d.address.from == p(SENDER));
        let silent = AbortReason::Unchecked { missing: vec![p(SENDER)] };
        let expected = if c == 3 { End::Aborted(silent) } else { study.sum(0..6) };
        assert_eq!(study.ask(), expected);
        assert_eq!(study.accused(), []);
        cut.mend();
    }
}

/// A study in which all members confirmed and the hospital is gone: Opens and Checks are ours to forge. The Open, which
/// asks for no sum.
fn confirmed() -> (Study, Signed) {
    confirmed_of(Build::new(6, 4, 1))
}

fn confirmed_of(build: Build) -> (Study, Signed) {
    let mut study = build.start();
    study.put(|_| {});
    study.until(|net| net.count(Kind::Confirm) == 4);
    study.net.kill(&name("hospital"));
    let confirms = study.frames(Kind::Confirm).into_iter().map(|(_, frame)| frame.signed()).collect();
    let open = Open { confirms, senders: vec![] };
    let open = study.sign(&name("hospital"), Kind::Open, To::All, study.cohort().digest, &open);
    (study, open)
}

fn send_check(study: &mut Study, open: Digest, blocks: &[u16], chunks: &[u32]) {
    post_check(study, open, blocks, chunks);
    study.net.sleep(100);
}

/// Puts a Check on its way.
fn post_check(study: &mut Study, open: Digest, blocks: &[u16], chunks: &[u32]) {
    let check = Check { blocks: blocks.to_vec(), chunks: chunks.to_vec() };
    let check = study.sign(&name("hospital"), Kind::Check, To::One(p(0)), open, &check);
    study.deliver(&check, &p(0), &[]);
}

/// *Checks*: a member vouches only for a cohort that it confirmed and that q members opened, for each sum once, for what it
/// holds, and until the round's end.
#[test]
fn a_member_vouches_only_for_what_it_released() {
    let (mut study, open) = confirmed();
    let cohort = study.cohort().digest;
    send_check(&mut study, cohort, &[1], &[0]);
    send_check(&mut study, Digest([9; 32]), &[1], &[0]);
    // Before the Open it waits; it is answered once that is here.
    send_check(&mut study, open.digest(), &[1], &[0]);
    assert_eq!(study.net.count(Kind::CheckSum), 0);
    study.deliver(&open, &p(0), &[]);
    study.net.sleep(100);
    assert_eq!(study.net.count(Kind::CheckSum), 1);
    let before = "a Check of sums that this member was asked for before";
    let blocks = "an Open or Check of blocks that stand twice, unsorted, or that this member does not hold";
    let chunks = "a Check of chunks that the vector does not have, unsorted, or too many";
    let cases: [(&[u16], &[u32], &str); 7] = [
        (&[1, 2], &[0], before),
        (&[0], &[0], blocks),
        (&[], &[0], blocks),
        (&[3, 2], &[0], blocks),
        (&[2], &[1], chunks),
        (&[2], &[], chunks),
        (&[2], &[0, 0], chunks),
    ];
    for (asked, of, rule) in cases {
        send_check(&mut study, open.digest(), asked, of);
        assert_eq!(rule_of(&study.faults().pop().unwrap().1), rule, "{asked:?} {of:?}");
    }
    assert_eq!(study.net.count(Kind::CheckSum), 1);
    send_check(&mut study, open.digest(), &[2, 3], &[0]);
    assert_eq!(study.net.count(Kind::CheckSum), 2);
}

/// A member that did not confirm the cohort of an Open does not vouch for it; after the round's end nobody does.
#[test]
fn a_check_of_another_cohort_or_after_the_end_is_not_answered() {
    let (mut study, _) = confirmed();
    let other = study.forge_cohort(1, study.begin().digest, 0..5).digest();
    let confirms = (0..4).map(|i| study.confirm(&p(i), other)).collect();
    let open = Open { confirms, senders: vec![] };
    let open = study.sign(&name("hospital"), Kind::Open, To::All, other, &open);
    study.deliver(&open, &p(0), &[]);
    send_check(&mut study, open.digest(), &[1], &[0]);
    assert_eq!(study.net.count(Kind::CheckSum), 0);

    let (mut study, open) = confirmed();
    study.deliver(&open, &p(0), &[]);
    study.net.sleep(60_000);
    send_check(&mut study, open.digest(), &[1], &[0]);
    assert_eq!(study.net.count(Kind::CheckSum), 0);
}

/// What a member has of the sums that it vouches for: how many are being made, sealed or on their way.
#[derive(Default)]
struct Held {
    making: BTreeSet<JobId>,
    sealing: BTreeSet<JobId>,
    most: usize,
}

impl Held {
    fn see(&mut self, step: &Step<'_>, sums: usize) {
        match step {
            Step::Effects(effects) => {
                for (id, job) in &effects.jobs {
                    let under_way = if matches!(job, Job::Seal { .. }) { &mut self.sealing } else { &mut self.making };
                    under_way.insert(*id);
                }
            }
            Step::Input(Input::Done(id, _)) => {
                self.making.remove(id);
                self.sealing.remove(id);
            }
            Step::Input(_) => {}
        }
        self.most = self.most.max(self.making.len() + sums * self.sealing.len());
    }
}

/// *exhaust a member's memory by Checks*: whatever a hospital asks for, a member makes the sums of one Check at a time, and
/// a Check asks for no more than 128.
#[test]
fn a_hospital_that_asks_for_everything_at_once_fills_no_members_memory() {
    let (mut study, open) = confirmed_of(Build::new(6, 4, 1).wide(350_000));
    study.deliver(&open, &p(0), &[]);
    let held = Rc::new(RefCell::new(Held::default()));
    let seen = held.clone();
    study.net.watch(move |who, step| {
        if *who == p(0) {
            seen.borrow_mut().see(step, 4);
        }
    });
    // Six chunks of three blocks, of which each Check asks four sums, more than fit a message: all Checks are on their way
    // before one is answered.
    for (blocks, chunks) in [([1, 2], [0, 1]), ([1, 2], [2, 3]), ([1, 3], [4, 5])] {
        post_check(&mut study, open.digest(), &blocks, &chunks);
    }
    study.net.sleep(100);
    assert_eq!((study.net.count(Kind::CheckSum), held.borrow().most), (3, 4));
    let many: Vec<u32> = (0..129).collect();
    let check = Check { blocks: vec![3], chunks: many };
    let check = study.sign(&name("hospital"), Kind::Check, To::One(p(0)), open.digest(), &check);
    study.deliver(&check, &p(0), &[]);
    study.net.sleep(100);
    assert!(matches!(study.faults().pop().unwrap().1.wrong, Wrong::Wire(_)), "{:?}", study.faults());
    assert_eq!(study.net.count(Kind::CheckSum), 3);
}

/// No copy of an answer is kept: what the board lost of it is made again, byte for byte.
#[test]
fn answers_to_checks_that_the_board_lost_are_made_again() {
    let (mut study, open) = confirmed_of(Build::new(6, 4, 1).wide(200_000));
    study.deliver(&open, &p(0), &[]);
    // More than fit a message.
    for chunks in [[0, 1, 2, 3], [4, 5, 6, 7]] {
        post_check(&mut study, open.digest(), &[1, 2], &chunks);
    }
    study.net.sleep(100);
    let of_answers = |address: &Address| {
        address.from == p(0) && address.to == To::One(name("hospital")) && address.kind != Kind::Confirm
    };
    let before: Vec<_> = study.net.board().clone().into_iter().filter(|(address, _)| of_answers(address)).collect();
    assert_eq!(before.iter().filter(|(address, _)| address.kind == Kind::CheckSum).count(), 2);
    before.iter().for_each(|(address, _)| study.net.lose(address));
    let at_once = Rc::new(Cell::new(0));
    let sent = at_once.clone();
    study.net.watch(move |who, step| {
        if let Step::Effects(effects) = step
            && *who == p(0)
        {
            let of_checks = effects.send.iter().filter(|outgoing| outgoing.address.kind == Kind::CheckSum).count();
            sent.set(sent.get().max(of_checks));
        }
    });
    study.net.reconnect(&p(0));
    assert_eq!(at_once.get(), 0, "a copy was kept");
    study.net.sleep(100);
    assert_eq!(at_once.get(), 1);
    before.iter().for_each(|(address, payload)| assert_eq!(study.net.board().get(address), Some(payload)));
}
