//! How a process of Ward's ends: by a signal, or with the one that started it.

use std::io::Read as _;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// Ends when the process is asked to stop: Ctrl-C, `kill`, or, where it is tied, when the pipe that its parent holds at
/// its standard input closes. A parent that is killed closes it too, so nothing is left running.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    parent: Arc<Notify>,
}

impl Stop {
    /// Listens from now on.
    ///
    /// # Errors
    /// If the system does not let signals be caught.
    pub fn listen(tied: bool) -> std::io::Result<Self> {
        let parent = Arc::new(Notify::new());
        if tied {
            let gone = parent.clone();
            std::thread::Builder::new().name("parent".into()).spawn(move || {
                wait_for_end_of_input();
                gone.notify_one();
            })?;
        }
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            parent,
        })
    }

    /// Returns once the process is asked to stop. Cancel safe.
    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            () = self.parent.notified() => {}
        }
    }
}

fn wait_for_end_of_input() {
    let mut input = std::io::stdin().lock();
    let mut buffer = [0; 64];
    while !matches!(input.read(&mut buffer), Ok(0) | Err(_)) {}
}
