//! The certificate authority of a study in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_bytes::ByteBuf;

use crate::desk::Me;
use crate::id::{Authority, Chain, Dates, Identity, Name, Role};
use crate::kdf;
use crate::signing::SigningKey;
use crate::wire::digest_certificate;

/// Names parties as a CA would: a chain is the party's name and how often it was renewed, and it proves what was
/// registered under it.
#[derive(Debug, Default)]
pub struct Registry(Mutex<BTreeMap<Vec<ByteBuf>, Identity>>);

impl Registry {
    /// Registers `name`; the key is derived from the name.
    pub fn register(self: &Arc<Self>, name: &Name, role: Role) -> Me {
        self.issue(name, role, 0)
    }

    /// A certificate that was renewed so many times.
    pub(super) fn issue(self: &Arc<Self>, name: &Name, role: Role, renewals: u32) -> Me {
        let signing = signing_key(name);
        let bytes = format!("{name} {renewals}").into_bytes();
        let certificate = digest_certificate(&bytes);
        let identity = Identity { name: name.clone(), role, key: signing.verifying_key(), certificate };
        let chain = Chain(vec![ByteBuf::from(bytes)]);
        if let Ok(mut parties) = self.0.lock() {
            parties.insert(chain.0.clone(), identity);
        }
        Me { name: name.clone(), role, signing, chain, authority: self.clone() }
    }
}

impl Authority for Registry {
    fn identify(&self, chain: &Chain, _dates: Dates) -> Result<Identity, String> {
        let parties = self.0.lock().map_err(|_| "the registry is poisoned".to_string())?;
        parties.get(&chain.0).cloned().ok_or_else(|| "not registered in this study".to_string())
    }
}

/// The key of `name`, which follows from the name.
pub(crate) fn signing_key(name: &Name) -> SigningKey {
    SigningKey::from_bytes(&kdf::derive("ward/1 memory key", name.as_str().as_bytes(), &[]))
}
