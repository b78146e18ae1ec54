//! What an agent sends, on its way to the board.

use std::sync::Arc;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use nats::Board;
use protocol::{Address, Outgoing};
use tokio::sync::mpsc;

/// The most bytes that one agent has on their way to the board: two of the longest chunks.
const WINDOW_BYTES: usize = 1 << 20;
/// The most messages that one agent has on their way to the board.
const WINDOW_MESSAGES: usize = 64;

/// The way to the board: messages go in order, with a bounded window of them under way.
pub struct Mailer {
    queue: mpsc::UnboundedSender<Posted>,
}

enum Posted {
    Message(Outgoing),
    /// Says when everything before it is on the board.
    Flush(tokio::sync::oneshot::Sender<()>),
}

impl Mailer {
    /// Sends over `board`, and says to `report` which of the messages that ask for it are written; or the error that ended
    /// it, as the last thing.
    pub fn start(board: Board, report: impl Fn(anyhow::Result<Address>) + Send + Sync + 'static) -> Self {
        let (queue, posted) = mpsc::unbounded_channel();
        tokio::spawn(post_all(board, posted, report));
        Self { queue }
    }

    /// For who drives no machine: an error shows at the next flush, and nothing is reported.
    pub fn alone(board: Board) -> Self {
        Self::start(board, drop)
    }

    /// Puts a message into the queue.
    ///
    /// # Errors
    /// If the board refused an earlier one for good.
    pub fn send(&self, outgoing: Outgoing) -> anyhow::Result<()> {
        self.queue.send(Posted::Message(outgoing)).map_err(|_| anyhow::anyhow!("the way to the board is closed"))
    }

    /// Waits until everything that was sent is on the board.
    ///
    /// # Errors
    /// If the board refuses it for good.
    pub async fn flush(&self) -> anyhow::Result<()> {
        let (done, answer) = tokio::sync::oneshot::channel();
        self.queue.send(Posted::Flush(done)).map_err(|_| anyhow::anyhow!("the way to the board is closed"))?;
        answer.await.context("the board refused a message")
    }
}

async fn post_all(board: Board, mut posted: mpsc::UnboundedReceiver<Posted>, report: impl Fn(anyhow::Result<Address>)) {
    let board = Arc::new(board);
    let mut on_their_way = FuturesUnordered::new();
    let (mut bytes, mut open) = (0, true);
    loop {
        let room = on_their_way.is_empty() || (bytes < WINDOW_BYTES && on_their_way.len() < WINDOW_MESSAGES);
        tokio::select! {
            Some((size, written)) = on_their_way.next(), if !on_their_way.is_empty() => {
                bytes -= size;
                if said(written, &report).is_err() {
                    return;
                }
            }
            next = posted.recv(), if room && open => match next {
                Some(Posted::Message(outgoing)) => {
                    bytes += outgoing.payload.len();
                    on_their_way.push(write(board.clone(), outgoing));
                }
                Some(Posted::Flush(done)) => {
                    while let Some((size, written)) = on_their_way.next().await {
                        bytes -= size;
                        if said(written, &report).is_err() {
                            return;
                        }
                    }
                    let _ = done.send(());
                }
                None => open = false,
            },
            else => return,
        }
    }
}

type Written = (usize, anyhow::Result<Option<Address>>);

async fn write(board: Arc<Board>, outgoing: Outgoing) -> Written {
    let Outgoing { address, payload, report } = outgoing;
    let size = payload.len();
    let written = board.publish(&address, payload).await;
    let written = written.with_context(|| format!("{} could not be written to the board", address.kind));
    (size, written.map(|_| report.then_some(address)))
}

/// Reports what is waited for; an error ends the way to the board.
fn said(written: anyhow::Result<Option<Address>>, report: &impl Fn(anyhow::Result<Address>)) -> Result<(), ()> {
    match written {
        Ok(address) => {
            address.into_iter().for_each(|address| report(Ok(address)));
            Ok(())
        }
        Err(error) => {
            report(Err(error));
            Err(())
        }
    }
}
