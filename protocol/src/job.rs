//! Heavy work as values: a machine emits a [`Job`], the driver runs it on any thread, and its [`Outcome`] comes back
//! as an input. Machines themselves never walk a long vector.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use vectors::{Lanes, Ring, StreamKey};

use crate::answer::Answering;
use crate::chunks::Chunks;
use crate::id::Digest;
use crate::kdf;
use crate::seal::{SealError, SealKey, SealSecret, SumOpener, SumSealer};
use crate::secret::{Root, SecretBytes, Seed};
use crate::task::{Question, Record, SecretVector};
use crate::wire;

/// Names a job among those of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// A piece of heavy work; pure, and may run on any thread.
#[derive(Debug)]
pub enum Job {
    /// patient: answer the question, subtract the masks and pack, chunk by chunk.
    Mask {
        /// What is asked.
        question: Question,
        /// What it is answered from.
        record: Arc<Record>,
        /// A keyed digest of the record: two inputs under one restored root get independent masks.
        input: Digest,
        /// The vector's ring and chunks.
        chunks: Chunks,
        /// The round's root, from which the seeds are derived.
        root: Root,
        /// The Begin that is answered.
        begin: Digest,
        /// How many blocks the committee has.
        blocks: u16,
    },
    /// server, hospital: which chunk is this?
    Identify {
        /// A chunk's bytes.
        bytes: Bytes,
    },
    /// server: add chunks to, or take them out of, one chunk of the sum.
    Fold {
        /// Which chunk of the sum, counted among those of the server.
        at: usize,
        /// The sum so far.
        sum: Lanes,
        /// Its ring.
        ring: Ring,
        /// What to add.
        add: Vec<Bytes>,
        /// What to take out.
        subtract: Vec<Bytes>,
    },
    /// server: pack the chunks of a sum for the wire.
    Pack {
        /// The sum, chunk by chunk.
        sums: Vec<Lanes>,
        /// Its ring.
        ring: Ring,
    },
    /// member: add masks to, or take them out of, one chunk of a sum.
    Expand {
        /// Which chunk.
        chunk: u32,
        /// The vector's ring and chunks.
        chunks: Chunks,
        /// The sum so far.
        sum: Lanes,
        /// The stream keys of the masks to add: of each patient one for each block of the sum.
        add: Vec<StreamKey>,
        /// The stream keys of the masks to take out.
        subtract: Vec<StreamKey>,
    },
    /// member: seal its list of blocks and the chunks of their sum to the hospital.
    Seal {
        /// The hospital's key.
        to: SealKey,
        /// What the seal is bound to.
        info: Vec<u8>,
        /// The round's root: the seal's randomness is derived from it and from the text.
        root: Root,
        /// The MessagePack of the list of blocks.
        blocks: Vec<u8>,
        /// The sum, chunk by chunk.
        sums: Vec<Lanes>,
        /// Its ring.
        ring: Ring,
    },
    /// hospital: open the mask sums and add them to the masked sum.
    Reconstruct {
        /// The hospital's key.
        secret: Arc<SealSecret>,
        /// The vector's ring and chunks.
        chunks: Chunks,
        /// The packed chunks of the masked sum.
        masked: Vec<Bytes>,
        /// The sealed mask sums.
        sealed: Vec<SealedSum>,
        /// Sums of masks that are known to be right, by block and chunk: the mask sums are compared with them.
        vouched: BTreeMap<(u16, u32), Words>,
        /// Blocks of which all chunks are known to be right, and that stand in none of the mask sums.
        whole: Vec<u16>,
    },
    /// hospital: open what a member answered to a Check.
    Unseal {
        /// The hospital's key.
        secret: Arc<SealSecret>,
        /// The answer; in the place of its blocks stands the Check.
        sealed: SealedSum,
    },
}

/// The words of a sum of masks: wiped on drop, and not shown.
#[derive(Clone)]
pub struct Words(pub(crate) Arc<SecretBytes>);

impl Words {
    /// The words as they travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Words(..)")
    }
}

/// A mask sum as it came: pieces whose digests were checked already.
#[derive(Clone, Debug)]
pub struct SealedSum {
    /// The sender's seat.
    pub seat: u8,
    /// The HPKE encapsulation.
    pub encapsulation: Vec<u8>,
    /// What the seal is bound to.
    pub info: Vec<u8>,
    /// The MessagePack of the list of blocks that was asked for.
    pub blocks: Vec<u8>,
    /// The sealed pieces: the list of blocks, then the chunks.
    pub pieces: Vec<Bytes>,
}

/// What a [`Job`] gives.
#[derive(Debug)]
pub enum Outcome {
    /// The packed chunks of the masked vector and their digests.
    Masked {
        /// The chunks.
        chunks: Vec<Bytes>,
        /// Their digests.
        digests: Vec<Digest>,
        /// The seed of each block.
        seeds: Vec<Seed>,
    },
    /// A chunk and its digest.
    Identified {
        /// The chunk.
        bytes: Bytes,
        /// Its digest.
        digest: Digest,
    },
    /// The sum of a chunk after folding.
    Folded {
        /// Which chunk, counted among those of the server.
        at: usize,
        /// The sum now.
        sum: Lanes,
    },
    /// The packed chunks of a sum and their digests.
    Packed {
        /// The chunks.
        chunks: Vec<Bytes>,
        /// Their digests.
        digests: Vec<Digest>,
    },
    /// The sum of masks over a chunk.
    Expanded {
        /// Which chunk.
        chunk: u32,
        /// The sum.
        sum: Lanes,
    },
    /// A sealed mask sum.
    Sealed {
        /// The HPKE encapsulation.
        encapsulation: Vec<u8>,
        /// The sealed pieces.
        pieces: Vec<Bytes>,
    },
    /// The answer, as signed coordinates.
    Reconstructed(SecretVector),
    /// The mask sum of this seat does not open, or is not what was asked for.
    BadSum(u8),
    /// The mask sums of these seats are not what the sums known to be right say.
    WrongSums(Vec<u8>),
    /// What a member answered to a Check, each sum with its digest.
    Unsealed(Vec<(Digest, Words)>),
    /// The vector does not fit its ring or its chunks: a check before the job was wrong.
    Unfit,
}

impl Job {
    /// About how many bytes the job walks over: a driver runs what is light in place and the rest on other threads.
    pub fn weight(&self) -> usize {
        match self {
            Job::Mask { chunks, blocks, .. } => vector_bytes(chunks) * (2 + usize::from(*blocks)),
            Job::Identify { bytes } => bytes.len(),
            Job::Fold { sum, add, subtract, ring, .. } => sum.len() * ring.word_bytes() * (add.len() + subtract.len()),
            Job::Pack { sums, ring } => sums.iter().map(|sum| sum.len() * ring.word_bytes()).sum(),
            Job::Expand { chunk, chunks, add, subtract, .. } => chunks.bytes(*chunk) * (add.len() + subtract.len()),
            // A key encapsulation costs as much as a walk over a chunk.
            Job::Seal { sums, ring, .. } => {
                sums.iter().map(|sum| sum.len() * ring.word_bytes()).sum::<usize>() + (1 << 19)
            }
            Job::Reconstruct { chunks, sealed, whole, .. } => {
                (vector_bytes(chunks) + (1 << 19)) * (sealed.len() + whole.len())
            }
            Job::Unseal { sealed, .. } => sealed.pieces.iter().map(Bytes::len).sum::<usize>() + (1 << 19),
        }
    }

    /// How many bytes its outcome has that the machine holds until they are sent: a driver of many machines has no more
    /// jobs run at a time than it has room for.
    pub fn held(&self) -> usize {
        match self {
            Job::Mask { chunks, .. } => vector_bytes(chunks),
            _ => 0,
        }
    }

    /// Runs the job here and now.
    pub fn run(self) -> Outcome {
        match self {
            Job::Mask { question, record, input, chunks, root, begin, blocks } => {
                let seeds = (0..blocks).map(|block| Seed::derive(&root, begin, input, block)).collect();
                mask_vector(&question, &record, &chunks, seeds).unwrap_or(Outcome::Unfit)
            }
            Job::Identify { bytes } => Outcome::Identified { digest: kdf::chunk_digest(&bytes), bytes },
            Job::Fold { at, sum, ring, add, subtract } => {
                fold(at, sum, ring, &add, &subtract).unwrap_or(Outcome::Unfit)
            }
            Job::Pack { sums, ring } => {
                let chunks: Vec<Bytes> = sums.iter().map(|sum| Bytes::from(sum.pack(ring))).collect();
                Outcome::Packed { digests: chunks.iter().map(|chunk| kdf::chunk_digest(chunk)).collect(), chunks }
            }
            Job::Expand { chunk, chunks, sum, add, subtract } => expand(chunk, &chunks, sum, &add, &subtract),
            Job::Seal { to, info, root, blocks, sums, ring } => {
                seal(&to, &info, &root, &blocks, &sums, ring).unwrap_or(Outcome::Unfit)
            }
            Job::Reconstruct { secret, chunks, masked, sealed, vouched, whole } => {
                let vouched = VouchedSums { sums: &vouched, chunks: &chunks };
                reconstruct(&secret, &chunks, &masked, &sealed, &vouched, &whole)
            }
            Job::Unseal { secret, sealed } => {
                unseal(&secret, &sealed).map_or(Outcome::BadSum(sealed.seat), Outcome::Unsealed)
            }
        }
    }
}

fn vector_bytes(chunks: &Chunks) -> usize {
    (0..chunks.count()).map(|chunk| chunks.bytes(chunk)).sum()
}

fn mask_vector(question: &Question, record: &Record, chunks: &Chunks, seeds: Vec<Seed>) -> Option<Outcome> {
    let vector = Answering::new(question, record)?;
    let keys: Vec<StreamKey> = seeds.iter().map(Seed::stream_key).collect();
    let mut packed = Vec::new();
    let mut digests = Vec::new();
    for chunk in 0..chunks.count() {
        let start = chunks.start(chunk);
        let values = vector.range(start as usize..start as usize + chunks.len(chunk))?;
        let bytes = vectors::mask_values(&keys, chunks.ring(), start, &values).ok()?;
        digests.push(kdf::chunk_digest(&bytes));
        packed.push(bytes);
    }
    Some(Outcome::Masked { chunks: packed, digests, seeds })
}

fn fold(at: usize, mut sum: Lanes, ring: Ring, add: &[Bytes], subtract: &[Bytes]) -> Option<Outcome> {
    for bytes in add {
        sum.add_packed(ring, bytes).ok()?;
    }
    for bytes in subtract {
        sum.sub_packed(ring, bytes).ok()?;
    }
    Some(Outcome::Folded { at, sum })
}

fn expand(chunk: u32, chunks: &Chunks, mut sum: Lanes, add: &[StreamKey], subtract: &[StreamKey]) -> Outcome {
    vectors::add_masks(add, chunks.ring(), chunks.start(chunk), &mut sum);
    vectors::sub_masks(subtract, chunks.ring(), chunks.start(chunk), &mut sum);
    Outcome::Expanded { chunk, sum }
}

fn seal(
    to: &SealKey,
    info: &[u8],
    root: &Root,
    blocks: &[u8],
    sums: &[Lanes],
    ring: Ring,
) -> Result<Outcome, SealError> {
    let texts: Vec<SecretBytes> = sums.iter().map(|sum| sum.pack(ring).into()).collect();
    let mut digests: Vec<Digest> = texts.iter().map(|text| kdf::chunk_digest(text)).collect();
    digests.push(wire::attachment_digest(blocks));
    // Randomness from the root alone would seal two texts under one key and nonce after a restore (PROTOCOL.md, *Restarts*).
    let text = kdf::digest("ward/1 mask sum text", &digests.iter().map(|d| &d.0[..]).collect::<Vec<_>>());
    let randomness = kdf::derive("ward/1 mask sum randomness", root.expose(), &[info, &text.0]);
    let (sealer, encapsulation) = SumSealer::new(to, info, randomness)?;
    let mut pieces = vec![Bytes::from(sealer.seal(0, blocks)?)];
    for (piece, text) in (1u32..).zip(&texts) {
        pieces.push(Bytes::from(sealer.seal(piece, text)?));
    }
    Ok(Outcome::Sealed { encapsulation, pieces })
}

fn reconstruct(
    secret: &SealSecret,
    chunks: &Chunks,
    masked: &[Bytes],
    sealed: &[SealedSum],
    vouched: &VouchedSums<'_>,
    whole: &[u16],
) -> Outcome {
    let ring = chunks.ring();
    let mut sums = Vec::new();
    for (chunk, bytes) in (0u32..).zip(masked) {
        match Lanes::unpack(ring, bytes) {
            Ok(sum) if sum.len() == chunks.len(chunk) => sums.push(sum),
            _ => return Outcome::Unfit,
        }
    }
    let mut wrong = Vec::new();
    for one in sealed {
        let Some((blocks, texts)) = open_sum(secret, ring, &sums, one) else { return Outcome::BadSum(one.seat) };
        if !vouched.agree(&blocks, &texts) {
            wrong.push(one.seat);
        } else if sums.iter_mut().zip(&texts).any(|(sum, text)| sum.add_packed(ring, text).is_err()) {
            return Outcome::BadSum(one.seat);
        }
    }
    if !wrong.is_empty() {
        return Outcome::WrongSums(wrong);
    }
    for (chunk, sum) in (0u32..).zip(&mut sums) {
        if vouched.add(whole, chunk, sum).is_none() {
            return Outcome::Unfit;
        }
    }
    // With room for all from the start: growing would leave copies behind that nobody wipes.
    let mut answer = SecretVector(Vec::with_capacity(sums.iter().map(Lanes::len).sum()));
    sums.iter().for_each(|sum| sum.append_i64(ring, &mut answer.0));
    Outcome::Reconstructed(answer)
}

/// Blocks, and the chunks of the sum of their masks.
type OpenedSum = (Vec<u16>, Vec<SecretBytes>);

/// The blocks and the chunks of a mask sum; `None` where it does not open, or is of other blocks or another shape.
/// Everything is opened before anything is added: a bad piece must leave the sums as they were.
fn open_sum(secret: &SealSecret, ring: Ring, sums: &[Lanes], sealed: &SealedSum) -> Option<OpenedSum> {
    let texts = open_pieces(secret, sealed)?;
    let fits = sums.iter().zip(&texts).all(|(sum, text)| text.len() == sum.len() * ring.word_bytes());
    let blocks = wire::decode(&sealed.blocks, "list of blocks").ok()?;
    (fits && texts.len() == sums.len()).then_some((blocks, texts))
}

/// All pieces but the first, which must be what was asked for.
fn open_pieces(secret: &SealSecret, sealed: &SealedSum) -> Option<Vec<SecretBytes>> {
    let opener = SumOpener::new(secret, &sealed.encapsulation, &sealed.info).ok()?;
    let (first, rest) = sealed.pieces.split_first()?;
    if opener.open(0, first).ok()?[..] != sealed.blocks {
        return None;
    }
    (1u32..).zip(rest).map(|(piece, bytes)| opener.open(piece, bytes).ok()).collect()
}

fn unseal(secret: &SealSecret, sealed: &SealedSum) -> Option<Vec<(Digest, Words)>> {
    let texts = open_pieces(secret, sealed)?.into_iter();
    Some(texts.map(|text| (kdf::chunk_digest(&text), Words(Arc::new(text)))).collect())
}

/// Sums of masks that are known to be right, by block and chunk.
struct VouchedSums<'a> {
    sums: &'a BTreeMap<(u16, u32), Words>,
    chunks: &'a Chunks,
}

impl VouchedSums<'_> {
    /// Adds those of `blocks` over one chunk; `None` where one of them is not known.
    fn add(&self, blocks: &[u16], chunk: u32, sum: &mut Lanes) -> Option<()> {
        for block in blocks {
            sum.add_packed(self.chunks.ring(), self.sums.get(&(*block, chunk))?.as_bytes()).ok()?;
        }
        Some(())
    }

    /// Whether the chunks of a mask sum over `blocks` are what is known of them; of others nothing can be said.
    fn agree(&self, blocks: &[u16], texts: &[SecretBytes]) -> bool {
        let ring = self.chunks.ring();
        (0u32..).zip(texts).all(|(chunk, text)| {
            let mut sum = Lanes::zero(ring, self.chunks.len(chunk));
            self.add(blocks, chunk, &mut sum).is_none_or(|()| sum.pack(ring)[..] == text[..])
        })
    }
}
