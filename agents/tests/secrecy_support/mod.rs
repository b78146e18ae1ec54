//! A study of real `ward` processes in a folder that goes away with the test, and parties that the test plays itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::Message;
use bytes::Bytes;
use certs::Credentials;
use futures::StreamExt as _;
use nats::{Board, Endpoint, Inbox, Link, LinkError};
use protocol::{
    Accepted, AcceptedColumns, Address, Column, Effects, Event, Input, Kind, Me, MessageName, Moment, Name, Patient,
    Policy, Record, RoundNo, Scale, Schema, SessionTag, To,
};
use rand::TryRng as _;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

/// Longer than anything here takes on a slow machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a process writes, line by line, for whoever waits for it.
#[derive(Default)]
pub struct Words {
    text: Mutex<(String, bool)>,
    more: Condvar,
}

impl Words {
    fn listen(source: impl Read + Send + 'static) -> (Arc<Self>, JoinHandle<()>) {
        let words = Arc::new(Self::default());
        let listener = Arc::clone(&words);
        let thread = std::thread::spawn(move || {
            let mut lines = BufReader::new(source);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                listener.text.lock().unwrap().0.push_str(&String::from_utf8_lossy(&line));
                listener.more.notify_all();
                line.clear();
            }
            listener.text.lock().unwrap().1 = true;
            listener.more.notify_all();
        });
        (words, thread)
    }

    pub fn so_far(&self) -> String {
        self.text.lock().unwrap().0.clone()
    }

    /// Blocks until `wanted` was said `times` times.
    pub fn wait_for(&self, wanted: &str, times: usize) {
        let until = Instant::now() + PATIENCE;
        let mut said = self.text.lock().unwrap();
        while said.0.matches(wanted).count() < times {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!said.1 && !left.is_zero(), "`{wanted}` was not said {times} times:\n{}", said.0);
            said = self.more.wait_timeout(said, left).unwrap().0;
        }
    }
}

/// A process of Ward's. It is killed when this is dropped.
pub struct Process {
    child: Child,
    pub stdout: Arc<Words>,
    pub stderr: Arc<Words>,
    listeners: Vec<JoinHandle<()>>,
}

impl Process {
    fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, first) = Words::listen(child.stdout.take().unwrap());
        let (stderr, second) = Words::listen(child.stderr.take().unwrap());
        Self { child, stdout, stderr, listeners: vec![first, second] }
    }

    /// Says a line on its standard input, which stays open.
    pub fn say(&mut self, line: &str) {
        use std::io::Write as _;
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; all that it said is heard then.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.listeners.drain(..).for_each(|listener| listener.join().unwrap());
        status
    }

    /// Asks it to end, as `kill` does.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        // One that has ended by itself takes no signal.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A home and what runs in it.
pub struct Study {
    // Before the folder, so that nothing writes into it any more when it goes.
    pub parties: BTreeMap<String, Process>,
    pub dir: tempfile::TempDir,
    log: Option<&'static str>,
}

impl Study {
    /// A home without a process; `log` is what `WARD_LOG` says.
    pub fn new(log: Option<&'static str>) -> Self {
        certs::install_provider().unwrap();
        let study = Self { parties: BTreeMap::new(), dir: tempfile::tempdir().unwrap(), log };
        assert!(study.run(&["certs", "init"]).wait().success());
        study
    }

    /// With the broker, the server and patients of these values; the patients are ready.
    pub fn start(log: Option<&'static str>, patients: &[(&str, &str)]) -> Self {
        let mut study = Self::new(log);
        study.start_broker();
        study.add("server", &["server"]);
        for (name, value) in patients {
            study.add_patient(name, value, "1");
        }
        for name in ["server"].into_iter().chain(patients.iter().map(|(name, _)| *name)) {
            study.parties[name].stderr.wait_for("is ready", 1);
        }
        study
    }

    pub fn start_broker(&mut self) {
        self.add("broker", &["broker"]);
        self.parties["broker"].stderr.wait_for("broker ready", 1);
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn party_dir(&self, name: &str) -> PathBuf {
        self.home().join("parties").join(name)
    }

    /// Starts `ward` with these arguments.
    pub fn run(&self, args: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ward"));
        command.arg("--home").arg(self.home()).args(args).env("WARD_NATS_SERVER", nats_server()).env_remove("WARD_LOG");
        if let Some(log) = self.log {
            command.env("WARD_LOG", log);
        }
        Process::spawn(&mut command)
    }

    pub fn add(&mut self, what: &str, args: &[&str]) {
        let process = self.run(args);
        self.parties.insert(what.into(), process);
    }

    /// A patient whose value comes by standard input, as `ward up` hands it over.
    pub fn add_patient(&mut self, name: &str, value: &str, snapshot: &str) {
        self.add(name, &["patient", name, "--value-on-stdin", "--snapshot", snapshot]);
        self.parties.get_mut(name).unwrap().say(value);
    }

    /// Asks and waits for the answer: standard output and all that was said on the way.
    pub fn ask(&self, args: &[&str]) -> Asked {
        self.begin(args).answer()
    }

    /// Asks; the answer is waited for by [`Asking::answer`].
    pub fn begin(&self, args: &[&str]) -> Asking {
        Asking(self.run(&[&["--json", "hospital", "sum"], args].concat()))
    }

    /// Enrols a party that the test plays itself, with `ward certs`.
    pub fn enrol(&self, name: &str, role: &str) {
        assert!(self.run(&["certs", "request", name, role]).wait().success());
        let request = self.party_dir(name).join("request.pem");
        let mut sign = self.run(&["certs", "sign", request.to_str().unwrap()]);
        assert!(sign.wait().success(), "{}", sign.stderr.so_far());
        if let Some(broker) = self.parties.get("broker") {
            broker.stderr.wait_for(&format!("admitted {name}"), 1);
        }
    }

    pub fn credentials(&self, name: &str) -> Credentials {
        Credentials::load(self.party_dir(name)).unwrap()
    }

    pub fn endpoint(&self) -> Endpoint {
        fs::read_to_string(self.home().join("broker/address")).unwrap().trim().parse().unwrap()
    }

    pub async fn link(&self, name: &str) -> Link {
        Link::connect(&self.endpoint(), &self.credentials(name)).await.unwrap()
    }

    pub async fn refused(&self, credentials: &Credentials) -> LinkError {
        tokio::time::timeout(PATIENCE, Link::connect(&self.endpoint(), credentials)).await.unwrap().unwrap_err()
    }

    /// A bare client with a party's certificate.
    pub async fn raw(&self, name: &str) -> async_nats::Client {
        let dir = self.party_dir(name);
        async_nats::ConnectOptions::new()
            .require_tls(true)
            .tls_first()
            .add_root_certificates(dir.join("ca.pem"))
            .add_client_certificate(dir.join("cert.pem"), dir.join("key.pem"))
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .connect(format!("tls://{}", self.endpoint()))
            .await
            .unwrap()
    }

    /// Everything that passes on `ward.>`, as the monitor's certificate lets one see it.
    pub async fn capture(&self) -> Capture {
        let client = self.raw("monitor").await;
        let messages = client.subscribe("ward.>").await.unwrap();
        // A round trip: from here on nothing is missed.
        client.flush().await.unwrap();
        Capture { _client: client, messages, seen: Vec::new() }
    }

    /// Ends all processes in order, the broker last; what each of them said, by name.
    pub fn stop(&mut self) -> BTreeMap<String, String> {
        let mut said = BTreeMap::new();
        let last = self.parties.remove("broker");
        let others = std::mem::take(&mut self.parties);
        for (name, mut process) in others.into_iter().chain(last.map(|broker| ("broker".to_string(), broker))) {
            process.terminate();
            said.insert(name, process.stdout.so_far() + &process.stderr.so_far());
        }
        said
    }
}

impl Drop for Study {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A hospital that waits for its answer.
pub struct Asking(pub Process);

/// What a hospital got.
pub struct Asked {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Asking {
    pub fn answer(mut self) -> Asked {
        let code = self.0.wait().code();
        Asked { code, stdout: self.0.stdout.so_far(), stderr: self.0.stderr.so_far() }
    }
}

impl Asked {
    /// Checks that the round opened with this sum over so many patients.
    #[track_caller]
    pub fn opened(&self, sum: &str, cohort: u32) {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, Some(0), "{said}");
        assert!(self.stdout.contains(&format!("\"sum\":[{sum}]")), "{said}");
        assert!(self.stdout.contains(&format!("\"cohort\":{cohort},")), "{said}");
    }
}

/// The messages that a monitor saw.
pub struct Capture {
    _client: async_nats::Client,
    messages: async_nats::Subscriber,
    pub seen: Vec<Message>,
}

impl Capture {
    /// Waits until a message of this kind has passed so many times since the capture began.
    pub async fn until(&mut self, kind: Kind, times: usize) {
        while self.of(kind).count() < times {
            let next = tokio::time::timeout(PATIENCE, self.messages.next()).await;
            self.seen.push(next.unwrap_or_else(|_| panic!("no {kind} number {times}")).unwrap());
        }
    }

    /// Waits until a message of this kind from this party has passed.
    pub async fn until_from(&mut self, kind: Kind, from: &str) {
        while !self.of(kind).any(|(address, _)| address.from.as_str() == from) {
            let so_far = self.of(kind).count();
            self.until(kind, so_far + 1).await;
        }
    }

    /// The messages of one kind so far, with their addresses.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (Address, &Message)> {
        let addressed = self.seen.iter().filter_map(|message| Some((address_of(message)?, message)));
        addressed.filter(move |(address, _)| address.kind == kind)
    }
}

pub fn address_of(message: &Message) -> Option<Address> {
    nats::subject::parse(&message.subject).ok()
}

/// A patient that the test plays: the machine itself over a real connection, without a store.
pub struct Played {
    pub board: Board,
    pub credentials: Credentials,
    inbox: Inbox,
    patient: Patient,
    waiting: Option<(Address, Bytes)>,
    pub events: Vec<Event>,
}

impl Played {
    /// `name` must be enrolled; it holds `value`, in whole units, under snapshot `1`.
    pub async fn new(study: &Study, name: &str, value: i64) -> Self {
        let credentials = study.credentials(name);
        let board = Board::new(study.link(name).await);
        let inbox = board.follow().await.unwrap();
        let schema = Schema {
            columns: vec![Column::scalar("value")],
            scaled_bound: 1_000_000_000_000_000,
            scale: Scale::default(),
        };
        let policy = Policy {
            study: "ward".into(),
            min_cohort: 3,
            min_committee: 2,
            min_threshold: 1,
            hospitals: Accepted::Anyone,
            members: Accepted::Anyone,
            columns: AcceptedColumns::All,
        };
        let scaled = value * i64::try_from(schema.scale.get()).unwrap();
        let record = Record::new(BTreeMap::from([("value".to_string(), vec![scaled])]), &schema).unwrap();
        let mut patient = Patient::new(me(&credentials), policy, schema);
        drop(patient.offer("1".parse().unwrap(), record, &moment()).unwrap());
        Self { board, credentials, inbox, patient, waiting: None, events: Vec::new() }
    }

    /// Takes part until a message of this kind arrives from the hospital or the server, as its subject says: it is
    /// returned, and handled at the next call only.
    pub async fn until(&mut self, kind: Kind) -> (Address, Bytes) {
        loop {
            if let Some((address, payload)) = self.waiting.take() {
                self.hand(Input::Message { address, payload }).await;
            }
            let next = tokio::time::timeout(PATIENCE, self.inbox.next()).await;
            let delivery = next.unwrap_or_else(|_| panic!("no {kind} arrived")).unwrap();
            let arrived = (delivery.address.clone(), delivery.payload.clone());
            self.waiting = Some(arrived.clone());
            if arrived.0.kind == kind && ["hospital", "server"].contains(&arrived.0.from.as_str()) {
                return arrived;
            }
        }
    }

    async fn hand(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Effects { send, jobs, events, .. } = self.patient.handle(&moment(), input);
            self.events.extend(events);
            for outgoing in send {
                self.board.publish(&outgoing.address, outgoing.payload).await.unwrap();
                if outgoing.report {
                    inputs.push_back(Input::Sent(outgoing.address));
                }
            }
            inputs.extend(jobs.into_iter().map(|(id, job)| Input::Done(id, job.run())));
        }
    }
}

fn me(credentials: &Credentials) -> Me {
    let identity = credentials.identity();
    Me {
        name: identity.name.clone(),
        role: identity.role,
        signing: credentials.signing_key(),
        chain: credentials.chain(),
        authority: credentials.authority(),
    }
}

fn moment() -> Moment {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let mut fresh = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut fresh).unwrap();
    Moment::new(protocol::Time(u64::try_from(now).unwrap()), fresh)
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// An address with a name of its own.
pub fn address(session: SessionTag, round: u32, from: &str, to: &str, kind: Kind) -> Address {
    let mut own = [0; 16];
    rand::rngs::SysRng.try_fill_bytes(&mut own).unwrap();
    let to: To = to.parse().unwrap();
    Address { session, round: RoundNo(round), from: name(from), to, kind, name: MessageName(own) }
}

/// The records of the party `name` in the database at `path`.
pub fn records(path: &Path, name: &str) -> BTreeMap<String, Vec<u8>> {
    const RECORDS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("records");
    let database = Database::create(path).unwrap();
    let table = database.begin_read().unwrap().open_table(RECORDS).unwrap();
    let entries = table.iter().unwrap().map(|entry| {
        let (key, value) = entry.unwrap();
        let (party, key) = key.value();
        (party.to_string(), key.to_string(), value.value().to_vec())
    });
    entries.filter(|(party, ..)| party == name).map(|(_, key, value)| (key, value)).collect()
}

/// Every file below `dir`.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The nats-server on the PATH or a pinned one, kept for all tests of this crate.
pub fn nats_server() -> PathBuf {
    nats::find_or_install(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("nats-server")).unwrap().path
}
