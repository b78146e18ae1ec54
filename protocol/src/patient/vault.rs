//! *Once*: which snapshot went into which session, and with which values (design section 4).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::desk::Desk;
use crate::id::{Digest, SessionId, Snapshot};
use crate::kdf;
use crate::step::{Effects, Moment};
use crate::task::{Record, Schema};
use crate::wire;

/// Why data cannot be offered under a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The values under a label are frozen when first shared.
    #[error(
        "snapshot `{snapshot}` was shared with other values in session {}: values under a label never change; offer the \
         new ones under the next label (--snapshot)", session.short()
    )]
    Frozen {
        /// Which label.
        snapshot: Snapshot,
        /// Where it was shared.
        session: SessionId,
    },
}

/// Where a snapshot went, and a digest of the values it went with, keyed by a secret of the owner.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    session: SessionId,
    #[serde(with = "serde_bytes")]
    secret: [u8; 32],
    values: Digest,
}

/// Data under a label, with the digest that freezes it: made when the data are offered, not in the middle of a round.
struct Offered {
    record: Arc<Record>,
    secret: [u8; 32],
    values: Digest,
}

impl Offered {
    fn new(record: Record, secret: [u8; 32]) -> Self {
        Self { values: record.digest(&secret), record: Arc::new(record), secret }
    }
}

/// What a patient holds under its labels.
pub(crate) struct Vault {
    schema: Schema,
    offered: BTreeMap<Snapshot, Offered>,
    bound: BTreeMap<Snapshot, Bound>,
}

impl Vault {
    pub(crate) fn new(schema: Schema) -> Self {
        Self { schema, offered: BTreeMap::new(), bound: BTreeMap::new() }
    }

    pub(crate) fn restore(&mut self, store: &BTreeMap<String, Vec<u8>>) {
        for (key, value) in store {
            if let Some(Ok(label)) = key.strip_prefix("values/").map(str::parse) {
                let stored = wire::decode::<(ByteArray<32>, Record)>(value, "values");
                self.offered.extend(stored.map(|(secret, record)| (label, Offered::new(record, *secret))));
            } else if let Some(Ok(label)) = key.strip_prefix("snapshot/").map(str::parse) {
                self.bound.extend(wire::decode(value, "snapshot").map(|bound| (label, bound)));
            }
        }
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = &Snapshot> {
        self.offered.keys()
    }

    pub(crate) fn record(&self, snapshot: &Snapshot) -> Option<Arc<Record>> {
        self.offered.get(snapshot).map(|offered| offered.record.clone())
    }

    /// The other session that `snapshot` belongs to, if it does not belong to `session` or to none yet.
    pub(crate) fn belongs_elsewhere(&self, snapshot: &Snapshot, session: SessionId) -> Option<SessionId> {
        self.bound.get(snapshot).map(|bound| bound.session).filter(|bound| *bound != session)
    }

    pub(crate) fn offer(&mut self, snapshot: Snapshot, record: Record, moment: &Moment) -> Result<Effects, OfferError> {
        if let Some(bound) = self.bound.get(&snapshot)
            && record.digest(&bound.secret) != bound.values
        {
            return Err(OfferError::Frozen { snapshot, session: bound.session });
        }
        let secret = match self.bound.get(&snapshot) {
            Some(bound) => bound.secret,
            None => kdf::derive("ward/1 snapshot secret", &moment.fresh[..], &[snapshot.as_str().as_bytes()]),
        };
        let mut out = Effects::default();
        out.put(format!("values/{snapshot}"), wire::encode(&(serde_bytes::Bytes::new(&secret), &record)));
        self.offered.insert(snapshot, Offered::new(record, secret));
        Ok(out)
    }

    /// Binds `snapshot` to `session` with the values it has now; stored before anything is shared.
    pub(crate) fn bind<T>(&mut self, snapshot: &Snapshot, session: SessionId, desk: &mut Desk<'_, T>) {
        let Some(offered) = self.offered.get(snapshot) else { return };
        if !self.bound.contains_key(snapshot) {
            let bound = Bound { session, secret: offered.secret, values: offered.values };
            desk.out.put(format!("snapshot/{snapshot}"), wire::encode(&bound));
            self.bound.insert(snapshot.clone(), bound);
        }
    }

    /// Forgets the values that went into a session which is over; that they went there is kept for ever.
    pub(crate) fn release<T>(&mut self, session: SessionId, desk: &mut Desk<'_, T>) {
        let over = self.bound.iter().filter(|(_, bound)| bound.session == session);
        for snapshot in over.map(|(snapshot, _)| snapshot) {
            if self.offered.remove(snapshot).is_some() {
                desk.out.forget(format!("values/{snapshot}"));
            }
        }
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({:?})", self.offered.keys())
    }
}
