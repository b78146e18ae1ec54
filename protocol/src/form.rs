//! What is looked at before anything of a message is decoded: that it is as long as it claims, flat, and of short texts.
//!
//! A decoder takes memory for what a header claims, and repeats a text in its error. So no header may claim more than
//! is there, and no text may be long.

use rmp::Marker;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// The longest text of a message in bytes: a name of a column.
pub const MAX_TEXT: usize = 1024;

/// How deep values lie in each other at most: no message comes near it.
const DEEPEST: u8 = 16;

/// Whether `bytes` are one whole MessagePack value and nothing behind it, with no text over [`MAX_TEXT`], no extension
/// and nothing that is nested too deep.
pub(crate) fn is_sound(mut bytes: &[u8]) -> bool {
    skip(&mut bytes, DEEPEST).is_some() && bytes.is_empty()
}

/// Passes one value.
fn skip(left: &mut &[u8], depth: u8) -> Option<()> {
    let marker = Marker::from_u8(*left.split_off_first()?);
    match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => Some(()),
        Marker::U8 | Marker::I8 => pass(left, 1),
        Marker::U16 | Marker::I16 => pass(left, 2),
        Marker::U32 | Marker::I32 | Marker::F32 => pass(left, 4),
        Marker::U64 | Marker::I64 | Marker::F64 => pass(left, 8),
        Marker::FixStr(length) => pass(left, length.into()),
        Marker::Str8 => length(left, 1).and_then(|length| text(left, length)),
        Marker::Str16 => length(left, 2).and_then(|length| text(left, length)),
        Marker::Str32 => length(left, 4).and_then(|length| text(left, length)),
        Marker::Bin8 => length(left, 1).and_then(|length| pass(left, length)),
        Marker::Bin16 => length(left, 2).and_then(|length| pass(left, length)),
        Marker::Bin32 => length(left, 4).and_then(|length| pass(left, length)),
        Marker::FixArray(count) => values(left, count.into(), depth),
        Marker::Array16 => length(left, 2).and_then(|count| values(left, count, depth)),
        Marker::Array32 => length(left, 4).and_then(|count| values(left, count, depth)),
        Marker::FixMap(count) => values(left, 2 * usize::from(count), depth),
        Marker::Map16 => length(left, 2).and_then(|count| values(left, 2 * count, depth)),
        // No message has a map of so many keys, or anything of one's own.
        _ => None,
    }
}

/// Passes `count` bytes.
fn pass(left: &mut &[u8], count: usize) -> Option<()> {
    left.split_off(..count).map(drop)
}

fn text(left: &mut &[u8], length: usize) -> Option<()> {
    if length <= MAX_TEXT { pass(left, length) } else { None }
}

/// Passes `count` values: each has a byte at least, so that a claim of more than there are ends soon.
fn values(left: &mut &[u8], count: usize, depth: u8) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    if count > left.len() {
        return None;
    }
    (0..count).try_for_each(|_| skip(left, depth))
}

/// A length of `width` bytes.
fn length(left: &mut &[u8], width: usize) -> Option<usize> {
    Some(left.split_off(..width)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

/// A list of any length that takes memory only for what is there, whatever its header claims: for elements that are about
/// as wide in a message as in memory.
pub(crate) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    list_of::<T, D, { usize::MAX }>(from)
}

/// [`list`] of at most `MOST`: for elements that are wider in memory.
pub(crate) fn list_of<'de, T: Deserialize<'de>, D: Deserializer<'de>, const MOST: usize>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct List<T, const MOST: usize>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(one) = from.next_element()? {
                if list.len() == MOST {
                    return Err(A::Error::invalid_length(MOST, &self));
                }
                list.push(one);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(List::<T, MOST>(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_values_are_sound() {
        for bytes in [&[0xc0][..], &[0x93, 1, 0xa1, b'a', 0xc4, 1, 0], &[0x81, 0xa1, b'a', 0x91, 0x90], &[0xcd, 1, 0]] {
            assert!(is_sound(bytes), "{bytes:x?}");
        }
        let text = |length: usize| [&[0xda, (length >> 8) as u8, length as u8], &vec![b'a'; length][..]].concat();
        assert!(is_sound(&text(MAX_TEXT)) && !is_sound(&text(MAX_TEXT + 1)));
        let nested = |depth: usize| [&vec![0x91; depth][..], &[0xc0]].concat();
        assert!(is_sound(&nested(DEEPEST.into())) && !is_sound(&nested(usize::from(DEEPEST) + 1)));
    }

    #[test]
    fn claims_and_what_is_cut_or_of_ones_own_are_not() {
        let claims: [&[u8]; 12] = [
            &[],
            &[0xc0, 0xc0],
            &[0x92, 0],
            &[0xc4, 2, 0],
            &[0xc6, 0xff, 0xff, 0xff, 0xff],
            &[0xd9, 9],
            &[0xdb, 0xff, 0xff, 0xff, 0xff],
            &[0xdc, 0xff, 0xff, 0],
            &[0xdd, 0xff, 0xff, 0xff, 0xff, 0],
            &[0xdf, 0, 0, 0, 0],
            &[0xd4, 1, 2],
            &[0xc1],
        ];
        for claim in claims {
            assert!(!is_sound(claim), "{claim:x?}");
        }
    }
}
