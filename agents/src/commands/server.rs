//! `ward server`.

use protocol::{Event, Role, Server};

use crate::cli::ServerArgs;
use crate::connect::{Way, connect};
use crate::driver::{Driver, now};
use crate::enrol::enrol;
use crate::home::Home;
use crate::life::Stop;
use crate::lock::Running;
use crate::report::note;
use crate::store::Store;

/// Runs the server until it is stopped.
///
/// # Errors
/// If its certificate, its store or the broker do not let it.
pub async fn run(home: &Home, way: &Way, args: &ServerArgs, tied: bool) -> anyhow::Result<()> {
    let mut stop = Stop::listen(tied)?;
    super::prepare(home)?;
    if home.has_ca() {
        enrol(home, &args.name, Some(Role::Server))?;
    }
    let _running = Running::claim(&home.party_dir(&args.name), tied)?;
    let credentials = home.credentials_as(&args.name, Role::Server)?;
    let store = Store::open(&home.state_path(&args.name))?;
    let server = Server::restore(credentials.me(), &store.load(&args.name)?, now());
    let board = tokio::select! {
        board = connect(home, way, &credentials) => board?,
        () = stop.asked() => return Ok(()),
    };
    let mut driver = Driver::new(args.name.clone(), server, board, store).await?;
    note!("{} is ready", args.name);
    loop {
        let ready = tokio::select! {
            ready = driver.ready() => ready?,
            () = stop.asked() => {
                driver.finish().await;
                return Ok(());
            }
        };
        driver.take(ready).await?.iter().for_each(tell);
    }
}

fn tell(event: &Event) {
    match event {
        Event::Session(session) => note!("session {}: joins are open", session.short()),
        Event::Roster { session, count, committee } => {
            note!("session {}: {count} joined; committee: {}", session.short(), protocol::list(committee));
        }
        Event::Round { session, round } => note!("session {}, round {round}: began", session.short()),
        Event::Cohort { round, count } => note!("round {round}: cohort of {count} fixed"),
        Event::Ended(session) => note!("session {}: over", session.short()),
        _ => {}
    }
}
