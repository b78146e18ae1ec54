//! The secrets that stand in stores.

use protocol::Records;

use super::{Study, name, p};

/// Every 32-byte secret that stands in the stores of this session now: chains, seal keys, roots, session randomness.
pub fn secrets(study: &Study) -> Vec<[u8; 32]> {
    let mut found = Vec::new();
    let everybody = (0..study.build.patients).map(p).chain([name("server"), name("hospital")]);
    for who in everybody {
        for (key, value) in study.net.store(&who).unwrap() {
            let secret = ["/chains", "/holdings", "/holding/", "/randomness", "/seal", "/payload"];
            let own_state = key.ends_with("/state") && (who == name("server") || who == name("hospital"));
            if own_state {
                // The randomness is the last field.
                found.push(value[value.len() - 32..].try_into().unwrap());
            } else if key.ends_with("/round") {
                // The root is the first field, after the marks of two arrays and its own.
                found.push(value[4..36].try_into().unwrap());
            } else if secret.iter().any(|what| key.contains(what)) && !key.ends_with("/rounds") {
                // MessagePack writes 32 bytes as c4 20 and the bytes; a bare record is the secret itself.
                found.extend(<[u8; 32]>::try_from(&value[..]).ok());
                let after_mark = value.windows(34).filter(|window| window[..2] == [0xc4, 0x20]);
                found.extend(after_mark.map(|window| <[u8; 32]>::try_from(&window[2..]).unwrap()));
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether the secret stands in a store.
pub fn holds(store: &Records, secret: &[u8; 32]) -> bool {
    store.values().any(|value| value.windows(32).any(|window| window == secret))
}
