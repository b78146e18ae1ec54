//! *Once*: which snapshot went into which session, and with which values (PROTOCOL.md).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::desk::Desk;
use crate::id::{Digest, SessionId, Snapshot};
use crate::kdf;
use crate::records::Records;
use crate::step::{Effects, Moment};
use crate::task::{Record, RecordError, Schema};
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
    /// The data do not fit the patient's schema.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A record of a store that cannot be read. What it said is a rule that this patient keeps, so it must not go on
/// without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record `{key}` of the store cannot be read: it was written by another release, or is damaged; restore it from a copy"
)]
pub struct StoreError {
    key: String,
}

/// Where a snapshot went, and a digest of the values it went with, keyed by a secret of the owner.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bound {
    session: SessionId,
    /// A session that were joined anew would have another Roster, and members that remember nothing.
    roster: Digest,
    #[serde(with = "serde_bytes")]
    secret: [u8; 32],
    values: Digest,
}

impl Bound {
    fn is_of(&self, session: SessionId, roster: Digest) -> bool {
        self.session == session && self.roster == roster
    }
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

    /// Takes what the store has. Data that the schema does not allow any longer are left out: they would be answered in
    /// another unit, or beyond another bound, than they were checked for. So are others than were shared under their label.
    pub(crate) fn restore(&mut self, store: &Records) -> Result<(), StoreError> {
        let unreadable = |key: &str| StoreError { key: key.into() };
        for (key, value) in store {
            if let Some(label) = key.strip_prefix("values/") {
                let label = label.parse().map_err(|_| unreadable(key))?;
                let stored =
                    wire::decode_own::<(ByteArray<32>, Record)>(value, "values").map_err(|_| unreadable(key))?;
                if stored.1.check(&self.schema).is_ok() {
                    self.offered.insert(label, Offered::new(stored.1, *stored.0));
                }
            } else if let Some(label) = key.strip_prefix("snapshot/") {
                let label = label.parse().map_err(|_| unreadable(key))?;
                self.bound.insert(label, wire::decode(value, "snapshot").map_err(|_| unreadable(key))?);
            }
        }
        // Whatever a store says: values under a label are answered from as they were shared, or not at all.
        let bound = &self.bound;
        self.offered.retain(|label, offered| bound.get(label).is_none_or(|bound| bound.values == offered.values));
        Ok(())
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = &Snapshot> {
        self.offered.keys()
    }

    /// The data under `snapshot`, and their digest, which only this patient can make.
    pub(crate) fn record(&self, snapshot: &Snapshot) -> Option<(Arc<Record>, Digest)> {
        self.offered.get(snapshot).map(|offered| (offered.record.clone(), offered.values))
    }

    /// The other session that `snapshot` belongs to, if it does not belong to `session` or to none yet.
    pub(crate) fn belongs_elsewhere(
        &self,
        snapshot: &Snapshot,
        session: SessionId,
        roster: Digest,
    ) -> Option<SessionId> {
        self.bound.get(snapshot).filter(|bound| !bound.is_of(session, roster)).map(|bound| bound.session)
    }

    /// Whether `snapshot` went into this session and its values are here: others than went are never taken under it.
    pub(crate) fn is_bound(&self, snapshot: &Snapshot, session: SessionId, roster: Digest) -> bool {
        let is_bound = self.bound.get(snapshot).is_some_and(|bound| bound.is_of(session, roster));
        is_bound && self.offered.contains_key(snapshot)
    }

    /// Takes `record` as the data under `snapshot`; where that went into a session that is over, nobody can ask for it
    /// again, and it is not stored.
    pub(crate) fn offer(
        &mut self,
        snapshot: Snapshot,
        record: Record,
        is_over: impl Fn(SessionId) -> bool,
        moment: &Moment,
    ) -> Result<Effects, OfferError> {
        record.check(&self.schema)?;
        if let Some(bound) = self.bound.get(&snapshot)
            && record.digest(&bound.secret) != bound.values
        {
            return Err(OfferError::Frozen { snapshot, session: bound.session });
        }
        if self.bound.get(&snapshot).is_some_and(|bound| is_over(bound.session)) {
            return Ok(Effects::default());
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

    /// Forgets the values under `snapshot`; a Share that is under way keeps them to its end.
    pub(crate) fn withdraw(&mut self, snapshot: &Snapshot) -> Effects {
        let mut out = Effects::default();
        if self.offered.remove(snapshot).is_some() {
            out.forget(format!("values/{snapshot}"));
        }
        out
    }

    /// Binds `snapshot` to `session` with the values it has now; stored before anything is shared.
    pub(crate) fn bind<T>(&mut self, snapshot: &Snapshot, session: SessionId, roster: Digest, desk: &mut Desk<'_, T>) {
        let Some(offered) = self.offered.get(snapshot) else { return };
        if !self.bound.contains_key(snapshot) {
            let bound = Bound { session, roster, secret: offered.secret, values: offered.values };
            desk.out.put(format!("snapshot/{snapshot}"), wire::encode(&bound));
            self.bound.insert(snapshot.clone(), bound);
        }
    }

    /// Forgets the values that went into a session which is over; that they went there is kept for ever.
    pub(crate) fn release(&mut self, session: SessionId, out: &mut Effects) {
        let over = self.bound.iter().filter(|(_, bound)| bound.session == session);
        for snapshot in over.map(|(snapshot, _)| snapshot) {
            if self.offered.remove(snapshot).is_some() {
                out.forget(format!("values/{snapshot}"));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::decimal::Scale;
    use crate::task::Column;

    #[test]
    fn a_snapshot_belongs_to_one_session_and_one_roster_of_it() {
        let (session, roster, other) = (Digest([1; 32]), Digest([2; 32]), Digest([3; 32]));
        // As far as a subject says it, this is that session.
        let twin = Digest(std::array::from_fn(|at| if at < 16 { 1 } else { 3 }));
        let columns = vec![Column::scalar("value")];
        let schema = Schema { columns, scaled_bound: 1_000, scale: Scale::new(1).unwrap() };
        let record = Record::new([("value".to_string(), vec![7])].into(), &schema).unwrap();
        let (secret, label): ([u8; 32], Snapshot) = ([4; 32], "1".parse().unwrap());
        let bound = Bound { session, roster, secret, values: record.digest(&secret) };
        let mut store = Records::new();
        store.insert("values/1".into(), wire::encode(&(serde_bytes::Bytes::new(&secret), &record)).into());
        store.insert("snapshot/1".into(), wire::encode(&bound).into());
        let mut vault = Vault::new(schema);
        vault.restore(&store).unwrap();

        assert!(vault.is_bound(&label, session, roster));
        assert_eq!(vault.belongs_elsewhere(&label, session, roster), None);
        for (another, roster) in [(other, roster), (twin, roster), (session, other)] {
            assert!(!vault.is_bound(&label, another, roster));
            assert_eq!(vault.belongs_elsewhere(&label, another, roster), Some(session));
        }
        let _ = vault.withdraw(&label);
        assert!(!vault.is_bound(&label, session, roster));
    }
}
