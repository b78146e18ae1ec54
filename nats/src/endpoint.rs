//! Where a broker listens, as people write it.

use std::fmt;
use std::str::FromStr;

/// Where a broker listens.
///
/// ```
/// let here: nats::Endpoint = "localhost:4222".parse()?;
/// assert_eq!((here.host.as_str(), here.port), ("localhost", 4222));
/// assert_eq!("[::1]:4222".parse::<nats::Endpoint>()?.to_string(), "[::1]:4222");
/// # Ok::<(), nats::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A host name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The TCP port, never 0.
    pub port: u16,
}

/// A text that is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no broker's address: write host:port, such as localhost:4222")]
pub struct EndpointError(String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.chars().take(100).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let plain = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-".contains(&b));
        let host = match bare {
            Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
            None if !host.is_empty() && plain(host) => host,
            _ => return Err(wrong()),
        };
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_endpoint_has_a_host_and_a_port() {
        for good in ["localhost:4222", "127.0.0.1:1", "[::1]:4222", "broker.example.org:65535"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "localhost",
            ":4222",
            "localhost:",
            "localhost:0",
            "localhost:65536",
            "a b:1",
            "::1:4222",
            "[x]:1",
            "tls://h:1",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
