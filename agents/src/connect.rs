//! The way to this home's broker, waiting for what is not there yet.

use std::time::Duration;

use certs::Credentials;
use nats::{Board, Endpoint, Link, LinkError};
use tokio::time::Instant;

use crate::home::Home;
use crate::report::note;

/// How often it is looked whether the broker is there.
const LOOK: Duration = Duration::from_millis(50);
/// After this much waiting a person is told what is waited for.
const TELL: Duration = Duration::from_secs(1);
/// How long a party that was just enrolled waits until the broker lists it.
const ADMIT: Duration = Duration::from_secs(15);

/// Where the broker is, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct Way {
    /// The address that was given; otherwise the home knows it.
    pub broker: Option<Endpoint>,
    /// How long to wait; for ever if nothing is said.
    pub wait: Option<Duration>,
}

/// Where the home says that its broker is.
fn address(home: &Home) -> anyhow::Result<Option<Endpoint>> {
    Ok(home.broker_address()?.map(|address| address.parse()).transpose()?)
}

/// A link that looks into the home again whenever it is lost: a broker that was started again may listen elsewhere.
async fn link(home: &Home, way: &Way, endpoint: &Endpoint, credentials: &Credentials) -> Result<Link, LinkError> {
    match way.broker {
        Some(_) => Link::connect(endpoint, credentials).await,
        None => {
            let home = home.clone();
            Link::connect_following(endpoint, credentials, move || address(&home).ok().flatten()).await
        }
    }
}

/// Connects as the party of `credentials`; the broker's certificate proves that it is of this home.
///
/// # Errors
/// [`LinkError`] for what waiting does not mend, and once the wait is over.
pub async fn connect(home: &Home, way: &Way, credentials: &Credentials) -> anyhow::Result<Board> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let endpoint = match &way.broker {
            Some(given) => Some(given.clone()),
            None => address(home)?,
        };
        let error = match endpoint {
            Some(endpoint) => match link(home, way, &endpoint, credentials).await {
                Ok(link) => return Ok(Board::new(link)),
                Err(error) => error,
            },
            None => LinkError::NoBroker {
                endpoint: Endpoint { host: "localhost".into(), port: 4222 },
                reason: format!("none runs for {}", home.path().display()),
            },
        };
        let admitting = matches!(error, LinkError::NotListed { .. }) && begun.elapsed() < ADMIT;
        let waiting = error.may_pass() && way.wait.is_none_or(|wait| begun.elapsed() < wait);
        if !admitting && !waiting {
            return Err(error.into());
        }
        if !told && begun.elapsed() >= TELL {
            note!("waiting for the broker of {}: start it with `ward broker`", home.path().display());
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}
