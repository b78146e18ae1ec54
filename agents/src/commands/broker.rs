//! `ward broker`: the parent of nats-server. It holds the operator identity: admits who is enrolled, cuts off who is revoked,
//! makes and removes their consumers and purges what is over.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use certs::{Host, Register};
use nats::{Broker, BrokerError, BrokerSettings, CallError, Inbox, Operator, Quota};
use protocol::{Caretaker, Name, Purge, Role};
use tokio::process::Command;

use crate::cli::BrokerArgs;
use crate::connect::{Way, connect};
use crate::enrol::name_broker;
use crate::home::{Home, OPERATOR};
use crate::life::Stop;
use crate::lock::Running;
use crate::report::note;

/// The longest step of a file system's time: two names may be entered in one.
const STEP: Duration = Duration::from_secs(2);
/// How often it is looked whether somebody was enrolled or revoked.
const LOOK: Duration = Duration::from_millis(50);
/// The port of the last time, in the broker's folder.
const PORT_FILE: &str = "port";
/// Where the board is kept, in the broker's folder.
const STORE: &str = "jetstream";

/// How long what ended is kept: who watches the board sees it, and who is slow still reads it.
const GRACE: Duration = Duration::from_secs(2);

/// Runs the broker until it is stopped.
///
/// # Errors
/// If there is no nats-server, the port is taken, or nats-server ends.
pub async fn run(home: &Home, args: &BrokerArgs, tied: bool) -> anyhow::Result<()> {
    let mut stop = Stop::listen(tied)?;
    home.init(None)?;
    let _running = Running::claim(&home.broker_dir(), tied)?;
    name_broker(home, &"broker".parse()?, &hosts(args)?)?;
    home.remove_broker_address()?;
    let mut keeper = tokio::select! {
        keeper = Keeper::start(home, args) => keeper?,
        () = stop.asked() => return Ok(()),
    };
    home.write_broker_address(&keeper.broker.endpoint().to_string())?;
    note!("broker ready at {} for {}", keeper.broker.endpoint(), home.path().display());
    let kept = tokio::select! {
        kept = keeper.keep() => kept,
        () = stop.asked() => Ok(()),
    };
    home.remove_broker_address()?;
    keeper.broker.stop().await?;
    kept
}

/// By which names its certificate says that the broker is reached: where it listens, and what else it is called.
fn hosts(args: &BrokerArgs) -> anyhow::Result<Vec<Host>> {
    let listens: Host = args.host.parse()?;
    Ok(args.name.iter().cloned().chain(Some(listens).filter(|host| !host.is_everywhere())).collect())
}

/// A running broker and what its operator looks after.
struct Keeper {
    home: Home,
    broker: Broker,
    operator: Operator,
    outcomes: Inbox,
    caretaker: Caretaker,
    /// What is over, and when it goes.
    purges: VecDeque<(Instant, Purge)>,
    parties: Vec<(Role, Name)>,
    register: Changes,
    /// Ends that are none, and looks at the register that fail.
    junk: Quota,
}

impl Keeper {
    async fn start(home: &Home, args: &BrokerArgs) -> anyhow::Result<Self> {
        let dir = home.nats_server_dir();
        let binary = tokio::task::spawn_blocking(move || nats::find_or_install(&dir)).await??;
        // In this order: what changes in between is found at the next look.
        let (register, parties) = (Changes::of(home)?, parties(home)?);
        let broker = start(home, args, &binary.path, &parties).await?;
        let credentials = home.credentials(&OPERATOR.parse()?)?;
        let way = Way { broker: Some(broker.endpoint().clone()), wait: Some(Duration::from_secs(10)) };
        let board = connect(home, &way, &credentials).await?;
        let operator = Operator::new(board.link().clone(), broker.consumers().clone());
        operator.make_streams(space(home, args)?).await?;
        operator.make_watch_consumers().await?;
        operator.remake_consumers(&followers(&parties)).await?;
        let outcomes = operator.follow_outcomes().await?;
        let caretaker = Caretaker::new(credentials.authority());
        Ok(Self {
            home: home.clone(),
            broker,
            operator,
            outcomes,
            caretaker,
            purges: VecDeque::new(),
            parties,
            register,
            junk: Quota::new(20),
        })
    }

    /// Admits, cuts off, and purges, until nats-server ends.
    async fn keep(&mut self) -> anyhow::Result<()> {
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                failed = self.broker.failed() => return Err(failed.into()),
                delivery = self.outcomes.next() => {
                    let delivery = delivery?;
                    self.note_end(&delivery);
                    delivery.ack().await;
                }
                _ = look.tick() => {
                    self.follow_register().await?;
                    self.purge().await?;
                }
            }
        }
    }

    /// Notes what need not be kept any longer, if the hospital's signature says so.
    fn note_end(&mut self, delivery: &nats::Delivery) {
        match self.caretaker.take(&delivery.address, &delivery.payload) {
            Ok(Some(purge)) => self.purges.push_back((Instant::now() + GRACE, purge)),
            Ok(None) => {}
            Err(error) => {
                if let Some(note) = self.junk.pass() {
                    let (kind, from) = (delivery.address.kind, &delivery.address.from);
                    tracing::warn!("{kind} of {from} changes nothing: {error}{note}");
                }
            }
        }
    }

    /// Purges what ended long enough ago.
    async fn purge(&mut self) -> anyhow::Result<()> {
        while let Some((_, purge)) = self.purges.pop_front_if(|(due, _)| *due <= Instant::now()) {
            let purged = match &purge {
                Purge::Round(session, round) => self.operator.purge_round_bulk(*session, *round).await,
                Purge::Session(session) => self.operator.purge_session(*session).await,
            };
            match purged {
                Ok(purged) => tracing::debug!(?purge, purged, "purged"),
                // A busy nats-server may take longer than an answer is waited for: it is asked again, and nobody is harmed.
                Err(error) if error.may_pass() => {
                    tracing::debug!(?purge, %error, "purging again later");
                    self.purges.push_back((Instant::now() + GRACE, purge));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Lists who was enrolled since the last look, and no longer who was revoked; nobody else is dropped.
    async fn follow_register(&mut self) -> anyhow::Result<()> {
        let Look { register, issued } = match Look::since(&self.register, &self.home) {
            Ok(Some(look)) => look,
            Ok(None) => return Ok(()),
            // Say as the CA is being moved, or an entry is damaged: the study goes on as it is.
            Err(error) => {
                if let Some(note) = self.junk.pass() {
                    tracing::warn!("nobody is admitted or cut off: {error:#}{note}");
                }
                return Ok(());
            }
        };
        let new = unknown(issued, &self.parties, &register.revoked);
        // A listing that is made while a folder changes may miss a name: only who was revoked goes.
        let known = self.parties.iter().cloned();
        let (gone, mut listed): (Vec<_>, Vec<_>) = known.partition(|(_, name)| register.revoked.contains(name));
        listed.extend(new.iter().cloned());
        if !new.is_empty() || !gone.is_empty() {
            self.broker.reload(&listed).await?;
            match self.admit(&new).await {
                // A busy nats-server is asked again at the next look.
                Err(error) if error.may_pass() => {
                    tracing::debug!(%error, "admitting again");
                    return Ok(());
                }
                admitted => admitted?,
            }
            self.cut_off(&gone).await;
        }
        (self.parties, self.register) = (listed, register);
        Ok(())
    }

    /// Makes the consumers of those who were just listed.
    async fn admit(&self, new: &[(Role, Name)]) -> Result<(), CallError> {
        for (role, name) in followers(new) {
            self.operator.make_consumers(role, &name).await?;
        }
        if !new.is_empty() {
            note!("admitted {}", protocol::list(&names(new)));
        }
        Ok(())
    }

    /// Removes the consumers of those who are listed no longer: nats-server has closed their connections.
    async fn cut_off(&self, gone: &[(Role, Name)]) {
        for (_, name) in followers(gone) {
            // They keep nobody from anything: nobody else may ask for them, and the next start makes them no more.
            if let Err(error) = self.operator.remove_consumers(&name).await {
                tracing::debug!(%name, %error, "consumers stay until the next start");
            }
        }
        if !gone.is_empty() {
            note!("cut off {}", protocol::list(&names(gone)));
        }
    }
}

/// What the CA's register says after a change.
struct Look {
    register: Changes,
    /// All who were issued a name.
    issued: Vec<(Role, Name)>,
}

impl Look {
    /// What is new since `before`. Who was revoked stays so, whatever the register says later.
    fn since(before: &Changes, home: &Home) -> anyhow::Result<Option<Self>> {
        let mut register = Changes::of(home)?;
        register.revoked.extend(before.revoked.iter().cloned());
        if register == *before {
            return Ok(None);
        }
        let subjects = Register::of(home.ca_dir()).all()?.into_iter().map(|certificate| certificate.subject().clone());
        Ok(Some(Self { register, issued: subjects.map(|subject| (subject.role, subject.name)).collect() }))
    }
}

/// What tells that the CA's register has changed.
#[derive(PartialEq, Eq)]
struct Changes {
    /// When somebody was last entered.
    entered: Option<SystemTime>,
    /// Who was entered, while somebody else may be at the same time, as the file system tells it.
    names: Option<BTreeSet<Name>>,
    revoked: BTreeSet<Name>,
}

impl Changes {
    fn of(home: &Home) -> anyhow::Result<Self> {
        let entered = fs::metadata(home.ca_dir().join(certs::ISSUED)).and_then(|folder| folder.modified()).ok();
        // A clock that was set back makes every time a new one.
        let is_new = entered.is_some_and(|at| at.elapsed().map_or(true, |age| age <= STEP));
        let register = Register::of(home.ca_dir());
        let names = is_new.then(|| register.names()).transpose()?;
        Ok(Self { entered, names, revoked: register.revoked()? })
    }
}

/// Those who were issued a name and are neither known nor revoked.
fn unknown(mut issued: Vec<(Role, Name)>, known: &[(Role, Name)], revoked: &BTreeSet<Name>) -> Vec<(Role, Name)> {
    let known: BTreeSet<&Name> = known.iter().map(|(_, name)| name).collect();
    issued.retain(|(_, name)| !known.contains(name) && !revoked.contains(name));
    issued
}

fn names(parties: &[(Role, Name)]) -> Vec<Name> {
    parties.iter().map(|(_, name)| name.clone()).collect()
}

/// Starts nats-server, without a given port at that of the last time: whoever was connected then knocks there again.
async fn start(home: &Home, args: &BrokerArgs, binary: &Path, parties: &[(Role, Name)]) -> anyhow::Result<Broker> {
    let (dir, study) = (home.broker_dir(), home.study()?);
    let at =
        async |port| anyhow::Ok(Broker::start(binary, tied, &dir, settings(home, args, port)?, &study, parties).await);
    let started = match (args.port, last_port(home)) {
        (None, Some(last)) => match at(Some(last)).await? {
            Err(BrokerError::PortInUse { .. }) => at(None).await?,
            other => other,
        },
        (given, _) => at(given).await?,
    };
    let broker = started?;
    fs::write(dir.join(PORT_FILE), broker.endpoint().port.to_string())?;
    Ok(broker)
}

fn last_port(home: &Home) -> Option<u16> {
    fs::read_to_string(home.broker_dir().join(PORT_FILE)).ok()?.trim().parse().ok()
}

fn parties(home: &Home) -> anyhow::Result<Vec<(Role, Name)>> {
    Ok(home.parties()?.into_iter().map(|(name, role)| (role, name)).collect())
}

/// Those of `parties` that follow the board.
fn followers(parties: &[(Role, Name)]) -> Vec<(Role, Name)> {
    let follows = |role: &Role| role.is_patient() || matches!(role, Role::Server | Role::Hospital);
    parties.iter().filter(|(role, _)| follows(role)).cloned().collect()
}

/// How many bytes the board may take.
fn space(home: &Home, args: &BrokerArgs) -> anyhow::Result<u64> {
    match args.space {
        Some(mebibytes) => Ok(u64::from(mebibytes.get()) << 20),
        None => nats::share_of_disk(&home.broker_dir().join(STORE)).context("the free space for the board"),
    }
}

fn settings(home: &Home, args: &BrokerArgs, port: Option<u16>) -> anyhow::Result<BrokerSettings> {
    let dir = home.party_dir(&"broker".parse()?);
    let dir = dir.canonicalize().with_context(|| format!("the broker's folder {}", dir.display()))?;
    // The broker's own certificate must hold, or every party would be refused one by one.
    home.credentials(&"broker".parse()?)?;
    let store_dir = home.broker_dir().canonicalize()?.join(STORE);
    Ok(BrokerSettings {
        host: args.host.clone(),
        port,
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        ca: dir.join("ca.pem"),
        store_dir,
        sync_always: args.sync_always,
    })
}

/// nats-server is started through this program, which ties it to this process.
fn tied(binary: &Path) -> Command {
    let this = std::env::current_exe().unwrap_or_else(|_| "ward".into());
    let mut command = Command::new(this);
    command.arg("exec-tied").arg(binary).stdin(std::process::Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::enrol::enrol;
    use crate::fixtures::{name, new_home};

    #[test]
    fn a_name_that_is_entered_within_a_step_of_the_clock_is_noticed() {
        let (_dir, home) = new_home();
        let issued = fs::File::open(home.ca_dir().join(certs::ISSUED)).unwrap();
        let now = SystemTime::now();
        // Now, and before the clock was set back.
        for (at, who) in [(now, "alice"), (now + Duration::from_secs(86_400), "bob")] {
            issued.set_modified(at).unwrap();
            let before = Changes::of(&home).unwrap();
            enrol(&home, &name(who), None).unwrap();
            issued.set_modified(at).unwrap();
            assert!(Changes::of(&home).unwrap() != before, "{who}");
        }
        // Nobody else comes at a time that is over, and the names are not read again and again.
        issued.set_modified(now - 2 * STEP).unwrap();
        assert!(Changes::of(&home).unwrap().names.is_none());
    }

    #[test]
    fn who_is_listed_or_revoked_is_not_admitted_again() {
        let party = |who: &str| (Role::Patient, name(who));
        let issued = ["alice", "carol", "dave"].map(party).into();
        assert_eq!(unknown(issued, &[party("bob"), party("alice")], &[name("carol")].into()), [party("dave")]);
    }

    #[test]
    fn who_was_revoked_stays_so_without_the_register() {
        let (_dir, home) = new_home();
        enrol(&home, &name("alice"), None).unwrap();
        home.authority().unwrap().revoke(&name("alice")).unwrap();
        let before = Changes::of(&home).unwrap();
        assert!(before.revoked.contains(&name("alice")));
        fs::rename(home.ca_dir(), home.path().join("away")).unwrap();
        assert!(Look::since(&before, &home).is_err(), "a CA that is away says nothing");
        // And as it was before.
        fs::rename(home.path().join("away"), home.ca_dir()).unwrap();
        fs::remove_dir_all(home.ca_dir().join(certs::REVOKED)).unwrap();
        enrol(&home, &name("bob"), None).unwrap();
        let Look { register, issued } = Look::since(&before, &home).unwrap().unwrap();
        assert!(issued.contains(&(Role::Member, name("alice"))) && register.revoked.contains(&name("alice")));
    }
}
