//! What the broker's operator is handed: [`Caretaker::take`], after the Announce of a session. It takes messages off the board
//! for the word of that session's hospital alone.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use protocol::*;
use serde_bytes::ByteBuf;

use super::{Corpus, bad};
use crate::support::samples::samples;
use crate::support::{Build, name, p, stand};

/// What the bytes are, behind the first two: the first of them. The second is the kind.
const USES: [&str; 4] = ["payload", "hospital", "patient", "hospital-of-no-session"];

/// A session that was announced.
struct Announced {
    authority: Arc<dyn Authority>,
    hospital: Me,
    patient: Me,
    session: SessionId,
    message: (Address, Bytes),
}

static ANNOUNCED: LazyLock<Announced> = LazyLock::new(|| {
    let mut study = Build::new(5, 3, 1).parties();
    let session = study.announce();
    let message = study.net.board().iter().find(|(address, _)| address.kind == Kind::Announce).unwrap();
    let me = |who: &Name| study.net.me(who).unwrap().clone();
    let hospital = me(&name("hospital"));
    let message = (message.0.clone(), message.1.clone());
    Announced { authority: hospital.authority.clone(), hospital, patient: me(&p(0)), session, message }
});

/// Hands the caretaker bytes as they are, or as what somebody signed. Whether something may be purged by it: that is never
/// anything but this session, or a round of it, and its hospital said so.
pub fn run(bytes: &[u8]) -> bool {
    let [what, kind, rest @ ..] = bytes else { return false };
    let (what, kind) = (USES[usize::from(*what) % USES.len()], Kind::ALL[usize::from(*kind) % Kind::ALL.len()]);
    let mut caretaker = Caretaker::new(ANNOUNCED.authority.clone());
    let (address, payload) = &ANNOUNCED.message;
    assert_eq!(caretaker.take(address, payload), Ok(None));
    let (address, signed) = message(what, kind, rest);
    let payload = if what == "payload" { Bytes::copy_from_slice(rest) } else { signed };
    let taken = caretaker.take(&address, &payload);
    let Ok(Some(purge)) = taken else { return false };
    assert!(what == "hospital" && matches!(kind, Kind::Result | Kind::Abort), "{what}: {purge:?}");
    let tag = SessionTag::from(ANNOUNCED.session);
    assert!([Purge::Round(tag, RoundNo(1)), Purge::Session(tag)].contains(&purge), "{purge:?}");
    // Once a session is over nothing more is taken off it.
    let again = caretaker.take(&address, &payload);
    assert_eq!(again, Ok(Some(purge).filter(|purge| matches!(purge, Purge::Round(..)))));
    true
}

/// The bytes as the body of a message to all, signed in the hospital's name.
fn message(what: &str, kind: Kind, rest: &[u8]) -> (Address, Bytes) {
    let Announced { hospital, patient, session, .. } = &*ANNOUNCED;
    let signer = if what == "patient" { patient } else { hospital };
    let session = if what == "hospital-of-no-session" { Digest([9; 32]) } else { *session };
    let (body, from) = (ByteBuf::from(rest), hospital.name.clone());
    let envelope = Envelope {
        version: VERSION,
        session,
        round: RoundNo(1),
        from,
        to: To::All,
        kind,
        after: Digest::default(),
        body,
    };
    stand(&Signed::new(&envelope, &signer.signing), &patient.name, &[])
}

pub fn corpus() -> Corpus {
    let mut corpus = Corpus::new();
    for (number, kind) in (0..).zip(Kind::ALL) {
        let Some(whole) = samples().into_iter().find(|sample| sample.kind == kind).map(|sample| sample.body) else {
            continue;
        };
        let mut add = |what: u8, of: &str, rest: &[u8]| {
            let name = format!("{kind}-{}-{of}", USES[usize::from(what)]);
            corpus.insert(name, [&[what, number], rest].concat());
        };
        add(1, "whole", &whole);
        if !matches!(kind, Kind::Announce | Kind::Result | Kind::Abort) {
            continue;
        }
        add(0, "junk", b"junk");
        add(0, "an-array-of-4-gib", &[0xdd, 0xff, 0xff, 0xff, 0xff]);
        add(2, "whole", &whole);
        add(3, "whole", &whole);
        bad::variants(&whole).iter().for_each(|(variant, bytes)| add(1, variant, bytes));
    }
    corpus
}

/// Whether the caretaker may purge for this file.
pub fn may(file: &str) -> bool {
    ["abort-hospital", "result-hospital"].iter().any(|of| file.starts_with(of)) && bad::is_valid(file)
}
