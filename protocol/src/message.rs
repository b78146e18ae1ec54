//! The body of every message, in the order of the table in PROTOCOL.md.

use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::ByteBuf;
use vectors::Ring;

use crate::decimal::Scale;
use crate::form;
use crate::id::{Chain, Digest, MessageName, Name, Place, RoundNo, SessionId, Snapshot};
use crate::kdf;
use crate::places::Places;
use crate::plan::{MOST_CANDIDATES, MOST_SERVERS};
use crate::seal::SealKey;
use crate::sharing::{MOST_BLOCKS, MOST_MEMBERS, Sharing};
use crate::task::Question;
use crate::wire::{self, Signed};

/// hospital -> all: the rules of a session. Its digest is the session's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// Fresh bytes: two sessions with the same rules have two names.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 32],
    /// The study, as in the certificates' URIs.
    pub study: String,
    /// The committee's size c and the threshold t.
    pub sharing: Sharing,
    /// k: the smallest cohort.
    pub min_cohort: u32,
    /// How many patients the hospital hopes for: joins close when so many are in.
    pub expect: u32,
    /// Who may sit on the committee; nobody named means every marked patient.
    #[serde(deserialize_with = "form::list_of::<_, _, MOST_CANDIDATES>")]
    pub candidates: Vec<Name>,
    /// The servers, in the order of their parts.
    #[serde(deserialize_with = "form::list_of::<_, _, MOST_SERVERS>")]
    pub servers: Vec<Name>,
    /// Whether questions carry a payload: then every patient joins with a seal key.
    pub payloads: bool,
    /// How long joins stay open, in seconds from when the server stored this.
    pub join_seconds: u32,
    /// When the session ends at the latest, in milliseconds since the Unix epoch.
    pub not_after: u64,
    /// Where mask sums are sealed to.
    pub seal_key: SealKey,
    /// The hospital's certificate chain.
    pub chain: Chain,
}

/// patient -> servers: takes part in a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The patient's certificate chain.
    pub chain: Chain,
    /// Of marked patients, and of all where the session has payloads.
    pub seal_key: Option<SealKey>,
}

/// server -> all: who is in and who is on the committee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// The Merkle root over the digests of the Joins, sorted by name.
    pub root: Digest,
    /// How many joined.
    pub count: u32,
    /// The committee's Joins, sorted by name: their order is that of the seats.
    #[serde(deserialize_with = "form::list_of::<_, _, MOST_MEMBERS>")]
    pub committee: Vec<Signed>,
    /// The servers' certificate chains, in the order of Announce.
    #[serde(deserialize_with = "form::list_of::<_, _, MOST_SERVERS>")]
    pub servers: Vec<Chain>,
}

/// server -> members, servers, hospital: a piece of the list of all Joins, which is its attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The Roster that it lists.
    pub roster: Digest,
    /// Which piece, from 0.
    pub piece: u32,
    /// How many pieces there are.
    pub pieces: u32,
    /// The digest of the attachment: a MessagePack list of Joins.
    pub joins: Digest,
}

/// What is attached to a List: some of the Joins, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joins(#[serde(deserialize_with = "form::list")] pub Vec<Signed>);

/// first server -> patient: where the patient stands in the Roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceProof {
    /// The patient's place.
    pub place: Place,
    /// The Merkle path of its Join.
    #[serde(deserialize_with = "form::list")]
    pub path: Vec<Digest>,
}

/// patient -> member: one HPKE encapsulation, from which both derive their chain of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The encapsulation.
    pub encapsulation: ByteBuf,
}

/// hospital -> patient: the session's payload key, sealed to the Join's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadKey {
    /// The encapsulation.
    pub encapsulation: ByteBuf,
    /// The payload key under the key that the encapsulation gives.
    pub sealed: ByteBuf,
}

/// What a Begin says of the payload that follows it, in chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadHeader {
    /// The digests of its sealed chunks.
    #[serde(deserialize_with = "form::list")]
    pub chunks: Vec<Digest>,
    /// A commitment to the round's payload key: one ciphertext may open under two keys, one commitment does not.
    pub key: Digest,
}

/// hospital -> all: the question of a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// What is asked.
    pub question: Question,
    /// Over which snapshot of every patient's data.
    pub snapshot: Snapshot,
    /// The earlier round whose cohort is asked again, or nobody yet asked over this snapshot.
    pub same_as: Option<RoundNo>,
    /// The ring that the sum fits in.
    pub ring: Ring,
    /// Units per 1 of a value.
    pub scale: Scale,
    /// The largest absolute value in those units.
    pub scaled_bound: u64,
    /// Fix the cohort as soon as so many shared; by default all that did not decline.
    pub enough: Option<u32>,
    /// The round's length in seconds.
    pub round_seconds: u32,
    /// The payload that goes with the question.
    pub payload: Option<PayloadHeader>,
}

/// What a patient shares, but for the boxes: each box binds the digest of this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareCore {
    /// The patient's place.
    pub place: Place,
    /// The digests of the chunks of its masked vector; all different.
    #[serde(deserialize_with = "form::list")]
    pub chunks: Vec<Digest>,
    /// A commitment to the seed of each block.
    #[serde(deserialize_with = "form::list")]
    pub commitments: Vec<Digest>,
}

/// patient -> servers and members. Attached for servers: a vector of one chunk. For a member: its box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The MessagePack of a [`ShareCore`].
    pub core: ByteBuf,
    /// The digest of each member's box, by seat.
    #[serde(deserialize_with = "form::list")]
    pub boxes: Vec<Digest>,
}

impl Share {
    /// The digest that boxes are bound to.
    pub fn core_digest(&self) -> Digest {
        kdf::digest("ward/1 share core", &[&self.core])
    }

    /// The core, decoded; `None` where it is malformed or names a chunk twice.
    pub fn open_core(&self) -> Option<ShareCore> {
        let core: ShareCore = wire::decode(&self.core, "share core").ok()?;
        let mut seen = core.chunks.clone();
        seen.sort_unstable();
        seen.dedup();
        (seen.len() == core.chunks.len()).then_some(core)
    }
}

/// patient -> servers: it will not answer this round. Nothing here depends on data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decline {
    /// The snapshot belongs to this other session.
    Once(SessionId),
    /// The patient's own policy or schema forbids the question.
    Policy,
}

/// member -> first server: whose seeds it holds, in batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Place and digest of the Share.
    #[serde(deserialize_with = "form::list")]
    pub held: Vec<(Place, Digest)>,
    /// Whose box did not open or does not fit its commitments.
    #[serde(deserialize_with = "form::list_of::<_, _, MOST_HELD>")]
    pub faults: Vec<Place>,
}

/// After so many patients a Held is written at once, whatever its batch waits for: it must fit a message.
pub(crate) const MOST_HELD: usize = 4096;

/// The most patients whose Decline a Refuse repeats, so that it fits a message.
pub(crate) const MOST_DECLINED: usize = 8192;

/// The most patients that a Refuse names as missing.
pub(crate) const MOST_MISSING: usize = 64;

/// first server -> members, servers, hospital: who is in the sum. Attached for the hospital: a [`CohortShares`]; where it
/// takes several, the same `m` goes to it once with each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cohort {
    /// Who is in.
    pub places: Places,
    /// The Merkle root over (place, digest of the Share), ascending.
    pub root: Digest,
}

/// What the hospital gets with a Cohort: a piece of the list of its Shares, by ascending place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohortShares {
    /// Which piece, from 0; each but the last has [`CohortShares::MOST`] Shares.
    pub piece: u32,
    /// Digest and board name of each Share.
    #[serde(deserialize_with = "form::list")]
    pub shares: Vec<(Digest, MessageName)>,
}

impl CohortShares {
    /// The most Shares of a piece: with the largest `m` it fits a message.
    pub const MOST: usize = 8192;
}

/// The leaf of the cohort's Merkle tree for one patient.
pub(crate) fn cohort_leaf(place: Place, share: Digest) -> Digest {
    kdf::digest("ward/1 cohort leaf", &[&place.0.to_le_bytes(), &share.0])
}

/// member -> hospital: it will open the cohort that this continues, and no other in this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm();

/// member or server -> hospital: which rule forbids to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refuse {
    /// The server: too few joined until joins closed. Attached: the server's certificate chain, as no Roster has it yet.
    TooFewJoined {
        /// How many joined.
        joined: u32,
        /// How many of them are marked `member` (and candidates).
        marked: u32,
    },
    /// The first server: other servers did not join until joins closed. Attached: its certificate chain, as above.
    ServersMissing {
        /// Which.
        #[serde(deserialize_with = "form::list_of::<_, _, MOST_SERVERS>")]
        missing: Vec<Name>,
    },
    /// The server: too few shared, or not all of the cohort that is asked again.
    TooFewShared {
        /// How many could be in the cohort.
        shared: u32,
        /// How many it takes.
        needed: u32,
        /// Who declined, and why.
        #[serde(deserialize_with = "form::list_of::<_, _, MOST_DECLINED>")]
        declined: Vec<(Place, Decline)>,
        /// Who neither shared nor declined; the first of them where they are many.
        #[serde(deserialize_with = "form::list_of::<_, _, MOST_MISSING>")]
        missing: Vec<Place>,
        /// The seats of members that reported nothing.
        silent: Vec<u8>,
    },
    /// The server: the board lost a vector that had to be taken out of the sum again.
    BoardLost,
    /// A member: the cohort overlaps in part with the one of an earlier round over the same snapshot.
    Overlap {
        /// That earlier round.
        round: RoundNo,
    },
    /// A member: not the cohort of the round that `same_as` names.
    NotSame {
        /// The round that `same_as` names.
        round: RoundNo,
    },
    /// A member: the cohort is smaller than k.
    BelowMinimum,
    /// A member: it does not hold the Shares that the Cohort's root names.
    NotHeld,
}

/// hospital -> members, servers: the cohort is confirmed, and who sends which mask sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// q Confirms or more.
    #[serde(deserialize_with = "form::list_of::<_, _, MOST_MEMBERS>")]
    pub confirms: Vec<Signed>,
    /// Seat and the blocks whose mask sum it sends.
    #[serde(deserialize_with = "senders")]
    pub senders: Vec<(u8, Vec<u16>)>,
}

/// The senders of an Open: as many as there are seats, and none with more blocks than there are.
fn senders<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u8, Vec<u16>)>, D::Error> {
    #[derive(Deserialize)]
    struct Sender(u8, #[serde(deserialize_with = "form::list_of::<_, _, MOST_BLOCKS>")] Vec<u16>);

    let senders = form::list_of::<Sender, D, MOST_MEMBERS>(from)?;
    Ok(senders.into_iter().map(|Sender(seat, blocks)| (seat, blocks)).collect())
}

/// server -> hospital: its part of the sum of the masked vectors. Attached: a sum of one chunk; of a longer vector a
/// [`ChunkNames`], and where it takes several, the same `m` goes once with each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedSum {
    /// The digests of its chunks.
    #[serde(deserialize_with = "form::list")]
    pub chunks: Vec<Digest>,
}

/// What the hospital gets with a MaskedSum of a longer vector: a piece of the list of the chunks that were added, so that
/// it can read them again. The server's chunks, ascending, and for each the names of the cohort's, by ascending place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkNames {
    /// Which piece, from 0; each but the last has [`ChunkNames::MOST`] names.
    pub piece: u32,
    /// Under which name of the board each chunk stands.
    #[serde(deserialize_with = "form::list")]
    pub names: Vec<MessageName>,
}

impl ChunkNames {
    /// The most names of a piece: with the largest `m` it fits a message.
    pub const MOST: usize = 16_384;
}

/// member -> hospital, sealed. Piece 0 is the list of blocks and is attached; piece j + 1 is chunk j of their sum,
/// attached behind it where there is one chunk only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskSum {
    /// The HPKE encapsulation.
    pub encapsulation: ByteBuf,
    /// The digests of the sealed pieces.
    #[serde(deserialize_with = "form::list")]
    pub pieces: Vec<Digest>,
}

/// What is attached to a MaskSum or a CheckSum: the first of its sealed pieces, as many as fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SumPieces(#[serde(deserialize_with = "form::list_of::<_, _, { SumPieces::MOST }>")] pub Vec<ByteBuf>);

impl SumPieces {
    /// The most pieces that are attached: the list of blocks, and as many sums as there are blocks; a Check asks for fewer.
    pub const MOST: usize = 1 + MOST_BLOCKS;
}

/// hospital -> member: vouch for the sums of these blocks' masks over these chunks of the vector. It continues an Open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Whose masks, ascending.
    #[serde(deserialize_with = "form::list_of::<_, _, MOST_BLOCKS>")]
    pub blocks: Vec<u16>,
    /// Over which chunks, ascending.
    #[serde(deserialize_with = "form::list_of::<_, _, { Check::MOST }>")]
    pub chunks: Vec<u32>,
}

impl Check {
    /// The most sums that one may ask for, 64 MiB: a member holds the whole answer to one Check, and of one at a time. It
    /// is at least one sum of each block that a member can hold in a session whose mask sums are checked.
    pub const MOST: usize = 128;

    /// What is asked for, in the order of the answer: block by block, and of each the chunks.
    pub fn pairs(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        self.blocks.iter().flat_map(|block| self.chunks.iter().map(|chunk| (*block, *chunk)))
    }
}

/// member -> hospital, sealed. Piece 0 is the Check, the others are the sums that it asks for; as many as fit are attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSum {
    /// The HPKE encapsulation.
    pub encapsulation: ByteBuf,
    /// The digests of the sealed pieces.
    #[serde(deserialize_with = "form::list")]
    pub pieces: Vec<Digest>,
}

/// hospital -> all: the receipt of a round that was opened. It carries no digest of the sum: small sums can be guessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// How many are in the sum.
    pub count: u32,
    /// The Cohort's `m`.
    pub cohort: Signed,
    /// q Confirms of it.
    #[serde(deserialize_with = "form::list_of::<_, _, MOST_MEMBERS>")]
    pub confirms: Vec<Signed>,
    /// Whether the session ends with this.
    pub last: bool,
}

/// hospital -> all: a round, or a session, ends without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abort {
    /// Why.
    pub reason: crate::error::AbortReason,
    /// Whether the session ends with this.
    pub last: bool,
}
