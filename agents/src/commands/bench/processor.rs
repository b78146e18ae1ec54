//! What this processor does, on one core: the scale for everything else.

use std::hint::black_box;
use std::time::{Duration, Instant};

use protocol::{CHUNK_BYTES, Chunks, Lanes, Ring, StreamKey, add_mask, chunk_digest, mask_values};

use super::setting::Setting;

/// How long each is measured.
const LONG: Duration = Duration::from_millis(100);

/// Speeds in bytes per second, times in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Processor {
    /// Expanding a seed.
    pub keystream: f64,
    /// Hashing a chunk.
    pub blake3: f64,
    /// Adding a chunk to a sum.
    pub add: f64,
    /// Masking a patient's vector.
    pub mask: f64,
    /// Its keystreams, alone.
    pub keystreams: f64,
    /// Hashing its chunks, which is what the checks cost a patient.
    pub hash: f64,
}

impl Processor {
    /// Measures it.
    ///
    /// # Errors
    /// None: all sizes fit.
    pub fn measure(setting: &Setting) -> anyhow::Result<Self> {
        let (ring, chunks) = (setting.chunks.ring(), setting.chunks);
        let wide = Ring::new(32)?;
        let key = StreamKey::new([7; 32]);
        // Lanes that stay in the first cache, and a chunk as it travels.
        let (mut tile, mut sum) = (Lanes::zero(wide, 4096), Lanes::zero(wide, CHUNK_BYTES / 4));
        let bytes = vec![7; CHUNK_BYTES];
        let keystream = 16_384.0 / each(|| add_mask(&key, wide, 0, black_box(&mut tile)));
        let blake3 = CHUNK_BYTES as f64 / each(|| _ = black_box(chunk_digest(black_box(&bytes))));
        let add = CHUNK_BYTES as f64 / each(|| _ = black_box(sum.add_packed(wide, black_box(&bytes))));
        let keys: Vec<StreamKey> =
            (0..setting.sharing.blocks().len()).map(|block| StreamKey::new([block as u8; 32])).collect();
        let values = super::data::vector(setting, 0, 1);
        let mask = each(|| mask_all(&keys, &chunks, black_box(&values)));
        let lanes = chunks.dimension() as f64 * ring.lane_bytes() as f64;
        let words = chunks.dimension() as f64 * ring.word_bytes() as f64;
        let keystreams = keys.len() as f64 * lanes / keystream;
        Ok(Self { keystream, blake3, add, mask, keystreams, hash: words / blake3 })
    }
}

fn mask_all(keys: &[StreamKey], chunks: &Chunks, values: &[i64]) {
    for chunk in 0..chunks.count() {
        let start = chunks.start(chunk);
        let part = &values[start as usize..start as usize + chunks.len(chunk)];
        let _ = black_box(mask_values(keys, chunks.ring(), start, part));
    }
}

/// How long one `run` takes, in seconds: the median of many.
fn each(mut run: impl FnMut()) -> f64 {
    run();
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < LONG {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2].max(1e-9)
}
