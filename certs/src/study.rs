//! How a study calls its parties: `spiffe://<study>/<role>/<name>`, the one URI of a certificate.

use std::fmt;
use std::str::FromStr;

use protocol::{Name, NameError, Role, RoleError};

/// A study's name: 1 to 63 of `a-z`, `0-9`, `.` and `-`. The default is `ward`.
///
/// ```
/// use certs::Study;
/// assert_eq!(Study::default().as_str(), "ward");
/// assert!("heart-2026.example.org".parse::<Study>().is_ok());
/// assert!("Heart/2026".parse::<Study>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Study(String);

/// A text that is no [`Study`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no study: use 1 to 63 of a-z, 0-9, '.' and '-'")]
pub struct StudyError(String);

impl Study {
    /// The study as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Study {
    fn default() -> Self {
        Self("ward".into())
    }
}

impl FromStr for Study {
    type Err = StudyError;

    fn from_str(text: &str) -> Result<Self, StudyError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(StudyError(text.chars().take(70).collect()))
        }
    }
}

impl fmt::Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a certificate's URI says: who, as what, in which study. Whether it is true is for
/// [`StudyAuthority`](crate::StudyAuthority) to find out.
///
/// ```
/// use certs::Subject;
/// let subject: Subject = "spiffe://ward/patient/alice".parse()?;
/// assert_eq!(subject.name.as_str(), "alice");
/// assert_eq!(subject.to_string(), "spiffe://ward/patient/alice");
/// # Ok::<(), certs::UriError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The study that issued the name.
    pub study: Study,
    /// What the holder may be.
    pub role: Role,
    /// The holder's name.
    pub name: Name,
}

/// Why a URI is not a [`Subject`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Not of the form `spiffe://<study>/<role>/<name>`.
    #[error("`{0}` is no Ward name: it must read spiffe://<study>/<role>/<name>")]
    Form(String),
    /// The first part is no study.
    #[error("in the certificate's URI, {0}")]
    Study(StudyError),
    /// The second part is no role.
    #[error("in the certificate's URI, {0}")]
    Role(RoleError),
    /// The third part is no name.
    #[error("in the certificate's URI, {0}")]
    Name(NameError),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&uri(&self.study, self.role, &self.name))
    }
}

impl FromStr for Subject {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let form = || UriError::Form(text.chars().take(160).collect());
        let parts: Vec<&str> = text.strip_prefix(SCHEME).ok_or_else(form)?.split('/').collect();
        let [study, role, name] = parts[..] else { return Err(form()) };
        Ok(Self {
            study: study.parse().map_err(UriError::Study)?,
            role: role.parse().map_err(UriError::Role)?,
            name: name.parse().map_err(UriError::Name)?,
        })
    }
}

const SCHEME: &str = "spiffe://";

/// The URI that a certificate carries for this party.
pub fn uri(study: &Study, role: Role, name: &Name) -> String {
    format!("{SCHEME}{study}/{role}/{name}")
}

/// Reads a URI made by [`uri`].
///
/// # Errors
/// Another form, or a part that is no study, role or name.
pub fn parse_uri(text: &str) -> Result<Subject, UriError> {
    text.parse()
}

/// The URI of a study's CA: the study alone, as SPIFFE wants it of a signing certificate.
pub(crate) fn study_uri(study: &Study) -> String {
    format!("{SCHEME}{study}")
}

/// Reads a URI made by [`study_uri`].
pub(crate) fn parse_study_uri(text: &str) -> Option<Study> {
    text.strip_prefix(SCHEME)?.parse().ok()
}
