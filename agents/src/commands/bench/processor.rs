//! What this processor does, on one core: the scale for everything else.
//!
//! Measured is processor time, not time: others may use the core too, and who takes it away for some milliseconds would show
//! in what takes milliseconds and not in what takes microseconds.

use std::hint::black_box;
use std::time::{Duration, Instant};

use protocol::{CHUNK_BYTES, Chunks, Lanes, Ring, StreamKey, add_mask, chunk_digest, mask_values};

use super::setting::Setting;
use crate::spent::thread_time;

/// For how long each is measured.
const LONG: Duration = Duration::from_millis(100);

/// Bytes of lanes that stay in the first cache.
const TILE: usize = 16 * 1024;

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
    /// Measures it, at the sizes of `setting`.
    ///
    /// # Errors
    /// A ring that does not exist.
    pub fn measure(setting: &Setting) -> anyhow::Result<Self> {
        let (ring, chunks) = (setting.chunks.ring(), setting.chunks);
        let wide = Ring::new(32)?;
        let (mut sum, bytes) = (Lanes::zero(wide, CHUNK_BYTES / 4), vec![7; CHUNK_BYTES]);
        let [blake3, add] = each([&mut || _ = black_box(chunk_digest(black_box(&bytes))), &mut || {
            _ = black_box(sum.add_packed(wide, black_box(&bytes)));
        }]);
        let keys: Vec<StreamKey> =
            (0..setting.sharing.blocks().len()).map(|block| StreamKey::new([block as u8; 32])).collect();
        let values = setting.quantize(&super::data::vector(setting, 0, 1))?;
        let mut tile = Lanes::zero(ring, TILE / ring.lane_bytes());
        let [mask, keystreams] = each([&mut || mask_all(&keys, &chunks, black_box(&values)), &mut || {
            expand_all(&keys, &chunks, black_box(&mut tile));
        }]);
        let lanes = (keys.len() * ring.lane_bytes()) as f64 * chunks.dimension() as f64;
        let words = chunks.dimension() as f64 * ring.word_bytes() as f64;
        let [blake3, add] = [blake3, add].map(|seconds| CHUNK_BYTES as f64 / seconds);
        Ok(Self { keystream: lanes / keystreams, blake3, add, mask, keystreams, hash: words / blake3 })
    }
}

fn mask_all(keys: &[StreamKey], chunks: &Chunks, values: &[i64]) {
    for chunk in 0..chunks.count() {
        let start = chunks.start(chunk);
        let part = &values[start as usize..start as usize + chunks.len(chunk)];
        let _ = black_box(mask_values(keys, chunks.ring(), start, part));
    }
}

/// The keystreams of a whole vector and nothing else.
fn expand_all(keys: &[StreamKey], chunks: &Chunks, tile: &mut Lanes) {
    let step = tile.len().max(1);
    for key in keys {
        for start in (0..chunks.dimension()).step_by(step) {
            add_mask(key, chunks.ring(), start, tile);
        }
    }
}

/// How much processor time each of `runs` takes, in seconds: the medians of many, taken in turn.
fn each<const N: usize>(mut runs: [&mut dyn FnMut(); N]) -> [f64; N] {
    runs.iter_mut().for_each(|run| run());
    let begun = Instant::now();
    let mut times = [const { Vec::new() }; N];
    while begun.elapsed() < LONG * N as u32 {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            let start = thread_time();
            run();
            times.push((thread_time() - start).as_secs_f64());
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2].max(1e-9)
    })
}
