//! Secrets: wiped on drop, silent when printed (PROTOCOL.md, *Trust*).
//!
//! Those of 32 bytes are boxed, and none of them is `Clone` or serialises: a copy is made by name, with `duplicate`.

use std::fmt;
use std::ops::Deref;

use vectors::secret;
use zeroize::{Zeroize as _, ZeroizeOnDrop};

macro_rules! duplicate {
    ($($name:ident),+) => {$(
        impl $name {
            /// A second copy. It is not `Clone`, so that no derive and no `to_owned` makes one in
            /// passing: every place where a secret multiplies can be found by this word.
            pub fn duplicate(&self) -> Self {
                Self::new(*self.expose())
            }
        }
    )+};
}

secret! {
    /// The mask seed `s[i,B]` of one patient and one block, for one round.
    pub Seed
}
secret! {
    /// A party's randomness for one round; all else in the round is derived from it.
    pub Root
}
secret! {
    /// A party's randomness for a session's set-up.
    pub SessionRandomness
}
secret! {
    /// `chain_r`: what a patient and a member share in round `r`.
    pub ChainKey
}
secret! {
    /// What a seal key pair is derived from: the private half of a [`SealKey`](crate::seal::SealKey).
    pub SealSecret
}
secret! {
    /// What the two ends of a sealed sum share; the key of each piece is derived from it.
    pub(crate) SumKey
}

duplicate!(Seed, Root, SessionRandomness, ChainKey, SealSecret);

/// Secrets of any length, such as a record or the words of a sum of masks: wiped on drop, silent when printed.
///
/// What `Zeroizing<Vec<u8>>` wipes byte by byte this wipes at once: words are megabytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
        self.0.spare_capacity_mut().zeroize();
    }
}

impl ZeroizeOnDrop for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", Seed::new([7; 32])), "Seed(..)");
        assert_eq!(format!("{:#?}", Some(Root::new([7; 32]))).replace(char::is_whitespace, ""), "Some(Root(..),)");
        assert_eq!(format!("{:?}", SessionRandomness::new([7; 32])), "SessionRandomness(..)");
        assert_eq!(format!("{:?}", ChainKey::new([7; 32])), "ChainKey(..)");
        assert_eq!(format!("{:?}", SealSecret::new([7; 32])), "SealSecret(..)");
        assert_eq!(format!("{:?}", SecretBytes::from(vec![7; 40])), "SecretBytes(..)");
    }

    #[test]
    fn a_duplicate_has_the_same_bytes() {
        let root = Root::new([9; 32]);
        assert_eq!(root.duplicate().expose(), root.expose());
    }
}
