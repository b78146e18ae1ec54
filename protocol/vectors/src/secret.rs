//! Secrets of 32 bytes: boxed, wiped on drop, silent when printed (PROTOCOL.md, *Trust*).
//!
//! A box means that a move leaves no copy behind. None of them is `Clone` or serialises: bytes come out by name, with
//! `expose`.

/// Defines a secret of 32 bytes: `secret! { /// What it is. pub Name }`.
///
/// The crate that calls it depends on `zeroize`.
#[macro_export]
macro_rules! secret {
    ($(#[$doc:meta])* $visibility:vis $name:ident) => {
        $(#[$doc])*
        $visibility struct $name(Box<[u8; 32]>);

        impl $name {
            /// Takes 32 bytes in; the copy on the stack is wiped.
            $visibility fn new(mut bytes: [u8; 32]) -> Self {
                let secret = Self(Box::new(bytes));
                ::zeroize::Zeroize::zeroize(&mut bytes);
                secret
            }

            /// The bytes themselves: only for storing or sealing them, never for a log or an error.
            $visibility fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                ::zeroize::Zeroize::zeroize(&mut *self.0);
            }
        }

        impl ::zeroize::ZeroizeOnDrop for $name {}

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

secret! {
    /// The AES-256 key that a mask is the stream of.
    pub StreamKey
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", StreamKey::new([7; 32])), "StreamKey(..)");
    }
}
