//! Secrets of 32 bytes: boxed, wiped on drop, silent when printed (PROTOCOL.md, *Trust*).
//!
//! A box means that a move leaves no copy behind. None of them is `Clone` or serialises: a copy is
//! made by name, with `duplicate`, and bytes come out by name, with `expose`.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

macro_rules! secret {
    ($(#[$doc:meta])* $visibility:vis $name:ident) => {
        $(#[$doc])*
        $visibility struct $name(Box<[u8; 32]>);

        impl $name {
            /// Takes 32 bytes in; the copy on the stack is wiped.
            $visibility fn new(mut bytes: [u8; 32]) -> Self {
                let secret = Self(Box::new(bytes));
                bytes.zeroize();
                secret
            }

            /// The bytes themselves: only for storing or sealing them, never for a log or an error.
            $visibility fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl ZeroizeOnDrop for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

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
    /// The AES-256 key that a seed expands under.
    pub StreamKey
}
secret! {
    /// What a seal key pair is derived from: the private half of a [`SealKey`](crate::seal::SealKey).
    pub SealSecret
}
secret! {
    /// What the two ends of a sealed sum share; the key of each piece is derived from it.
    pub(crate) SumKey
}

duplicate!(Seed, Root, SessionRandomness, ChainKey, StreamKey, SealSecret);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", Seed::new([7; 32])), "Seed(..)");
        assert_eq!(format!("{:#?}", Some(Root::new([7; 32]))).replace(char::is_whitespace, ""), "Some(Root(..),)");
        assert_eq!(format!("{:?}", SessionRandomness::new([7; 32])), "SessionRandomness(..)");
        assert_eq!(format!("{:?}", ChainKey::new([7; 32])), "ChainKey(..)");
        assert_eq!(format!("{:?}", StreamKey::new([7; 32])), "StreamKey(..)");
        assert_eq!(format!("{:?}", SealSecret::new([7; 32])), "SealSecret(..)");
    }

    #[test]
    fn a_duplicate_has_the_same_bytes() {
        let root = Root::new([9; 32]);
        assert_eq!(root.duplicate().expose(), root.expose());
    }
}
