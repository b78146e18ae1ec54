//! A name or address by which a broker is reached.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// A DNS name or an IP address, as the certificate of a broker names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(ServerName<'static>);

/// A text that is no [`Host`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name or address of a machine: write broker.example or 192.0.2.7, without a port")]
pub struct HostError(String);

impl Host {
    /// Whether it stands for every address of a machine: one can listen there, but nobody can go there.
    pub fn is_everywhere(&self) -> bool {
        self.address().is_some_and(|address| address.is_unspecified())
    }

    /// The address, where it is no name.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match &self.0 {
            ServerName::IpAddress(address) => Some((*address).into()),
            _ => None,
        }
    }

    pub(crate) fn server_name(&self) -> &ServerName<'static> {
        &self.0
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        ServerName::try_from(text.to_owned()).map(Self).map_err(|_| HostError(text.into()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_str())
    }
}
