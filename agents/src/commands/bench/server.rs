//! A server of a bench: that of the secure rounds as it always is, and beside it one that adds floats.

use protocol::Server;

use super::orders::{Said, say};
use super::plain::Adder;
use super::setting::Setting;
use crate::connect::{Way, connect};
use crate::driver::{Driver, now};
use crate::home::Home;
use crate::life::Stop;
use crate::store::Store;

/// Plays the server at `index` until the bench ends.
///
/// # Errors
/// If store or broker do not let it.
pub async fn play(home: &Home, way: &Way, setting: Setting, index: usize) -> anyhow::Result<()> {
    let mut stop = Stop::listen(true)?;
    let name = setting.servers[index].clone();
    let credentials = home.credentials(&name)?;
    let store = Store::open(&home.state_path(&name))?;
    let server = Server::restore(credentials.me(), &store.load(&name)?, now());
    let mut driver = Driver::new(name, server, connect(home, way, &credentials).await?, store).await?;
    let board = connect(home, way, &home.credentials(&setting.adders[index])?).await?;
    let mut adding = tokio::spawn(Adder::new(setting, index, board).await?.serve());
    say(Said::Ready)?;
    loop {
        tokio::select! {
            ready = driver.ready() => drop(driver.take(ready?).await?),
            ended = &mut adding => return ended?,
            () = stop.asked() => return Ok(()),
        }
    }
}
