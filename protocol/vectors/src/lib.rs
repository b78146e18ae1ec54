//! Ward's vectors: words over the ring Z_2^w as they travel, lanes as they are added, and the masks on them.
//!
//! These are the loops that a round of long vectors spends its time in, and nothing else: what is masked with which key,
//! and when, the crate `protocol` decides, which gives all of this on as its own. It is a crate because its loops are
//! fast only when they are compiled as one unit, and `protocol` is compiled in half the time as several.
//!
//! ```
//! use vectors::{Lanes, Ring, StreamKey, add_mask, mask_values};
//!
//! let ring = Ring::new(24)?;
//! let keys = [StreamKey::new([7; 32])];
//!
//! // A patient sends its values without the mask: three bytes each, noise to whoever lacks the key.
//! let masked = mask_values(&keys, ring, 0, &[120, -3, 42])?;
//! assert_eq!(masked.len(), 9);
//!
//! // A server adds what comes, in the form in which it comes; who has the key can put the mask back.
//! let mut sum = Lanes::zero(ring, 3);
//! sum.add_packed(ring, &masked)?;
//! add_mask(&keys[0], ring, 0, &mut sum);
//! assert_eq!(sum.to_i64(ring), [120, -3, 42]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod keystream;
mod lane;
mod mask;
mod quantize;
mod ring;
mod secret;
#[cfg(target_arch = "x86_64")]
mod shuffle;
#[cfg(target_arch = "x86_64")]
mod vaes;
mod words;

pub use mask::*;
pub use quantize::*;
pub use ring::*;
pub use secret::*;
