//! The study CA from outside: what it issues, what it refuses, and what TLS makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod credentials;
mod identify;
mod issue;
mod key;
mod revoke;
mod separation;
mod support;
mod tls;
