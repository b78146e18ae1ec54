//! `patient.toml`: what a patient's data look like, and what the patient takes part in.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, marker};

use certs::Study;
use protocol::decimal::{self, DecimalError};
use protocol::{Accepted, AcceptedColumns, Column, Name, Policy, Scale, Schema};
use serde::de::{Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::drafts::UNDER_LOCK;

/// The file in a party's folder.
pub(crate) const PROFILE_FILE: &str = "patient.toml";

/// The smallest cohort that a patient accepts unless it says otherwise.
pub(crate) const MIN_COHORT: u32 = 3;

/// The bound of every value, unless another is given.
pub(crate) const BOUND: u64 = 1_000_000_000;
const MOST_MEMBERS: u8 = 10;

/// A patient's schema and policy, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Columns, bound and scale of its data.
    pub(crate) schema: Schema,
    /// Which sessions and questions it takes part in.
    pub(crate) policy: Policy,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// The file cannot be read or written.
    #[error("cannot use the profile `{}`: {cause}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// No TOML, an unknown key, or a value of another type.
    #[error("`{}` is no profile: {cause}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        cause: Box<toml::de::Error>,
    },
    /// A key with a value that breaks a rule.
    #[error("`{}`, key `{key}`: {rule}", .path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// The key, as `table.key`.
        key: &'static str,
        /// The rule, and what to write instead.
        rule: String,
    },
}

impl Profile {
    /// One column `value` with a bound of 10^9 and six decimals; any hospital and any member, committees of
    /// two or more, cohorts of three or more.
    pub(crate) fn standard(study: &Study) -> Self {
        let schema = Schema {
            columns: vec![Column::scalar("value")],
            scaled_bound: 1_000_000_000_000_000,
            scale: Scale::default(),
        };
        Self { schema, policy: Policy::open(&study.to_string(), MIN_COHORT) }
    }

    /// The profile in the folder `dir`, or [`Profile::standard`] where there is none. A key that is left out
    /// has its standard value.
    ///
    /// # Errors
    /// [`ProfileError`] names the file, the key and the rule.
    pub(crate) fn load_or_default(dir: &Path, study: &Study) -> Result<Self, ProfileError> {
        let path = dir.join(PROFILE_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Self::standard(study)),
            Err(cause) => return Err(ProfileError::File { path, cause }),
        };
        let written: Written = match toml::from_str(&text) {
            Ok(written) => written,
            Err(cause) => return Err(ProfileError::Syntax { path, cause: Box::new(cause) }),
        };
        written.check(study).map_err(|Broken { key, rule }| ProfileError::Rule { path, key, rule })
    }

    /// Whether the patient with the folder `dir` has a profile of its own there.
    pub(crate) fn is_written(dir: &Path) -> bool {
        dir.join(PROFILE_FILE).exists()
    }

    /// Writes the profile into the folder `dir`, with a word on each key, in place of what stands there. Under the home's lock.
    ///
    /// # Errors
    /// [`ProfileError::File`].
    pub(crate) fn save(&self, dir: &Path) -> Result<(), ProfileError> {
        let path = dir.join(PROFILE_FILE);
        let written = tempfile::Builder::new().prefix(UNDER_LOCK).tempfile_in(dir).and_then(|mut file| {
            file.write_all(self.to_string().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|refused| refused.error)
        });
        written.map(drop).map_err(|cause| ProfileError::File { path, cause })
    }
}

/// The file's text. It says of each key what it does.
impl Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, policy } = self;
        let columns: String = schema.columns.iter().fold(String::new(), |mut text, Column { name, width }| {
            let name = toml::Value::from(name.as_str());
            let _ = writeln!(text, "    {{ name = {name}, width = {width} }},");
            text
        });
        let bound = toml::Value::from(decimal::format(schema.scaled_bound.into(), schema.scale));
        write!(
            f,
            "# What this patient's data look like, and what it takes part in.\n\
             # Whether it takes part never depends on a value: values are checked here when they are loaded.\n\n\
             [schema]\n\
             # Each column has a name, and a width where it has more coordinates than one.\n\
             columns = [\n{columns}]\n\
             # The largest absolute value of a coordinate.\n\
             bound = {bound}\n\
             # Steps to a unit, a power of ten: with 1000000, six decimals add up exactly.\n\
             scale = {}\n\n\
             [policy]\n\
             # The smallest number of patients in a sum.\n\
             min_cohort = {}\n\
             # The smallest committee, and the smallest number of members that it must withstand together.\n\
             committee = {}\n\
             threshold = {}\n\
             # Whom it answers, and whom it lets hold its mask seeds: \"anyone\" that the CA names, or a list.\n\
             hospitals = {}\n\
             members = {}\n\
             # Which columns may be asked for: \"all\", or a list.\n\
             columns = {}\n",
            schema.scale.get(),
            policy.min_cohort,
            policy.min_committee,
            policy.min_threshold,
            accepted(&policy.hospitals),
            accepted(&policy.members),
            match &policy.columns {
                AcceptedColumns::All => toml::Value::from("all"),
                AcceptedColumns::Only(names) => toml::Value::from(names.clone()),
            },
        )
    }
}

fn accepted(whom: &Accepted) -> toml::Value {
    match whom {
        Accepted::Anyone => "anyone".into(),
        Accepted::Only(names) => names.iter().map(|name| toml::Value::from(name.as_str())).collect::<Vec<_>>().into(),
    }
}

/// The file as it is written, before its rules are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    schema: WrittenSchema,
    #[serde(default)]
    policy: WrittenPolicy,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSchema {
    columns: Option<Vec<Column>>,
    bound: Option<Bound>,
    scale: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPolicy {
    min_cohort: Option<u32>,
    committee: Option<u8>,
    threshold: Option<u8>,
    hospitals: Option<AllOr<Anyone>>,
    members: Option<AllOr<Anyone>>,
    columns: Option<AllOr<All>>,
}

/// A rule that a key's value breaks.
#[derive(Debug)]
struct Broken {
    key: &'static str,
    rule: String,
}

fn broken(key: &'static str) -> impl Fn(&dyn Display) -> Broken {
    move |rule| Broken { key, rule: rule.to_string() }
}

impl Written {
    fn check(self, study: &Study) -> Result<Profile, Broken> {
        let Profile { schema, policy } = Profile::standard(study);
        let schema = self.schema.check(schema)?;
        let policy = self.policy.check(policy, &schema)?;
        Ok(Profile { schema, policy })
    }
}

impl WrittenSchema {
    fn check(self, standard: Schema) -> Result<Schema, Broken> {
        let columns = self.columns.map_or(Ok(standard.columns), check_columns)?;
        let scale = self.scale.map_or(Ok(standard.scale), Scale::new).map_err(|e| broken("schema.scale")(&e))?;
        let bound = self.bound.unwrap_or(Bound(BOUND.to_string()));
        let scaled_bound = bound.scaled(scale).map_err(|rule| broken("schema.bound")(&rule))?;
        Ok(Schema { columns, scaled_bound, scale })
    }
}

fn check_columns(columns: Vec<Column>) -> Result<Vec<Column>, Broken> {
    let wrong = broken("schema.columns");
    let mut seen = BTreeSet::new();
    if !(1..=protocol::MAX_COLUMNS).contains(&columns.len()) {
        return Err(wrong(&format_args!("{} columns: use 1 to {}", columns.len(), protocol::MAX_COLUMNS)));
    }
    for Column { name, width } in &columns {
        if name.is_empty() {
            return Err(wrong(&"a column has an empty name: give it one"));
        }
        if *width == 0 {
            return Err(wrong(&format_args!("`{name}` has width 0: use 1 for a single measurement")));
        }
        if !seen.insert(name) {
            return Err(wrong(&format_args!("`{name}` is there twice: rename one of them")));
        }
    }
    Ok(columns)
}

impl WrittenPolicy {
    fn check(self, standard: Policy, schema: &Schema) -> Result<Policy, Broken> {
        let min_cohort = self.min_cohort.unwrap_or(standard.min_cohort);
        let min_committee = self.committee.unwrap_or(standard.min_committee);
        let min_threshold = self.threshold.unwrap_or(standard.min_threshold);
        if min_cohort < 2 {
            return Err(broken("policy.min_cohort")(&"a sum over one patient is that patient's value: use 2 or more"));
        }
        if !(2..=MOST_MEMBERS).contains(&min_committee) {
            return Err(broken("policy.committee")(&format_args!("committees have 2 to {MOST_MEMBERS} members")));
        }
        if !(1..MOST_MEMBERS).contains(&min_threshold) {
            let rule = format_args!("use 1 to {}: a threshold is smaller than its committee", MOST_MEMBERS - 1);
            return Err(broken("policy.threshold")(&rule));
        }
        Ok(Policy {
            study: standard.study,
            min_cohort,
            min_committee,
            min_threshold,
            hospitals: whom("policy.hospitals", self.hospitals)?,
            members: whom("policy.members", self.members)?,
            columns: which(self.columns, schema)?,
        })
    }
}

fn whom(key: &'static str, written: Option<AllOr<Anyone>>) -> Result<Accepted, Broken> {
    let Some(AllOr::Only(names)) = written else { return Ok(Accepted::Anyone) };
    let names: Result<Vec<_>, _> = names.iter().map(|name| Name::from_str(name)).collect();
    Ok(Accepted::Only(names.map_err(|error| broken(key)(&error))?))
}

fn which(written: Option<AllOr<All>>, schema: &Schema) -> Result<AcceptedColumns, Broken> {
    let Some(AllOr::Only(names)) = written else { return Ok(AcceptedColumns::All) };
    let known = |name: &&String| schema.columns.iter().any(|column| column.name == **name);
    match names.iter().find(|name| !known(name)) {
        Some(name) => Err(broken("policy.columns")(&format_args!("`{name}` is not among the columns of [schema]"))),
        None => Ok(AcceptedColumns::Only(names)),
    }
}

/// A bound as it is written: a decimal in quotes, or a whole number. TOML's own decimals are floats, which
/// would not be exact.
struct Bound(String);

impl Bound {
    fn scaled(&self, scale: Scale) -> Result<u64, String> {
        let scaled = decimal::parse(&self.0, scale).map_err(|error: DecimalError| error.to_string())?;
        let positive = u64::try_from(scaled).ok().filter(|bound| *bound > 0);
        positive.ok_or_else(|| "the bound is not above 0: write the largest absolute value that can occur".into())
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Bound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, or a decimal in quotes")
            }

            fn visit_i64<E: Error>(self, whole: i64) -> Result<Bound, E> {
                Ok(Bound(whole.to_string()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bound, E> {
                Ok(Bound(text.into()))
            }
        }
        from.deserialize_any(Either)
    }
}

/// A word for everything, or a list.
enum AllOr<W> {
    All(marker::PhantomData<W>),
    Only(Vec<String>),
}

/// The word that stands for everything under a key.
trait Word {
    const WORD: &'static str;
}

struct Anyone;

impl Word for Anyone {
    const WORD: &'static str = "anyone";
}

struct All;

impl Word for All {
    const WORD: &'static str = "all";
}

impl<'de, W: Word> Deserialize<'de> for AllOr<W> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either<W>(marker::PhantomData<W>);
        impl<'de, W: Word> Visitor<'de> for Either<W> {
            type Value = AllOr<W>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\" or a list of names", W::WORD)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AllOr<W>, E> {
                if text == W::WORD {
                    Ok(AllOr::All(self.0))
                } else {
                    Err(E::invalid_value(Unexpected::Str(text), &self))
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AllOr<W>, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(AllOr::Only(names))
            }
        }
        from.deserialize_any(Either(marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn load(text: &str) -> Result<Profile, ProfileError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PROFILE_FILE), text).unwrap();
        Profile::load_or_default(dir.path(), &Study::default())
    }

    fn standard() -> Profile {
        Profile::standard(&Study::default())
    }

    #[test]
    fn what_is_left_out_is_standard() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Profile::load_or_default(dir.path(), &Study::default()).unwrap(), standard());
        assert_eq!(load("").unwrap(), standard());
        assert_eq!(load("[schema]\n[policy]\n").unwrap(), standard());
        assert_eq!(load("[policy]\nmin_cohort = 10\n").unwrap().policy.min_cohort, 10);
        assert_eq!(load("[schema]\nbound = \"1000000000\"\n").unwrap(), standard());
    }

    #[test]
    fn what_is_saved_loads() {
        let mut other = standard();
        other.schema.columns =
            vec![Column::scalar("age, \"years\""), Column { name: "echo\\\u{e9}".into(), width: 12 }];
        other.schema.scale = Scale::new(100).unwrap();
        other.schema.scaled_bound = 12_345;
        other.policy.min_committee = 5;
        other.policy.min_threshold = 2;
        other.policy.hospitals = Accepted::Only(vec!["hospital".parse().unwrap()]);
        other.policy.members = Accepted::Only(vec![]);
        other.policy.columns = AcceptedColumns::Only(vec!["age, \"years\"".into()]);
        for profile in [standard(), other] {
            let dir = tempfile::tempdir().unwrap();
            profile.save(dir.path()).unwrap();
            profile.save(dir.path()).unwrap();
            assert_eq!(Profile::load_or_default(dir.path(), &Study::default()).unwrap(), profile, "{profile}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn every_error_names_file_key_and_rule() {
        for (text, key, rule) in [
            ("[schema]\nbond = 3\n", "bond", "unknown field"),
            ("[polcy]\n", "polcy", "unknown field"),
            ("[schema]\ncolumns = []\n", "schema.columns", "0 columns"),
            ("[schema]\ncolumns = [{ name = \"\" }]\n", "schema.columns", "empty name"),
            ("[schema]\ncolumns = [{ name = \"x\", width = 0 }]\n", "schema.columns", "width 0"),
            ("[schema]\ncolumns = [{ name = \"x\" }, { name = \"x\" }]\n", "schema.columns", "twice"),
            ("[schema]\ncolumns = [{ name = \"x\", unit = \"kg\" }]\n", "unit", "unknown field"),
            ("[schema]\nbound = 1.5\n", "bound", "a decimal in quotes"),
            ("[schema]\nbound = 0\n", "schema.bound", "not above 0"),
            ("[schema]\nbound = \"-3\"\n", "schema.bound", "not above 0"),
            ("[schema]\nbound = \"0.0000001\"\n", "schema.bound", "more than six decimals"),
            ("[schema]\nscale = 7\n", "schema.scale", "power of ten"),
            ("[schema]\nscale = -1\n", "scale", "invalid"),
            ("[policy]\nmin_cohort = 1\n", "policy.min_cohort", "use 2 or more"),
            ("[policy]\ncommittee = 11\n", "policy.committee", "2 to 10"),
            ("[policy]\nthreshold = 10\n", "policy.threshold", "1 to 9"),
            ("[policy]\nhospitals = \"hospital\"\n", "hospitals", "\"anyone\" or a list"),
            ("[policy]\nmembers = [\"Bob\"]\n", "policy.members", "1 to 32"),
            ("[policy]\nmembers = [3]\n", "members", "string"),
            ("[policy]\ncolumns = [\"age\"]\n", "policy.columns", "`age` is not among"),
            ("min_cohort = 3\n", "min_cohort", "unknown field"),
            ("[policy\n", "policy", "TOML parse error"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!([PROFILE_FILE, key, rule].iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }
}
