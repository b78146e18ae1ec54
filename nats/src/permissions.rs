//! The broker's configuration: who is listed, and what each may do (PROTOCOL.md, *The board*).
//!
//! | role | publishes | reads by name |
//! |---|---|---|
//! | patient, member | messages from itself to a named party; asks about its signpost; asks, resets and acknowledges its own consumer | nothing |
//! | server | the same, and a Roster to all; has a consumer of chunks too | what is addressed to it |
//! | hospital | the same, and Announce, Begin, Result and Abort to all; has a consumer of chunks too | Shares and chunks addressed to servers |
//! | operator | the JetStream API; acknowledges its own consumer | |
//! | monitor | nothing; subscribes to the board and to the headers-only delivery | |
//! | broker | it is the broker: not listed | |
//!
//! Whoever may read by name can, through a foreign reply subject, send the broker any API request made of bytes on the
//! board. So patients and members may not, and no promise of Ward's rests on the broker.

use std::path::{Path, PathBuf};

use certs::Study;
use protocol::{Name, Role};

use crate::consumers::ConsumerNames;
use crate::stream::Stream;
use crate::subject;

const BROKER: &str = include_str!("../broker/broker.conf");
const PARTY: &str = include_str!("../broker/party.conf");
const MONITOR: &str = include_str!("../broker/monitor.conf");
const OPERATOR: &str = include_str!("../broker/operator.conf");

/// What a broker needs to know beside its parties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSettings {
    /// The address to listen on, such as `127.0.0.1`.
    pub host: String,
    /// The port to listen on; `None` leaves the choice to the system.
    pub port: Option<u16>,
    /// The broker's certificate, PEM.
    pub cert: PathBuf,
    /// The broker's key, PEM.
    pub key: PathBuf,
    /// The study's authority, PEM.
    pub ca: PathBuf,
    /// Where the board is kept.
    pub store_dir: PathBuf,
    /// Whether each message is flushed to the disk before it is acknowledged: about 0.5 ms a message.
    pub sync_always: bool,
}

/// The whole configuration, for nats-server 2.14 or newer.
pub fn render(settings: &BrokerSettings, parties: &[(Role, Name)], study: &Study, consumers: &ConsumerNames) -> String {
    let users = parties.iter().filter_map(|(role, name)| user(study, *role, name, parties, consumers));
    let users: String = users.collect();
    let port = settings.port.map_or("-1".into(), |port| port.to_string());
    let host = if settings.host.contains(':') { format!("[{}]", settings.host) } else { settings.host.clone() };
    fill(
        BROKER,
        &[
            ("listen", &quoted(&format!("{host}:{port}"))),
            ("cert", &quoted_path(&settings.cert)),
            ("key", &quoted_path(&settings.key)),
            ("ca", &quoted_path(&settings.ca)),
            ("store", &quoted_path(&settings.store_dir)),
            ("sync", if settings.sync_always { "always" } else { "\"2m\"" }),
            ("users", users.trim_end()),
        ],
    )
}

/// One entry of the list of users; none for the broker itself.
fn user(study: &Study, role: Role, name: &Name, parties: &[(Role, Name)], consumers: &ConsumerNames) -> Option<String> {
    let template = match role {
        Role::Broker => return None,
        Role::Monitor => MONITOR,
        Role::Operator => OPERATOR,
        Role::Hospital | Role::Server | Role::Patient | Role::Member => PARTY,
    };
    let readable = readable(role, name, parties);
    let reads: String = readable.iter().map(|subject| format!(",\n          {}", quoted(subject))).collect();
    let denied = listed(&subject::not_publishable(role, name));
    let me = name.as_str();
    let mine = consumers.of(me);
    Some(fill(
        template,
        &[
            ("name", me),
            ("user", &quoted(&certs::uri(study, role, name))),
            ("publish", &listed(&subject::publishable(name))),
            ("signpost_info", &Stream::Messages.consumer_info(me)),
            ("consumers", &consumer_subjects(role, &mine)),
            ("consumer_ack", &Stream::Messages.consumer_ack(&mine)),
            ("denied", &denied),
            ("reads", &reads),
            ("reads_comment", if reads.is_empty() { "" } else { ", and reads by name" }),
            ("inbox", &subject::inbox(name)),
            ("api", subject::API),
            ("board", subject::EVERYTHING),
            ("watch", subject::WATCH),
        ],
    ))
}

/// What a party asks, resets and acknowledges its own consumers by, all called `consumer`.
fn consumer_subjects(role: Role, consumer: &str) -> String {
    let of = |stream: &Stream| {
        let (info, next) = (stream.consumer_info(consumer), stream.consumer_next(consumer));
        listed(&[info, next, stream.consumer_reset(consumer), stream.consumer_ack(consumer)])
    };
    followed(role).iter().map(of).collect::<Vec<_>>().join(",\n          ")
}

/// Which streams a party of this role follows.
pub(crate) fn followed(role: Role) -> &'static [Stream] {
    match role {
        Role::Server | Role::Hospital => &Stream::ALL,
        Role::Patient | Role::Member | Role::Monitor | Role::Operator | Role::Broker => &[Stream::Messages],
    }
}

fn listed(subjects: &[String]) -> String {
    subjects.iter().map(|subject| quoted(subject)).collect::<Vec<_>>().join(", ")
}

fn readable(role: Role, name: &Name, parties: &[(Role, Name)]) -> Vec<String> {
    match role {
        Role::Server => subject::readable_by_server(name).into(),
        Role::Hospital => parties
            .iter()
            .filter(|(role, _)| *role == Role::Server)
            .flat_map(|(_, server)| subject::readable_by_hospital(server))
            .collect(),
        Role::Patient | Role::Member | Role::Monitor | Role::Operator | Role::Broker => Vec::new(),
    }
}

/// Puts values in the places of `{{field}}`; what a value contains is not looked at again.
fn fill(template: &str, fields: &[(&str, &str)]) -> String {
    let mut pieces = template.split("{{");
    let mut text = String::from(pieces.next().unwrap_or_default());
    for piece in pieces {
        match piece.split_once("}}") {
            Some((field, rest)) => {
                let value = fields.iter().find(|(name, _)| *name == field).map_or(field, |(_, value)| value);
                text.push_str(value);
                text.push_str(rest);
            }
            None => text.push_str(piece),
        }
    }
    text
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A string of nats-server's configuration language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rendered(sync_always: bool) -> String {
        let settings = BrokerSettings {
            host: "127.0.0.1".into(),
            port: None,
            cert: "/h \"x\"/cert.pem".into(),
            key: "/h/key.pem".into(),
            ca: "/h/ca.pem".into(),
            store_dir: "/h/board".into(),
            sync_always,
        };
        let parties = [
            (Role::Patient, "alice".parse().unwrap()),
            (Role::Member, "bob".parse().unwrap()),
            (Role::Server, "server".parse().unwrap()),
            (Role::Hospital, "hospital".parse().unwrap()),
            (Role::Monitor, "monitor".parse().unwrap()),
            (Role::Operator, "operator".parse().unwrap()),
            (Role::Broker, "broker".parse().unwrap()),
        ];
        let dir = tempfile::tempdir().unwrap();
        render(&settings, &parties, &"demo".parse().unwrap(), &ConsumerNames::open(dir.path()).unwrap())
    }

    #[test]
    fn every_field_of_the_templates_is_filled() {
        // Comments of the template speak of {{fields}} as such.
        assert_eq!(rendered(false).matches("{{").count(), 0);
        assert!(rendered(true).contains("sync_interval: always"));
        assert!(rendered(false).contains(r#"cert_file: "/h \"x\"/cert.pem""#));
    }

    #[test]
    fn only_servers_and_the_hospital_read_by_name() {
        let text = rendered(false);
        assert_eq!(text.matches("DIRECT.GET").count(), 4);
        assert!(text.contains("\"$JS.API.DIRECT.GET.WARD.ward.*.*.*.server.*.*\""));
        assert!(text.contains("\"$JS.API.DIRECT.GET.WARD.ward.*.*.*.server.share.*\""));
        assert_eq!(text.matches("\"$JS.API.DIRECT.GET.WARD-CHUNKS.ward.*.*.*.server.chunk.*.raw\"").count(), 2);
    }

    #[test]
    fn the_broker_itself_is_no_user() {
        assert!(!rendered(false).contains("broker/broker"));
        assert!(rendered(false).contains("spiffe://demo/patient/alice"));
    }
}
