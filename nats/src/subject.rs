//! Every subject that Ward speaks, listens to or permits: no other file spells one, but [`crate::stream`] those of the
//! JetStream API.
//!
//! A message's subject is `ward.<session>.<round>.<from>.<to>.<kind>.<name>`, a chunk's has `raw` after it (PROTOCOL.md,
//! *The board*).

use std::fmt::Display;

use protocol::{Address, Kind, MessageName, Name, Role, RoundNo, SessionTag, To};

use crate::stream::Stream;

/// The last token of a chunk's subject: it keeps the subjects of the two streams apart.
const RAW: &str = "raw";
/// What a monitor may subscribe to: everything of Ward's, stored or not.
pub const EVERYTHING: &str = "ward.>";
/// Where the headers-only consumer delivers to.
pub const WATCH: &str = "_WATCH.ward";
/// Whose the headers-only consumer is; no party can be called so, names have no capitals.
pub const WATCH_CONSUMER: &str = "WATCH";
/// What a signpost is set on: nobody writes there.
pub const NOWHERE: &str = "ward.-.-.-.-.-.-";
/// Where a signpost bears the name of its owner's consumer.
pub const SIGNPOST_KEY: &str = "ward-consumer";
/// Where a signpost bears the name of its owner's consumer of chunks, if it has one.
pub const SIGNPOST_CHUNKS_KEY: &str = "ward-chunks-consumer";
/// The whole JetStream API: the operator's.
pub const API: &str = "$JS.API.>";

/// A subject that is no message's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{subject}` is no subject of a message: {rule} in ward.<session>.<round>.<from>.<to>.<kind>.<name>")]
pub struct SubjectError {
    subject: String,
    rule: &'static str,
}

/// The subject of the message at `address`.
pub fn subject(address: &Address) -> String {
    let Address { session, round, from, to, kind, name } = address;
    spelled(session, round, from, to, *kind, name)
}

/// A subject of messages of `kind`, or a pattern of such.
fn spelled(
    session: impl Display,
    round: impl Display,
    from: impl Display,
    to: impl Display,
    kind: Kind,
    name: impl Display,
) -> String {
    let subject = format!("ward.{session}.{round}.{from}.{to}.{kind}.{name}");
    match Stream::of(kind) {
        Stream::Messages => subject,
        Stream::Chunks => format!("{subject}.{RAW}"),
    }
}

/// The address that `subject` spells. Only the spelling of [`subject`] itself is accepted, so one address has one subject.
pub fn parse(subject: &str) -> Result<Address, SubjectError> {
    let wrong = |rule| SubjectError { subject: subject.chars().take(200).collect(), rule };
    // There are eight parts at most: the rest of a longer subject is one, however many it has.
    let tokens: Vec<&str> = subject.splitn(9, '.').collect();
    let (["ward", session, round, from, to, kind, name] | ["ward", session, round, from, to, kind, name, RAW]) =
        tokens[..]
    else {
        return Err(wrong("there are seven parts"));
    };
    let address = Address {
        session: session.parse::<SessionTag>().map_err(|_| wrong("the session is 32 hex digits"))?,
        round: RoundNo(round.parse().map_err(|_| wrong("the round is a number"))?),
        from: from.parse().map_err(|_| wrong("the sender is a party's name"))?,
        to: to.parse().map_err(|_| wrong("the receiver is a party's name or `all`"))?,
        kind: kind.parse().map_err(|_| wrong("the kind is one of the protocol's"))?,
        name: name.parse::<MessageName>().map_err(|_| wrong("the name is 32 hex digits"))?,
    };
    if self::subject(&address) == subject { Ok(address) } else { Err(wrong("numbers and digits have one spelling")) }
}

/// What a consumer of `me` delivers: what is addressed to it and, of messages, to everybody.
pub fn consumer_filters(stream: Stream, me: &Name) -> Vec<String> {
    match stream {
        Stream::Messages => vec![format!("ward.*.*.*.{me}.*.*"), format!("ward.*.*.*.{}.*.*", To::All)],
        Stream::Chunks => vec![spelled("*", "*", "*", me, Kind::Chunk, "*")],
    }
}

/// What the operator's own consumer delivers: sessions that open, and rounds and sessions that end.
pub fn outcome_filters() -> [String; 3] {
    [Kind::Announce, Kind::Result, Kind::Abort].map(|kind| format!("ward.*.*.*.{}.{kind}.*", To::All))
}

/// All messages of one kind in one round.
pub fn of_kind(session: SessionTag, round: RoundNo, kind: Kind) -> String {
    spelled(session, round, "*", "*", kind, "*")
}

/// All messages of one kind of one session, in any round.
pub fn of_kind_in_any_round(session: SessionTag, kind: Kind) -> String {
    spelled(session, "*", "*", "*", kind, "*")
}

/// What `me` may publish: messages from itself, of any session, round, receiver, kind and name, but for
/// [`not_publishable`].
pub fn publishable(me: &Name) -> [String; 2] {
    [format!("ward.*.*.{me}.*.*.*"), spelled("*", "*", me, "*", Kind::Chunk, "*")]
}

/// What a party of this role may not publish among [`publishable`]: a message to all is delivered to everybody, so only
/// the server's Roster and what the hospital opens and ends sessions and rounds with may be one.
pub fn not_publishable(role: Role, me: &Name) -> Vec<String> {
    let to_all: &[Kind] = match role {
        Role::Hospital => &[Kind::Announce, Kind::Begin, Kind::Result, Kind::Abort],
        Role::Server => &[Kind::Roster],
        Role::Patient | Role::Member | Role::Monitor | Role::Operator | Role::Broker => {
            return vec![format!("ward.*.*.{me}.{}.*.*", To::All), spelled("*", "*", me, To::All, Kind::Chunk, "*")];
        }
    };
    let denied = Kind::ALL.into_iter().filter(|kind| !to_all.contains(kind));
    denied.map(|kind| spelled("*", "*", me, To::All, kind, "*")).collect()
}

/// The first token of the subjects that answers to `me` come to.
pub fn inbox_prefix(me: &Name) -> String {
    format!("_INBOX_{me}")
}

/// All subjects that answers to `me` come to.
pub fn inbox(me: &Name) -> String {
    format!("{}.>", inbox_prefix(me))
}

/// What a server may read by name: whatever is addressed to it.
pub fn readable_by_server(me: &Name) -> [String; 2] {
    let chunks = spelled("*", "*", "*", me, Kind::Chunk, "*");
    [Stream::Messages.direct_get(&format!("ward.*.*.*.{me}.*.*")), Stream::Chunks.direct_get(&chunks)]
}

/// What the hospital may read by name: the Shares and chunks addressed to `server`.
pub fn readable_by_hospital(server: &Name) -> [String; 2] {
    [Kind::Share, Kind::Chunk].map(|kind| Stream::of(kind).direct_get(&spelled("*", "*", "*", server, kind, "*")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address() -> Address {
        Address {
            session: SessionTag([0xab; 16]),
            round: RoundNo(7),
            from: "alice".parse().unwrap(),
            to: To::All,
            kind: Kind::MaskedSum,
            name: MessageName([1; 16]),
        }
    }

    #[test]
    fn an_address_comes_back_from_its_subject() {
        let text = subject(&address());
        assert_eq!(
            text,
            "ward.abababababababababababababababab.7.alice.all.maskedsum.01010101010101010101010101010101"
        );
        assert_eq!(parse(&text), Ok(address()));
    }

    #[test]
    fn only_the_one_spelling_is_accepted() {
        let good = subject(&address());
        for (from, to) in [
            ("ward.", "Ward."),
            (".7.", ".07."),
            (".7.", ".+7."),
            (".7.", ".4294967296."),
            ("abab", "ABab"),
            (".alice.", ".all."),
            (".alice.", ".Alice."),
            (".all.", ".a b."),
            (".maskedsum.", ".sum."),
            ("0101", "010"),
            ("ward.", "ward.x."),
        ] {
            assert!(parse(&good.replacen(from, to, 1)).is_err(), "{from} -> {to}");
        }
        assert!(parse(&format!("{good}.raw")).is_err(), "only a chunk is raw");
        let chunk = subject(&Address { kind: Kind::Chunk, ..address() });
        assert!(parse(&chunk).is_ok() && parse(chunk.trim_end_matches(".raw")).is_err());
    }
}
