//! What can be wrong with any MessagePack value: variants of a valid one, each by what it attacks.

/// Bytes in place of a value, by what they are.
const IN_PLACE: [(&str, &[u8]); 14] = [
    ("an-array-of-4-gib", &[0xdd, 0xff, 0xff, 0xff, 0xff]),
    ("a-map-of-4-gib", &[0xdf, 0xff, 0xff, 0xff, 0xff]),
    ("bytes-of-4-gib", &[0xc6, 0xff, 0xff, 0xff, 0xff]),
    ("a-text-of-4-gib", &[0xdb, 0xff, 0xff, 0xff, 0xff]),
    ("an-extension-of-4-gib", &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01]),
    ("an-extension", &[0xd4, 0x01, 0x00]),
    ("not-a-number", &[0xca, 0x7f, 0xc0, 0x00, 0x00]),
    ("an-infinite-number", &[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]),
    ("a-text-that-is-not-utf-8", &[0xa2, 0xff, 0xfe]),
    ("a-negative-number", &[0xff]),
    ("nil", &[0xc0]),
    ("true", &[0xc3]),
    ("a-padded-number", &[0xcd, 0x00, 0x01]),
    ("a-byte-that-marks-nothing", &[0xc1]),
];

/// Variants of `whole`, of which [`is_valid`] says which hold.
pub fn variants(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut variants: Vec<(String, Vec<u8>)> = vec![
        ("whole".into(), whole.to_vec()),
        ("nothing".into(), vec![]),
        ("cut-in-half".into(), whole[..whole.len() / 2].to_vec()),
        ("cut-before-its-last-byte".into(), whole[..whole.len() - 1].to_vec()),
        ("a-byte-too-many".into(), [whole, &[0xc0]].concat()),
        ("twice".into(), [whole, whole].concat()),
        ("nested-300-deep".into(), vec![0x91; 300]),
        ("a-long-text-to-repeat-in-an-error".into(), [&[0xda, 0x08, 0x00][..], &[0x7f; 2048]].concat()),
    ];
    let (head, rest) = (whole[0], &whole[1..]);
    if let 0x90..=0x9e = head {
        variants.push(("a-map-in-its-place".into(), [&[head - 0x10], rest].concat()));
        variants.push(("a-field-that-is-not-there".into(), [&[head + 1], rest].concat()));
        variants.push(("a-padded-header".into(), [&[0xdc, 0, head & 0xf], rest].concat()));
    }
    // Three of these in place of the whole value, others for another value.
    let some = (0..3).map(|number| IN_PLACE[(number * 5 + whole.len()) % IN_PLACE.len()]);
    variants.extend(some.map(|(what, bytes)| (what.into(), bytes.to_vec())));
    let fields = fields(whole);
    for (number, (start, end)) in fields.iter().enumerate() {
        // One type a field: the fields of all messages together have every type.
        let (what, bytes) = IN_PLACE[(number * 5 + whole.len()) % IN_PLACE.len()];
        let replaced = [&whole[..*start], bytes, &whole[*end..]].concat();
        variants.push((format!("field-{number}-{what}"), replaced));
        let largest = [&whole[..*start], &[0xcf], &[0xff; 8], &whole[*end..]].concat();
        variants.push((format!("field-{number}-the-largest-number"), largest));
    }
    if let [.., (start, end)] = fields[..] {
        variants.push(("its-last-field-twice".into(), [&[head + 1], rest, &whole[start..end]].concat()));
    }
    variants
}

/// Whether the variant of this name may hold: for some fields what is tried is a value as well.
pub fn is_valid(variant: &str) -> bool {
    let values = ["-the-largest-number", "-nil", "-true"];
    let lists = ["chain-its-last-field-twice", "joins-its-last-field-twice", "sumpieces-its-last-field-twice"];
    variant.ends_with("-whole")
        || lists.contains(&variant)
        || variant.contains("-field-") && values.iter().any(|value| variant.ends_with(value))
}

/// Where the fields of a short array stand.
pub fn fields(whole: &[u8]) -> Vec<(usize, usize)> {
    let 0x91..=0x9f = whole[0] else { return vec![] };
    let mut at = 1;
    let next = |_| {
        let start = at;
        at = end(whole, at);
        (start, at)
    };
    (0..whole[0] & 0xf).map(next).collect()
}

/// Where the value at `at` ends.
fn end(whole: &[u8], at: usize) -> usize {
    let number = |width: usize| whole[at + 1..][..width].iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
    let values = |count: usize, from: usize| (0..count).fold(from, |at, _| end(whole, at));
    match whole[at] {
        head @ 0x80..=0x8f => values(2 * usize::from(head & 0xf), at + 1),
        head @ 0x90..=0x9f => values((head & 0xf).into(), at + 1),
        head @ 0xa0..=0xbf => at + 1 + usize::from(head & 0x1f),
        0xc4 | 0xd9 => at + 2 + number(1),
        0xc5 | 0xda => at + 3 + number(2),
        0xcc => at + 2,
        0xcd => at + 3,
        0xce => at + 5,
        0xcf => at + 9,
        0xdc => values(number(2), at + 3),
        _ => at + 1,
    }
}
