//! A study with real certificates and a real broker, in a directory that goes away with the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::{CertificateAuthority, Credentials, PARTY_VALIDITY, PrivateKey, Request, Study};
use nats::{Board, Broker, BrokerSettings, Delivery, Inbox, Link, Operator};
use protocol::{Address, Kind, MessageName, Name, Role, RoundNo, SessionTag, To};
use time::OffsetDateTime;
use tokio::process::Command;

/// The board's size in tests, in bytes.
pub const SPACE: u64 = 1 << 30;

/// Longer than anything here takes on a slow machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One study: its authority, its parties, its broker's directory.
pub struct Home {
    pub dir: tempfile::TempDir,
    pub ca: CertificateAuthority,
    pub parties: Vec<(Role, Name)>,
}

impl Home {
    /// A study of alice and bob (a member), a server, a hospital, and those who run the board.
    pub fn new() -> Self {
        certs::install_provider().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let ca =
            CertificateAuthority::create(&Study::default(), OffsetDateTime::now_utc() + certs::CA_VALIDITY).unwrap();
        ca.save(dir.path().join("ca")).unwrap();
        let mut home = Self { dir, ca, parties: Vec::new() };
        for (role, name) in [
            (Role::Broker, "broker"),
            (Role::Operator, "operator"),
            (Role::Monitor, "monitor"),
            (Role::Hospital, "hospital"),
            (Role::Server, "server"),
            (Role::Patient, "alice"),
            (Role::Member, "bob"),
        ] {
            home.enrol(role, name);
        }
        home
    }

    /// Issues a certificate and lists the party for the broker's next start or reload.
    pub fn enrol(&mut self, role: Role, name: &str) {
        self.issue(role, name);
        self.parties.push((role, self::name(name)));
    }

    /// Issues a certificate, no more.
    pub fn issue(&self, role: Role, name: &str) {
        let dir = self.of(name);
        std::fs::create_dir_all(&dir).unwrap();
        let key = PrivateKey::generate().unwrap();
        key.save(dir.join("key.pem")).unwrap();
        let request = Request::new(&key, self.ca.study(), role, &self::name(name)).unwrap();
        let certificate = self.ca.sign(&request, role, OffsetDateTime::now_utc() + PARTY_VALIDITY).unwrap();
        certificate.save(dir.join("cert.pem")).unwrap();
        self.ca.authority().save(dir.join("ca.pem")).unwrap();
    }

    pub fn of(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn credentials(&self, name: &str) -> Credentials {
        Credentials::load(self.of(name)).unwrap()
    }

    pub fn settings(&self, port: Option<u16>) -> BrokerSettings {
        let dir = self.of("broker");
        BrokerSettings {
            host: "127.0.0.1".into(),
            port,
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            ca: dir.join("ca.pem"),
            store_dir: dir.join("board"),
            sync_always: false,
        }
    }

    pub async fn start(&self, port: Option<u16>) -> Broker {
        self.try_start(port).await.unwrap()
    }

    pub async fn try_start(&self, port: Option<u16>) -> Result<Broker, nats::BrokerError> {
        self.start_with(&binary(), self.settings(port)).await
    }

    pub async fn start_with(&self, program: &Path, settings: BrokerSettings) -> Result<Broker, nats::BrokerError> {
        Broker::start(program, command, &self.of("broker"), settings, self.ca.study(), &self.parties).await
    }

    pub async fn link(&self, broker: &Broker, name: &str) -> Link {
        Link::connect(broker.endpoint(), &self.credentials(name)).await.unwrap()
    }

    pub async fn board(&self, broker: &Broker, name: &str) -> Board {
        Board::new(self.link(broker, name).await)
    }

    /// Makes the stream and everybody's consumer.
    pub async fn operator(&self, broker: &Broker) -> Operator {
        let operator = Operator::new(self.link(broker, "operator").await, broker.consumers().clone());
        operator.make_streams(SPACE).await.unwrap();
        operator.remake_consumers(&self.readers()).await.unwrap();
        operator.make_watch_consumers().await.unwrap();
        operator
    }

    pub fn readers(&self) -> Vec<(Role, Name)> {
        let reads = |role: &Role| !matches!(role, Role::Broker | Role::Operator | Role::Monitor);
        self.parties.iter().filter(|(role, _)| reads(role)).cloned().collect()
    }

    /// A bare client with the party's certificate, and the errors that the broker reports to it.
    pub async fn raw(
        &self,
        broker: &Broker,
        name: &str,
    ) -> (async_nats::Client, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let dir = self.of(name);
        let (sender, errors) = tokio::sync::mpsc::unbounded_channel();
        let client = async_nats::ConnectOptions::new()
            .require_tls(true)
            .tls_first()
            .add_root_certificates(dir.join("ca.pem"))
            .add_client_certificate(dir.join("cert.pem"), dir.join("key.pem"))
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .event_callback(move |event| {
                if let async_nats::Event::ServerError(error) = event {
                    sender.send(error.to_string()).ok();
                }
                std::future::ready(())
            })
            .connect(format!("tls://{}", broker.endpoint()))
            .await
            .unwrap();
        (client, errors)
    }
}

/// The nats-server on the PATH or a pinned one, kept for all tests of this crate.
pub fn binary() -> PathBuf {
    nats::find_or_install(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("nats-server")).unwrap().path
}

pub fn command(binary: &Path) -> Command {
    Command::new(binary)
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A message in session 5..5; `number` is its own name.
pub fn address(round: u32, from: &str, to: &str, kind: Kind, number: u8) -> Address {
    Address {
        session: SessionTag([5; 16]),
        round: RoundNo(round),
        from: name(from),
        to: to.parse::<To>().unwrap(),
        kind,
        name: MessageName([number; 16]),
    }
}

/// The next delivery, or a failed test.
pub async fn next(inbox: &mut Inbox) -> Delivery {
    tokio::time::timeout(PATIENCE, inbox.next()).await.expect("nothing was delivered").unwrap()
}
