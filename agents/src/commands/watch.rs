//! `ward watch`.

use nats::{Seen, Watcher};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::connect::{Way, connect};
use crate::home::Home;
use crate::life::Stop;
use crate::report::print;

/// Prints a line for every message on the board until it is stopped: never a payload.
///
/// # Errors
/// If the monitor's certificate or the broker do not let it.
pub async fn run(home: &Home, way: &Way, json: bool) -> anyhow::Result<()> {
    let mut stop = Stop::listen(false)?;
    super::prepare(home)?;
    let credentials = home.credentials(&"monitor".parse()?)?;
    let board = tokio::select! {
        board = connect(home, way, &credentials) => board?,
        () = stop.asked() => return Ok(()),
    };
    let mut watcher = Watcher::new(board.link()).await?;
    if !json {
        print(format_args!(
            "{:12}  {:32}  {:>5}  {:10}  {:20}  {:20}  {:>9}",
            "time", "session", "round", "kind", "from", "to", "bytes"
        ))?;
    }
    loop {
        let seen = tokio::select! {
            seen = watcher.next() => seen?,
            () = stop.asked() => return Ok(()),
        };
        print(if json { as_json(&seen)? } else { as_text(&seen)? })?;
    }
}

fn as_text(seen: &Seen) -> anyhow::Result<String> {
    let time = OffsetDateTime::from(seen.time);
    let time = time.format(format_description!("[hour]:[minute]:[second].[subsecond digits:3]"))?;
    let Seen { session, round, kind, from, to, size, .. } = seen;
    Ok(format!("{time:12}  {session:32}  {round:>5}  {kind:10}  {from:20}  {to:20}  {size:>9}"))
}

fn as_json(seen: &Seen) -> anyhow::Result<String> {
    let time = OffsetDateTime::from(seen.time);
    let time = time.format(&time::format_description::well_known::Rfc3339)?;
    Ok(serde_json::json!({
        "time": time,
        "session": seen.session.to_string(),
        "round": seen.round.0,
        "kind": seen.kind.as_str(),
        "from": seen.from.as_str(),
        "to": seen.to.to_string(),
        "size": seen.size,
    })
    .to_string())
}
