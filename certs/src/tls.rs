//! TLS as Ward speaks it: version 1.3, hybrid post-quantum key exchange, AES-GCM, both sides with certificates.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{ClientConfig, NamedGroup, RootCertStore};

use crate::credentials::Credentials;
use crate::key::KeyError;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The private key has no form that rustls reads.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// rustls refused the credentials.
    #[error("rustls refuses the key or the certificate")]
    Rustls(#[from] rustls::Error),
    /// Another part of the process chose the cryptography first.
    #[error(
        "this process has a default rustls provider that allows more than X25519MLKEM768: \
         call `certs::install_provider` before anything else uses TLS"
    )]
    OtherProvider,
}

/// The cryptography of every Ward connection.
///
/// Only X25519MLKEM768 is on the list: to prefer it would still accept a classical exchange, which
/// a recorder could open once quantum computers come (PROTOCOL.md, *Trust*).
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![kx_group::X25519MLKEM768],
        ..default_provider()
    }
}

/// Makes [`provider`] the default of this process, for libraries that ask for none; a second call does nothing.
///
/// # Errors
/// [`TlsError::OtherProvider`] if another default was chosen before.
pub fn install_provider() -> Result<(), TlsError> {
    match provider().install_default() {
        Ok(()) => Ok(()),
        Err(installed) if is_hybrid_only(&installed) => Ok(()),
        Err(_) => Err(TlsError::OtherProvider),
    }
}

/// A client's side of the link to the broker: it trusts the study's CA and no other.
///
/// # Errors
/// [`TlsError`] if rustls refuses the key or the certificate.
pub fn client_config(credentials: &Credentials) -> Result<ClientConfig, TlsError> {
    let roots = RootCertStore { roots: vec![credentials.authority().trust_anchor()] };
    let chain = vec![credentials.certificate().der().clone()];
    Ok(ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, credentials.key().to_rustls()?)?)
}

fn is_hybrid_only(provider: &CryptoProvider) -> bool {
    !provider.kx_groups.is_empty()
        && provider.kx_groups.iter().all(|group| group.name() == NamedGroup::X25519MLKEM768)
        && provider.cipher_suites.iter().all(|suite| suite.tls13().is_some())
}
