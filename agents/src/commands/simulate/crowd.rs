//! Who takes part in a simulated study: names, keys and values, all from one seed, so that a patient can be made, dropped
//! and made again as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use protocol::{
    Authority, Chain, Column, Dates, Identity, Me, Name, Patient, Policy, Record, Role, Scale, Schema,
    digest_certificate,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_bytes::ByteBuf;

/// The study's name.
pub const STUDY: &str = "simulated";

/// What stands in for certificates: the party's role, key and name, taken at their word. Checking real ones is not the
/// protocol's work.
#[derive(Debug)]
struct Unchecked;

impl Authority for Unchecked {
    fn identify(&self, chain: &Chain, _dates: Dates) -> Result<Identity, String> {
        let [certificate] = chain.0.as_slice() else { return Err("a chain of one certificate".into()) };
        let (key, rest) = certificate.split_first_chunk::<32>().ok_or("a certificate without a key")?;
        let rest = std::str::from_utf8(rest).map_err(|error| error.to_string())?;
        let (role, name) = rest.split_once('/').ok_or("a certificate without a role")?;
        Ok(Identity {
            name: name.parse().map_err(|error: protocol::NameError| error.to_string())?,
            role: role.parse().map_err(|error: protocol::RoleError| error.to_string())?,
            key: VerifyingKey::from_bytes(key).map_err(|error| error.to_string())?,
            certificate: digest_certificate(certificate),
        })
    }
}

/// All patients of a study, the members of its committee first.
#[derive(Debug)]
pub struct Crowd {
    seed: u64,
    /// How many.
    pub patients: u32,
    /// How many of them are marked: all sit on the committee.
    pub members: u32,
    /// How many of the others drop.
    pub dropped: u32,
    /// What everybody's data look like.
    pub schema: Schema,
    policy: Policy,
    authority: Arc<Unchecked>,
}

impl Crowd {
    /// Patients with `dim` values each, whole numbers up to `bound`.
    pub fn new(seed: u64, patients: u32, members: u8, dropped: u32, dim: u32, bound: u64) -> anyhow::Result<Self> {
        let policy = Policy::open(STUDY, 2);
        let columns = vec![Column { name: "value".into(), width: dim }];
        let schema = Schema { columns, scaled_bound: bound, scale: Scale::new(1)? };
        Ok(Self { seed, patients, members: members.into(), dropped, schema, policy, authority: Arc::new(Unchecked) })
    }

    /// The numbers of those that are not on the committee.
    pub fn ordinary(&self) -> std::ops::Range<u32> {
        self.members..self.patients
    }

    /// Whether patient `number` drops: those who do are spread evenly over those that may.
    pub fn drops(&self, number: u32) -> bool {
        let Some(at) = number.checked_sub(self.members) else { return false };
        let before = |at: u32| u64::from(at) * u64::from(self.dropped) / u64::from(self.patients - self.members);
        before(at + 1) > before(at)
    }

    /// The name of patient `number`.
    pub fn name(&self, number: u32) -> anyhow::Result<Name> {
        let role = if number < self.members { "member" } else { "patient" };
        Ok(format!("{role}-{number:07}").parse()?)
    }

    /// A stream of random bytes of its own for each `label` and `number`.
    pub fn draws(&self, label: u8, number: u32) -> StdRng {
        let mut seed = [label; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..12].copy_from_slice(&number.to_le_bytes());
        StdRng::from_seed(seed)
    }

    /// A party with a key of its own.
    pub fn party(&self, name: Name, role: Role, label: u8, number: u32) -> Me {
        let mut secret = [0; 32];
        self.draws(label, number).fill_bytes(&mut secret);
        let signing = SigningKey::from_bytes(&secret);
        let mut certificate = signing.verifying_key().to_bytes().to_vec();
        certificate.extend_from_slice(format!("{role}/{name}").as_bytes());
        Me { name, role, signing, chain: Chain(vec![ByteBuf::from(certificate)]), authority: self.authority.clone() }
    }

    /// Patient `number` as it is before its first session.
    pub fn patient(&self, number: u32) -> anyhow::Result<Patient> {
        let role = if number < self.members { Role::Member } else { Role::Patient };
        let me = self.party(self.name(number)?, role, b'k', number);
        Ok(Patient::new(me, self.policy.clone(), self.schema.clone()))
    }

    /// The values of patient `number`.
    pub fn values(&self, number: u32) -> Vec<i64> {
        let (mut draws, bound) = (self.draws(b'v', number), self.schema.scaled_bound);
        let width = self.schema.columns.iter().map(|column| column.width).sum();
        (0..width).map(|_| (draws.next_u64() % (2 * bound + 1)) as i64 - bound as i64).collect()
    }

    /// `values` as a patient offers them.
    pub fn record(&self, values: Vec<i64>) -> anyhow::Result<Record> {
        Ok(Record::new(BTreeMap::from([("value".to_string(), values)]), &self.schema)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn as_many_drop_as_were_asked_for_and_no_member() {
        for dropped in [0, 1, 7, 40, 95] {
            let crowd = Crowd::new(1, 100, 5, dropped, 3, 10).unwrap();
            assert_eq!((0..100).filter(|number| crowd.drops(*number)).count(), dropped as usize);
            assert!(!(0..5).any(|number| crowd.drops(number)));
        }
    }

    #[test]
    fn a_patient_is_made_again_as_it_was() {
        let crowd = Crowd::new(1, 100, 5, 0, 50, 10).unwrap();
        assert_eq!(crowd.values(7), crowd.values(7));
        assert_ne!(crowd.values(7), crowd.values(8));
        assert!(crowd.values(7).iter().all(|value| value.abs() <= 10));
        let party = |number| crowd.party(crowd.name(number).unwrap(), Role::Patient, b'k', number);
        assert_eq!(party(7).chain, party(7).chain);
        let known = crowd.authority.identify(&party(7).chain, Dates::Checked).unwrap();
        assert_eq!((known.name, known.key), (crowd.name(7).unwrap(), party(7).signing.verifying_key()));
    }
}
