//! Why there is no connection: what async-nats reports, in words that say what to do.

use std::io;

use async_nats::ConnectErrorKind;
use protocol::Name;
use rustls::{AlertDescription, CertificateError};

use crate::endpoint::Endpoint;
use crate::install::{FLOOR, Version};

/// Why there is no [`Link`](crate::Link).
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nothing listens there, or nothing answers.
    #[error("no broker answers at {endpoint} ({reason}): start it with `ward broker`, or correct the address")]
    NoBroker {
        /// Where.
        endpoint: Endpoint,
        /// What the system said.
        reason: String,
    },
    /// The broker's certificate is from another CA.
    #[error(
        "the broker at {endpoint} is not of this study: its certificate is from another authority. \
         It may be another home's broker: correct the address, or start this home's with `ward broker`"
    )]
    AnotherStudy {
        /// Where.
        endpoint: Endpoint,
    },
    /// The broker's certificate is from this study's CA, but not good for this address or at this time.
    #[error("the certificate of the broker at {endpoint} does not hold ({reason}): issue it a new one")]
    BrokerCertificate {
        /// Where.
        endpoint: Endpoint,
        /// What is wrong with it.
        reason: String,
    },
    /// The broker takes the certificate, but no such name is listed.
    #[error(
        "the broker at {endpoint} does not list {name}: a party must be enrolled in the broker's home \
         under the very name and role of its certificate, and not be revoked there (`ward certs show {name}`)"
    )]
    NotListed {
        /// Where.
        endpoint: Endpoint,
        /// Who knocked.
        name: Name,
    },
    /// The party's own certificate has expired, or is not valid yet: TLS has one word for both.
    #[error(
        "the broker says that the certificate of {name} has expired or is not valid yet: compare the clocks of both machines, or \
         make a new certificate with `ward certs request` and `ward certs sign`"
    )]
    Expired {
        /// Whose.
        name: Name,
    },
    /// The broker does not take the party's certificate.
    #[error(
        "the broker at {endpoint} refuses the certificate of {name} ({reason}): \
         it must be a client's, signed by the authority of the broker's study"
    )]
    CertificateRefused {
        /// Where.
        endpoint: Endpoint,
        /// Whose.
        name: Name,
        /// The TLS alert.
        reason: String,
    },
    /// What listens there does not begin with TLS 1.3.
    #[error(
        "what answers at {endpoint} does not open with TLS 1.3 ({reason}): it is no broker of Ward's, \
         or older than {FLOOR}; correct the address, or start the broker with `ward broker`"
    )]
    NoTls {
        /// Where.
        endpoint: Endpoint,
        /// What went wrong.
        reason: String,
    },
    /// The broker is too old.
    #[error(
        "the broker at {endpoint} is nats-server {version}: Ward needs {FLOOR} or newer; start it with `ward broker`"
    )]
    TooOld {
        /// Where.
        endpoint: Endpoint,
        /// Its version, as it gives it.
        version: String,
    },
    /// The party's own files cannot be used.
    #[error("the certificate and key of {name} cannot be used: {reason}")]
    Credentials {
        /// Whose.
        name: Name,
        /// What is wrong with them.
        reason: String,
    },
}

impl LinkError {
    /// Whether the broker may just not be there yet, so that trying again is sensible.
    pub fn may_pass(&self) -> bool {
        matches!(self, LinkError::NoBroker { .. })
    }
}

pub(crate) fn check_version(endpoint: &Endpoint, version: &str) -> Result<(), LinkError> {
    match version.parse::<Version>() {
        Ok(parsed) if parsed >= FLOOR => Ok(()),
        _ => Err(LinkError::TooOld { endpoint: endpoint.clone(), version: version.into() }),
    }
}

/// Finds out what stands behind async-nats' error: the broker's refusal, TLS, or the network.
pub(crate) fn explain(endpoint: &Endpoint, name: &Name, error: &async_nats::ConnectError) -> LinkError {
    let (endpoint, name) = (endpoint.clone(), name.clone());
    if let Some(tls) = find::<rustls::Error>(error) {
        return explain_tls(endpoint, name, tls);
    }
    let reason = innermost(error);
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            LinkError::NotListed { endpoint, name }
        }
        ConnectErrorKind::Tls => LinkError::Credentials { name, reason },
        // Also where what answered was the study's broker, as it had opened TLS, and went away before it was done greeting.
        _ => LinkError::NoBroker { endpoint, reason },
    }
}

fn explain_tls(endpoint: Endpoint, name: Name, error: &rustls::Error) -> LinkError {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            LinkError::AnotherStudy { endpoint }
        }
        rustls::Error::InvalidCertificate(reason) => {
            LinkError::BrokerCertificate { endpoint, reason: reason.to_string() }
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => LinkError::Expired { name },
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateRequired),
        ) => LinkError::CertificateRefused { endpoint, name, reason: format!("{alert:?}") },
        other => LinkError::NoTls { endpoint, reason: other.to_string() },
    }
}

/// The first `E` among an error and its sources, also inside an [`io::Error`], which does not name what it wraps as its source.
fn find<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    if let Some(found) = error.downcast_ref::<E>() {
        return Some(found);
    }
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.and_then(|inner| find::<E>(inner)).or_else(|| error.source().and_then(find::<E>))
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_broker_below_the_floor_is_refused() {
        let here: Endpoint = "localhost:4222".parse().unwrap();
        assert!(check_version(&here, "2.14.0").is_ok());
        assert!(check_version(&here, "3.0.0-beta.1").is_ok());
        for old in ["2.9.10", "2.13.99", "", "what"] {
            let error = check_version(&here, old).unwrap_err();
            assert!(error.to_string().contains("2.14"), "{error}");
        }
    }
}
