//! A home with parties that are called by name.

use std::collections::BTreeMap;

use certs::Credentials;
use nats::{Link, LinkError};

use super::{Capture, Ended, Home, PATIENCE, Party};

/// A home and what runs in it.
pub struct Study {
    // Before the home, so that nothing writes into it any more when it goes.
    pub parties: BTreeMap<String, Party>,
    pub home: Home,
}

impl Study {
    /// A home with its authority, without a process; `log` is what `WARD_LOG` says.
    pub fn new(log: Option<&'static str>) -> Self {
        certs::install_provider().unwrap();
        let home = Home::logging(log);
        assert_eq!(home.run("certs init").code, Some(0));
        Self { parties: BTreeMap::new(), home }
    }

    /// With the broker, the server and patients of these values, all of them ready.
    pub fn start(log: Option<&'static str>, patients: &[(&str, &str)]) -> Self {
        let mut study = Self::new(log);
        study.start_broker();
        study.start_server();
        patients.iter().for_each(|(name, value)| study.start_patient(name, value));
        study.is_ready();
        study
    }

    /// Starts the broker, and waits until it is ready.
    pub fn start_broker(&mut self) {
        let broker = self.home.broker();
        self.parties.insert("broker".into(), broker);
    }

    /// Starts the server.
    pub fn start_server(&mut self) {
        let server = self.home.start("server");
        self.parties.insert("server".into(), server);
    }

    /// Starts a patient whose value comes by standard input, as `ward up` hands it over; its snapshot is `1`.
    pub fn start_patient(&mut self, name: &str, value: &str) {
        let arguments = ["patient", name, "--value-on-stdin", "--snapshot", "1"];
        let patient = self.home.start_fed(&arguments, value);
        self.parties.insert(name.into(), patient);
    }

    /// Waits until server and patients are ready.
    pub fn is_ready(&self) {
        self.parties.iter().filter(|(name, _)| *name != "broker").for_each(|(_, party)| party.has_said("is ready", 1));
    }

    /// Asks for the sum and waits for the answer or the refusal.
    #[track_caller]
    pub fn ask(&self, more: &[&str]) -> Ended {
        self.begin(more).ended()
    }

    /// Asks for the sum.
    pub fn begin(&self, more: &[&str]) -> Party {
        self.home.start_of(&[&["--json", "hospital", "sum"], more].concat())
    }

    /// Enrols a party that the test plays itself, with `ward certs`.
    pub fn enrol(&self, name: &str, role: &str) {
        assert_eq!(self.home.run_of(&["certs", "request", name, role]).code, Some(0));
        let request = self.home.party_dir(name).join("request.pem");
        let signed = self.home.run_of(&["certs", "sign", request.to_str().unwrap()]);
        assert_eq!(signed.code, Some(0), "{signed:#?}");
        if let Some(broker) = self.parties.get("broker") {
            broker.has_said(&format!("admitted {name}"), 1);
        }
    }

    /// A connection as the party `name`.
    pub async fn link(&self, name: &str) -> Link {
        Link::connect(&self.home.endpoint(), &self.home.credentials(name)).await.unwrap()
    }

    /// Why there is no connection with these credentials.
    pub async fn refused(&self, credentials: &Credentials) -> LinkError {
        let endpoint = self.home.endpoint();
        let connecting = Link::connect(&endpoint, credentials);
        tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap_err()
    }

    /// A bare client with the certificate of the party `name`.
    pub async fn raw(&self, name: &str) -> async_nats::Client {
        let dir = self.home.party_dir(name);
        async_nats::ConnectOptions::new()
            .require_tls(true)
            .tls_first()
            .add_root_certificates(dir.join("ca.pem"))
            .add_client_certificate(dir.join("cert.pem"), dir.join("key.pem"))
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .connect(format!("tls://{}", self.home.endpoint()))
            .await
            .unwrap()
    }

    /// Everything that passes, as the monitor's certificate lets one see it.
    pub async fn capture(&self) -> Capture {
        Capture::start(self.raw("monitor").await).await
    }

    /// Ends all processes in order, the broker last; what each of them said, by name.
    pub fn stop(&mut self) -> BTreeMap<String, String> {
        let last = self.parties.remove_entry("broker");
        let others = std::mem::take(&mut self.parties);
        others.into_iter().chain(last).map(|(name, party)| (name, party.terminate().said())).collect()
    }
}
