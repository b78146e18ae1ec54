//! A party's own way to the broker, which can be cut and slowed down.

use std::fs;
use std::net::TcpListener as Bound;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How a way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// As if it were not there.
    Clear,
    /// Each piece takes so long, in either direction.
    Slow(Duration),
    /// Connections break, and new ones too.
    Cut,
}

/// A proxy on a port of its own; with it everything that it carries ends.
pub struct Way {
    port: u16,
    weather: watch::Sender<Weather>,
    runtime: Option<Runtime>,
}

impl Way {
    /// Opens one to the broker whose address is in the file `whereabouts`, now or later.
    pub fn open(whereabouts: PathBuf) -> Self {
        let bound = Bound::bind("127.0.0.1:0").unwrap();
        bound.set_nonblocking(true).unwrap();
        let port = bound.local_addr().unwrap().port();
        let (weather, seen) = watch::channel(Weather::Clear);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(bound).unwrap();
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, whereabouts.clone(), seen.clone()));
            }
        });
        Self { port, weather, runtime: Some(runtime) }
    }

    /// What a party is told of the broker.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Changes how it is.
    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Carries one connection until an end closes it or the way is cut.
async fn carry(near: TcpStream, whereabouts: PathBuf, mut weather: watch::Receiver<Weather>) -> std::io::Result<()> {
    if *weather.borrow_and_update() == Weather::Cut {
        return Ok(());
    }
    let address = fs::read_to_string(whereabouts)?;
    let far = TcpStream::connect(address.trim()).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    let mut cut = weather.clone();
    tokio::select! {
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => Ok(()),
        done = pass_on(from_near, to_far, weather.clone()) => done,
        done = pass_on(from_far, to_near, weather.clone()) => done,
    }
}

async fn pass_on(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    weather: watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let mut piece = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut piece).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let delay = match *weather.borrow() {
            Weather::Slow(delay) => Some(delay),
            Weather::Clear | Weather::Cut => None,
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&piece[..read]).await?;
    }
}
