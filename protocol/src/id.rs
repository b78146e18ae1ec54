//! Names for parties, sessions, rounds and messages: each is checked once, where it is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::form;

/// A party's name: 1 to 32 of `a-z`, `0-9` and `-`, and not the reserved word `all`.
///
/// ```
/// use protocol::Name;
/// assert!("alice".parse::<Name>().is_ok());
/// assert!("Alice".parse::<Name>().is_err());
/// assert!("all".parse::<Name>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, longer than 32 characters, or with a character outside `a-z0-9-`.
    #[error("`{0}` is no name: use 1 to 32 of a-z, 0-9 and '-'")]
    Malformed(String),
    /// A word with a meaning of its own: in subjects, or as the name of a party that every study has.
    #[error("`{0}` is reserved and no party's own name: choose another name")]
    Reserved(String),
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text == "all" {
            Err(NameError::Reserved(text.into()))
        } else if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Malformed(text.chars().take(40).collect()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a certificate says its holder may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Asks the question and reconstructs the answer.
    Hospital,
    /// Collects masked vectors and fixes the cohort.
    Server,
    /// Contributes a vector.
    Patient,
    /// A patient that the CA marked: it may sit on the committee.
    Member,
    /// Watches the board and may publish nothing.
    Monitor,
    /// Creates the stream and its consumers.
    Operator,
    /// The nats-server itself.
    Broker,
}

impl Role {
    /// All roles, in the order of their declaration.
    pub const ALL: [Role; 7] =
        [Role::Hospital, Role::Server, Role::Patient, Role::Member, Role::Monitor, Role::Operator, Role::Broker];

    /// The role as it stands in a certificate's URI.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Hospital => "hospital",
            Role::Server => "server",
            Role::Patient => "patient",
            Role::Member => "member",
            Role::Monitor => "monitor",
            Role::Operator => "operator",
            Role::Broker => "broker",
        }
    }

    /// Whether the holder may contribute a vector: a patient with or without the mark.
    pub fn is_patient(self) -> bool {
        matches!(self, Role::Patient | Role::Member)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no [`Role`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: use hospital, server, patient, member, monitor, operator or broker")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        Role::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| RoleError(text.chars().take(40).collect()))
    }
}

/// 32 bytes of BLAKE3 that stand for what they were made from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Digest(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl Digest {
    /// The first 16 bytes as 32 hex digits: what stands in a subject.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..16])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..", hex::encode(&self.0[..4]))
    }
}

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// A session's name: the digest of its Announce.
pub type SessionId = Digest;

/// The first 32 hex digits of a [`SessionId`]: how a subject calls a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionTag(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl From<SessionId> for SessionTag {
    fn from(session: SessionId) -> Self {
        let mut tag = [0; 16];
        tag.copy_from_slice(&session.0[..16]);
        Self(tag)
    }
}

impl fmt::Display for SessionTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SessionTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionTag {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// A message's own name on the board: 32 hex digits that only its sender can foretell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageName(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageName {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

/// A round's number: 0 is the session's set-up, questions count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct RoundNo(pub u32);

impl RoundNo {
    /// The session's set-up.
    pub const SETUP: RoundNo = RoundNo(0);

    /// The round after this one; saturates.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for RoundNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A patient's position in the Roster's sorted list of names, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place(pub u32);

/// The label that the owner or the schema gives a set of data, such as `1` or `vitals-2026-11`:
/// 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Snapshot(String);

/// A text that is no [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no snapshot label: use 1 to 64 of a-z, 0-9, '-', '_' and '.'")]
pub struct SnapshotError(String);

impl Snapshot {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(SnapshotError(text.chars().take(70).collect()))
        }
    }
}

impl TryFrom<String> for Snapshot {
    type Error = SnapshotError;

    fn try_from(text: String) -> Result<Self, SnapshotError> {
        text.parse()
    }
}

impl From<Snapshot> for String {
    fn from(snapshot: Snapshot) -> String {
        snapshot.0
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment in milliseconds since the Unix epoch, as the driver counts it: it never runs backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Time(pub u64);

impl Time {
    /// This moment and `millis` milliseconds; saturates.
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This moment and `seconds` seconds; saturates.
    pub fn plus_seconds(self, seconds: u32) -> Self {
        self.plus_millis(u64::from(seconds) * 1000)
    }
}

/// Who a message goes to: everybody, or one party.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum To {
    /// Whoever has a consumer on the board.
    All,
    /// One party.
    One(Name),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            To::All => f.pad("all"),
            To::One(name) => fmt::Display::fmt(name, f),
        }
    }
}

impl FromStr for To {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "all" { Ok(To::All) } else { text.parse().map(To::One) }
    }
}

impl TryFrom<String> for To {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<To> for String {
    fn from(to: To) -> String {
        to.to_string()
    }
}

/// What a message is: one word for each row of the protocol's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// hospital -> all: the rules of a session and the hospital's seal key.
    Announce,
    /// patient -> servers: its certificate, and its seal key where it is marked.
    Join,
    /// server -> all: who is in, who is on the committee.
    Roster,
    /// server -> members, servers, hospital: all Joins, in pieces.
    List,
    /// first server -> each patient: its place and the Merkle path of its Join.
    Place,
    /// patient -> each member: one encapsulation for the session.
    Key,
    /// hospital -> each patient: the session's payload key; only with payloads.
    PayloadKey,
    /// hospital -> all: a round's question.
    Begin,
    /// patient -> servers and, with its box, each member.
    Share,
    /// The bytes of a long vector, by digest; not a frame.
    Chunk,
    /// patient -> servers: it will not answer this round.
    Decline,
    /// member -> first server: whose seeds it holds.
    Held,
    /// first server -> members, servers, hospital: who is in the sum.
    Cohort,
    /// member -> hospital: it will open this cohort only.
    Confirm,
    /// member or server -> hospital: a rule forbids.
    Refuse,
    /// hospital -> members, servers: q Confirms, and who sends which mask sum.
    Open,
    /// server -> hospital: the sum of the masked vectors.
    MaskedSum,
    /// member -> hospital, sealed: the sum of the masks of its blocks.
    MaskSum,
    /// hospital -> member: vouch for sums of masks.
    Check,
    /// member -> hospital, sealed: the sums that it vouches for.
    CheckSum,
    /// hospital -> all: the receipt of a round.
    Result,
    /// hospital -> all: a round or a session ends without an answer.
    Abort,
}

impl Kind {
    /// All kinds, in the order of the protocol's table.
    pub const ALL: [Kind; 22] = [
        Kind::Announce,
        Kind::Join,
        Kind::Roster,
        Kind::List,
        Kind::Place,
        Kind::Key,
        Kind::PayloadKey,
        Kind::Begin,
        Kind::Share,
        Kind::Chunk,
        Kind::Decline,
        Kind::Held,
        Kind::Cohort,
        Kind::Confirm,
        Kind::Refuse,
        Kind::Open,
        Kind::MaskedSum,
        Kind::MaskSum,
        Kind::Check,
        Kind::CheckSum,
        Kind::Result,
        Kind::Abort,
    ];

    /// The kind as it stands in a subject and in a signature's prefix.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Announce => "announce",
            Kind::Join => "join",
            Kind::Roster => "roster",
            Kind::List => "list",
            Kind::Place => "place",
            Kind::Key => "key",
            Kind::PayloadKey => "payloadkey",
            Kind::Begin => "begin",
            Kind::Share => "share",
            Kind::Chunk => "chunk",
            Kind::Decline => "decline",
            Kind::Held => "held",
            Kind::Cohort => "cohort",
            Kind::Confirm => "confirm",
            Kind::Refuse => "refuse",
            Kind::Open => "open",
            Kind::MaskedSum => "maskedsum",
            Kind::MaskSum => "masksum",
            Kind::Check => "check",
            Kind::CheckSum => "checksum",
            Kind::Result => "result",
            Kind::Abort => "abort",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of message")]
pub struct KindError(String);

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| KindError(text.chars().take(40).collect()))
    }
}

/// Where a message stands on the board. It is an address and proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Which session.
    pub session: SessionTag,
    /// Which round; 0 is set-up.
    pub round: RoundNo,
    /// Who wrote it, as the broker's permissions enforce it: a hint, not a proof.
    pub from: Name,
    /// Whose it is.
    pub to: To,
    /// What it is.
    pub kind: Kind,
    /// Its own name.
    pub name: MessageName,
}

impl To {
    /// Whether `name` is meant.
    pub fn includes(&self, name: &Name) -> bool {
        match self {
            To::All => true,
            To::One(one) => one == name,
        }
    }
}

/// What a certificate proves about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The holder's name, unique in the study.
    pub name: Name,
    /// What it may be.
    pub role: Role,
    /// The key that its signatures verify under.
    pub key: crate::signing::VerifyingKey,
    /// The digest of the end-entity certificate, in DER.
    pub certificate: Digest,
}

/// A certificate chain as it travels: DER, the holder's own certificate first, four at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain(#[serde(deserialize_with = "form::list_of::<_, _, 4>")] pub Vec<serde_bytes::ByteBuf>);

/// Turns a certificate chain into an [`Identity`], or says why it cannot be trusted.
///
/// The `certs` crate implements it over the study's CA; the machines see nothing else of a certificate.
pub trait Authority: Send + Sync {
    /// The identity that `chain` proves, or a sentence that names what is wrong with it.
    fn identify(&self, chain: &Chain, dates: Dates) -> Result<Identity, String>;
}

/// Whether a chain's dates are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dates {
    /// It must be valid now.
    At(Time),
    /// It was, when it came: a session outlives the certificates that it began with.
    Checked,
}
