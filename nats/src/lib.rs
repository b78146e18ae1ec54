//! Ward's carrier. It moves bytes between parties by name and decides nothing: what a message means, and whether it is
//! to be believed, is `protocol`'s.
//!
//! - [`subject`]: the one place that spells a subject; [`stream`]: the two streams, and the JetStream API's subjects.
//! - [`link`]: a party's connection, mutual TLS 1.3 with the hybrid post-quantum key exchange, and its errors in words.
//! - [`board`]: write once, follow, read by name; [`inbox`]: both streams as one.
//! - [`consumers`]: the names of the consumers, which only their owners can tell.
//! - [`operator`]: makes the board, purges it.
//! - [`watch`]: sees who writes what to whom, and no payload.
//! - [`permissions`]: the broker's configuration.
//! - [`space`]: how much of the disk the board may take.
//! - [`quota`]: says a few of many like lines.
//! - [`install`]: finds or installs nats-server.
//! - [`broker`]: runs it.
//!
//! A party writes a message, and follows what is written to it:
//!
//! ```no_run
//! use nats::{Board, Link};
//! use protocol::{Address, Kind, MessageName, RoundNo, SessionTag};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! certs::install_provider()?;
//! let credentials = certs::Credentials::load("home/alice")?;
//! let link = Link::connect(&"localhost:4222".parse()?, &credentials).await?;
//! let board = Board::new(link);
//!
//! let address = Address {
//!     session: SessionTag([7; 16]),
//!     round: RoundNo(1),
//!     from: "alice".parse()?,
//!     to: "server".parse()?,
//!     kind: Kind::Share,
//!     name: MessageName([9; 16]),
//! };
//! board.publish(&address, "sealed".into()).await?;
//!
//! let mut inbox = board.follow().await?;
//! loop {
//!     let delivery = inbox.next().await?;
//!     println!("{} bytes from {}", delivery.payload.len(), delivery.address.from);
//!     // Only once its effects are stored:
//!     delivery.ack().await;
//! }
//! # }
//! ```

pub mod board;
pub mod broker;
pub mod call_error;
pub mod consumers;
pub mod endpoint;
mod feed;
pub mod inbox;
pub mod install;
pub mod link;
pub mod link_error;
pub mod operator;
pub mod permissions;
pub mod quota;
mod reconnect;
mod refusal;
pub mod space;
pub mod stream;
pub mod subject;
pub mod watch;

pub use board::{Board, BoardError, Published};
pub use broker::{Broker, BrokerError, exec_tied};
pub use call_error::CallError;
pub use consumers::ConsumerNames;
pub use endpoint::{Endpoint, EndpointError};
pub use inbox::{Delivery, Inbox};
pub use install::{Binary, InstallError, find_or_install};
pub use link::Link;
pub use link_error::LinkError;
pub use operator::Operator;
pub use permissions::BrokerSettings;
pub use quota::Quota;
pub use space::share_of_disk;
pub use stream::Stream;
pub use subject::SubjectError;
pub use watch::{Seen, Watcher};
