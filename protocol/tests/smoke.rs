#![allow(clippy::unwrap_used, missing_docs)]
use std::collections::BTreeMap;

use protocol::memory::Network;
use protocol::*;

fn schema() -> Schema {
    Schema { columns: vec![Column::scalar("value")], scaled_bound: 1_000_000_000_000_000, scale: Scale::default() }
}
fn policy() -> Policy {
    Policy {
        study: "ward".into(),
        min_cohort: 2,
        min_committee: 2,
        min_threshold: 1,
        hospitals: Accepted::Anyone,
        members: Accepted::Anyone,
        columns: AcceptedColumns::All,
    }
}

#[test]
fn smoke() {
    let mut net = Network::new(1);
    net.add_hospital(&"hospital".parse().unwrap());
    net.add_server(&"server".parse().unwrap());
    let one: Snapshot = "1".parse().unwrap();
    for (name, value) in [("alice", 100), ("bob", 200), ("charlie", 300)] {
        let name: Name = name.parse().unwrap();
        net.add_patient(&name, Role::Member, policy(), schema());
        let record =
            Record::new(BTreeMap::from([("value".to_string(), vec![value * 1_000_000])]), &schema()).unwrap();
        net.offer(&name, &one, record).unwrap();
    }
    let plan = Plan::new(Settings {
        study: "ward".into(),
        expect: 3,
        committee: None,
        threshold: None,
        min_cohort: None,
        candidates: vec![],
        server: "server".parse().unwrap(),
        payloads: false,
        join_seconds: 30,
        not_after: net.now().plus_seconds(86400 * 90),
    })
    .unwrap();
    let session = net.announce(&plan).unwrap();
    let ask = Ask {
        question: Question::Sum(vec![Column::scalar("value")]),
        snapshot: one,
        ring: None,
        scale: Scale::default(),
        scaled_bound: 1_000_000_000_000_000,
        enough: None,
        round_seconds: 60,
        last: false,
    };
    net.ask(session, ask.clone()).unwrap();
    net.run();
    for (name, event) in net.events() {
        println!("{name}: {event:?}");
    }
    assert_eq!(net.answers().next().unwrap().sum, vec![600_000_000]);
    net.ask(session, ask).unwrap();
    net.run();
    for (name, event) in net.events() {
        println!("{name}: {event:?}");
    }
    assert_eq!(net.answers().count(), 2);
}
