//! A connection that looks where its broker is each time that it is made again.
//!
//! async-nats knocks for ever at the address it was given, and takes no other while it does. A broker that finds its port
//! taken when it is started again listens elsewhere. So a client gives up soon here, and a new one takes its place.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectError, ConnectOptions};
use protocol::Name;
use tokio::sync::{Notify, watch};

use crate::call_error::CallError;
use crate::endpoint::Endpoint;
use crate::link_error::{LinkError, check_version, explain};

/// How often a client knocks at the old address before it gives up.
pub(crate) const KNOCKS: usize = 1;
/// The pause between two attempts of a new client, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
/// How often a connected client is looked at: an event of its may be dropped when many come at once.
const IDLE: Duration = Duration::from_secs(5);
/// How often one is looked at that lost its connection. It does not always say that it gave up.
const LOOK: Duration = Duration::from_millis(100);
/// After so many looks in a row without a connection another takes its place; it ends by itself then.
const LOOKS: u32 = 5;

/// The client of a link: another one after a loss, none once it was closed or the broker has cut it off.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Held>);

#[derive(Clone, Debug)]
enum Held {
    Open(Client),
    Closed(Client),
    /// By the broker there, for good.
    CutOff(Client, Endpoint),
}

impl Current {
    pub(crate) fn new(first: Client) -> Self {
        Self(RwLock::new(Held::Open(first)))
    }

    pub(crate) fn get(&self) -> Client {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (Held::Open(client) | Held::Closed(client) | Held::CutOff(client, _)) = &*held;
        client.clone()
    }

    /// No other client takes its place from now on.
    pub(crate) fn close(&self) -> Client {
        let client = self.get();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Held::Closed(client.clone());
        client
    }

    /// Why the link of `name` has no connection any more and will have none.
    pub(crate) fn end(&self, name: &Name) -> Option<CallError> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Held::Open(_) => None,
            Held::Closed(_) => Some(CallError::Closed),
            Held::CutOff(_, endpoint) => Some(CallError::CutOff { endpoint: endpoint.clone(), name: name.clone() }),
        }
    }

    fn is_open(&self) -> bool {
        matches!(&*self.0.read().unwrap_or_else(PoisonError::into_inner), Held::Open(_))
    }

    fn replace(&self, client: Client) {
        self.change(|_| Held::Open(client));
    }

    /// No broker is asked any more.
    fn cut_off(&self, endpoint: Endpoint) {
        self.change(|last| Held::CutOff(last, endpoint));
    }

    fn change(&self, to: impl FnOnce(Client) -> Held) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Held::Open(client) = &*held {
            *held = to(client.clone());
        }
    }
}

/// Puts a new client in the place of one that gave up, until the link is closed or dropped, or the broker cuts it off.
pub(crate) struct Reconnector<W> {
    pub(crate) name: Name,
    pub(crate) current: Weak<Current>,
    pub(crate) options: ConnectOptions,
    pub(crate) whereabouts: W,
    pub(crate) ended: Arc<Notify>,
    /// Woken by every new client; its owner's tasks wait for that.
    pub(crate) losses: watch::Sender<u64>,
}

impl<W: Fn() -> Option<Endpoint> + Send + Sync> Reconnector<W> {
    pub(crate) async fn run(self) {
        while self.until_ended().await {
            let mut pause = PAUSE.0;
            while !self.connect_anew().await {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }

    /// Whether there is still a link whose client must be replaced, once its client has ended.
    async fn until_ended(&self) -> bool {
        let mut losses = self.losses.subscribe();
        let mut without = 0;
        loop {
            let connected = match self.current.upgrade() {
                Some(current) if current.is_open() => current.get().connection_state() == State::Connected,
                _ => return false,
            };
            if connected {
                without = 0;
                tokio::time::timeout(IDLE, losses.changed()).await.ok();
                continue;
            }
            without += 1;
            if without > LOOKS || tokio::time::timeout(LOOK, self.ended.notified()).await.is_ok() {
                return true;
            }
        }
    }

    /// Tries once; true if there is a connection or nobody wants one any more.
    async fn connect_anew(&self) -> bool {
        match self.current.upgrade() {
            Some(current) if current.is_open() => {}
            _ => return true,
        }
        let Some(endpoint) = (self.whereabouts)() else { return false };
        let client = match self.options.clone().connect(format!("tls://{endpoint}")).await {
            Ok(client) => client,
            Err(error) => return self.refused(endpoint, &error),
        };
        if let Err(error) = check_version(&endpoint, &client.server_info().version) {
            tracing::debug!(name = %self.name, %error, "no broker there yet");
            return false;
        }
        if let Some(current) = self.current.upgrade() {
            current.replace(client);
        }
        self.losses.send_modify(|_| ());
        true
    }

    /// There is no connection; true if there will be none: a party that was connected was listed, and who is taken off the list
    /// does not come back on it.
    fn refused(&self, endpoint: Endpoint, error: &ConnectError) -> bool {
        let error = explain(&endpoint, &self.name, error);
        let LinkError::NotListed { .. } = error else {
            tracing::debug!(name = %self.name, %error, "no broker there yet");
            return false;
        };
        if let Some(current) = self.current.upgrade() {
            current.cut_off(endpoint);
        }
        self.losses.send_modify(|_| ());
        true
    }
}
