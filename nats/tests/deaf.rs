//! A party has the broker deliver bytes of its own choice to what another's consumer listens to. Who cannot tell that
//! consumer's name makes nobody deaf.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use bytes::Bytes;
use nats::{Board, Broker, Operator, Stream};
use protocol::Kind;
use serde_json::Value;
use support::{Home, PATIENCE, address, next};

/// Alice, who has her own messages delivered where another's consumer listens.
struct Attacker {
    board: Board,
    client: async_nats::Client,
    sent: u8,
}

impl Attacker {
    async fn new(home: &Home, broker: &Broker) -> Self {
        let board = home.board(broker, "alice").await;
        let (client, _errors) = home.raw(broker, "alice").await;
        Self { board, client, sent: 0 }
    }

    /// The broker delivers `body` to `target`, from alice's own consumer.
    async fn deliver(&mut self, target: String, body: &str) {
        self.sent += 1;
        let own = address(9, "alice", "alice", Kind::Share, self.sent);
        self.board.publish(&own, Bytes::from(body.to_owned())).await.unwrap();
        let pull = Stream::Messages.consumer_next(&self.board.consumer().await.unwrap());
        let one = Bytes::from_static(br#"{"batch":1,"expires":60000000000}"#);
        self.client.publish_with_reply(pull, target, one).await.unwrap();
        self.client.flush().await.unwrap();
    }

    /// All that makes the one whose consumer is called so deaf.
    async fn attack(&mut self, consumer: &str) {
        self.deliver(Stream::Messages.consumer_next(consumer), r#"{"batch":100}"#).await;
        self.deliver(format!("$JS.ACK.WARD.{consumer}.1.1.1.0.0"), "+ACK").await;
        self.deliver(Stream::Messages.consumer_reset(consumer), r#"{"seq":100000}"#).await;
    }
}

/// What the broker says of a consumer.
async fn info(operator: &Board, consumer: &str) -> Value {
    let answer = operator.link().ask(&Stream::Messages.consumer_info(consumer), Bytes::new()).await.unwrap();
    serde_json::from_slice(&answer).unwrap()
}

/// Asks until what the broker says is so.
async fn until(operator: &Board, consumer: &str, is_so: impl Fn(&Value) -> bool) {
    let asking = async { while !is_so(&info(operator, consumer).await) {} };
    if tokio::time::timeout(PATIENCE / 4, asking).await.is_err() {
        panic!("the broker says {}", info(operator, consumer).await);
    }
}

async fn board_with_mail(home: &Home, broker: &Broker) -> (Attacker, Board) {
    let _: Operator = home.operator(broker).await;
    let mallory = Attacker::new(home, broker).await;
    for to in ["bob", "server"] {
        for number in 1..=3 {
            mallory.board.publish(&address(1, "alice", to, Kind::Share, number), vec![number].into()).await.unwrap();
        }
    }
    (mallory, home.board(broker, "operator").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_tell_a_consumers_name_makes_its_owner_not_deaf() {
    let home = Home::new();
    let broker = home.start(None).await;
    let (mut mallory, operator) = board_with_mail(&home, &broker).await;
    let bob = home.board(&broker, "bob").await;
    let mut inbox = bob.follow().await.unwrap();
    let mine = broker.consumers().of("bob");
    assert_eq!(bob.consumer().await.unwrap(), mine);
    assert_eq!(next(&mut inbox).await.payload, vec![1]);

    mallory.attack("bob").await;
    // The way itself is open: by its name the server's consumer is moved, and what came before has arrived then.
    let servers = broker.consumers().of("server");
    mallory.deliver(Stream::Messages.consumer_reset(&servers), r#"{"seq":100000}"#).await;
    until(&operator, &servers, |info| info["ack_floor"]["stream_seq"] == 99_999).await;

    assert_eq!(info(&operator, &mine).await["ack_floor"]["stream_seq"], 0);
    mallory.board.publish(&address(1, "alice", "bob", Kind::Share, 4), vec![4].into()).await.unwrap();
    for number in 2..=4 {
        assert_eq!(next(&mut inbox).await.payload, vec![number]);
    }
    // Nor is anything acknowledged in its name: all of it comes again.
    drop((inbox, bob));
    let mut again = home.board(&broker, "bob").await.follow().await.unwrap();
    for number in 1..=4 {
        assert_eq!(next(&mut again).await.payload, vec![number]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_name_is_known_can_be_emptied_by_anybody() {
    let home = Home::new();
    let broker = home.start(None).await;
    let (mut mallory, operator) = board_with_mail(&home, &broker).await;
    let servers = broker.consumers().of("server");
    // Why names are secret: its messages go to nobody, without a trace at the server.
    mallory.deliver(Stream::Messages.consumer_next(&servers), r#"{"batch":100}"#).await;
    until(&operator, &servers, |info| info["num_pending"] == 0 && info["delivered"]["consumer_seq"] == 3).await;
    assert_eq!(home.board(&broker, "server").await.pending().await.unwrap(), 0);
    // Starting the broker again makes the consumers anew.
    broker.stop().await.unwrap();
    let broker = home.start(None).await;
    home.operator(&broker).await;
    let mut inbox = home.board(&broker, "server").await.follow().await.unwrap();
    assert_eq!(next(&mut inbox).await.payload, vec![1]);
}
