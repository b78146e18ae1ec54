//! `ward patient`, and many patients in one process for `ward up --csv`.

use std::collections::BTreeSet;
use std::io::BufRead as _;
use std::path::Path;

use anyhow::Context as _;
use certs::{Credentials, Study};
use futures::future::{select_all, try_join_all};
use protocol::{Event, Name, Patient, PlanError, Record, Role, Scale, Schema, Snapshot};
use tokio::task::JoinHandle;

use crate::cli::{PatientArgs, PatientsArgs};
use crate::connect::{Way, connect};
use crate::drafts::{self, OF_RUNNING};
use crate::driver::{Driver, moment};
use crate::enrol::enrol;
use crate::exit::{is_cut_off, usage};
use crate::home::{Home, make_dir};
use crate::input::{self, SecretText};
use crate::labels;
use crate::life::Stop;
use crate::lock::{ClaimError, Running};
use crate::offers::{self, Offer};
use crate::profile::Profile;
use crate::prompt;
use crate::report::note;
use crate::store::Store;
use crate::table;

/// Runs a patient until it is stopped, or hands its data to the agent that runs already.
///
/// # Errors
/// If name, value, certificate, store or broker do not let it.
pub async fn run(home: &Home, way: &Way, args: PatientArgs, tied: bool) -> anyhow::Result<()> {
    let given = if args.value_on_stdin { Some(first_line()?) } else { args.value };
    let mut stop = Stop::listen(tied)?;
    let name = match &args.name {
        Some(name) => input::patient_name(name)?,
        None => prompt::name()?,
    };
    let dir = home.party_dir(&name);
    let profile = Profile::load_or_default(&dir, &super::study(home)?)?;
    let profile = with_flags(profile, args.min_cohort, args.bound, args.scale)?;
    // What is wrong with a value is said before anybody is enrolled.
    let record = match given {
        Some(text) => Some(input::value_record(text.expose(), &profile.schema)?),
        // It never had one: asked for now, so that nobody is enrolled without a value.
        None if !home.state_path(&name).exists() => Some(ask_value(&name, &profile.schema)?),
        None => None,
    };
    check_no_row(&dir, &name)?;
    super::prepare(home)?;
    if home.has_ca() {
        write_if_new(home, &name, &profile)?;
        enrol(home, &name, None)?;
    }
    let credentials = home.credentials_as(&name, Role::Patient)?;
    let running = match Running::claim(&dir, tied) {
        Ok(running) => running,
        Err(ClaimError::Running { .. }) if record.is_some() => {
            let Some(record) = record else { return Ok(()) };
            let offer = Offer { snapshot: args.snapshot.clone(), record };
            offers::hand_over(&dir, &offer).await?;
            note!("{name} runs already and took the data under snapshot `{}`", args.snapshot);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    // It may have become one meanwhile.
    check_no_row(&dir, &name)?;
    offers::clear(&dir)?;
    let store = Store::open(&home.state_path(&name))?;
    let mut agent = Agent::new(home, way, credentials, &profile, store)?;
    let record = match record {
        None if agent.has(&args.snapshot) => None,
        None => Some(ask_value(&name, &profile.schema)?),
        record => record,
    };
    if let Some(record) = record {
        labels::note(home, &args.snapshot)?;
        agent.offer(args.snapshot, record).await?;
    }
    let ended = agent.serve(&mut stop, args.once, Some(&dir)).await;
    drop(running);
    ended
}

/// Writes down the profile of a patient that is not enrolled yet, so that it has one also if it is killed in between. Who was
/// enrolled by `ward up` has none: the rules of one study are not a patient's own.
fn write_if_new(home: &Home, name: &Name, profile: &Profile) -> anyhow::Result<()> {
    let (dir, _alone) = (home.party_dir(name), home.lock()?);
    let issued = home.register().map(|register| register.get(name)).transpose()?.flatten();
    if issued.is_none() && !Profile::is_written(&dir) {
        make_dir(&dir)?;
        profile.save(&dir)?;
    }
    Ok(())
}

/// The profile that the patient with the folder `dir` wrote down: nobody else's command line changes it. Without one the
/// standard one, with what that command line says.
///
/// # Errors
/// If the file is wrong, or as [`with_flags`].
pub fn written_or_flags(
    dir: &Path,
    study: &Study,
    min_cohort: Option<u32>,
    bound: Option<u64>,
    scale: Option<Scale>,
) -> anyhow::Result<Profile> {
    let profile = Profile::load_or_default(dir, study)?;
    if Profile::is_written(dir) { Ok(profile) } else { with_flags(profile, min_cohort, bound, scale) }
}

/// The profile with what the command line says instead.
///
/// # Errors
/// What its file could not say either: a cohort of one, or a bound that is 0 or too large for 64 bits.
fn with_flags(
    mut profile: Profile,
    min_cohort: Option<u32>,
    bound: Option<u64>,
    scale: Option<Scale>,
) -> anyhow::Result<Profile> {
    let Profile { schema, policy } = &mut profile;
    if let Some(min_cohort) = min_cohort {
        if min_cohort < 2 {
            return Err(PlanError::CohortOfOne(min_cohort).into());
        }
        policy.min_cohort = min_cohort;
    }
    if bound.is_some() || scale.is_some() {
        let bound = bound.unwrap_or(schema.scaled_bound / schema.scale.get());
        schema.scale = scale.unwrap_or(schema.scale);
        schema.scaled_bound = bound.saturating_mul(schema.scale.get());
        if bound == 0 || i64::try_from(schema.scaled_bound).is_err() {
            usage!("a bound of {bound} with scale {}: use 1 or more, and less than 2^63 units", schema.scale.get());
        }
    }
    Ok(profile)
}

/// Marks a party whose state is in the store of the tables: what it shared is remembered in one place only.
const TABLE: &str = "table";

fn check_no_row(dir: &Path, name: &Name) -> anyhow::Result<()> {
    if dir.join(TABLE).exists() {
        usage!(
            "`{name}` is a row of a table that `ward up --csv` served in this home: choose another name, or another --home"
        );
    }
    Ok(())
}

/// The value that `ward up` hands over: not in the list of processes, where everybody could read it.
fn first_line() -> anyhow::Result<SecretText> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("standard input cannot be read")?;
    let text = SecretText::from(line.trim_end_matches('\n').to_string());
    zeroize::Zeroize::zeroize(&mut line);
    Ok(text)
}

fn ask_value(name: &Name, schema: &Schema) -> anyhow::Result<Record> {
    let text = prompt::value(name, schema)?;
    Ok(input::value_record(text.expose(), schema)?)
}

/// Runs one patient per row of a table, each with its own certificate, connection and state, until stopped.
///
/// # Errors
/// If the table, a certificate, the store or the broker do not let it.
pub async fn run_table(home: &Home, way: &Way, args: &PatientsArgs, tied: bool) -> anyhow::Result<()> {
    let mut stop = Stop::listen(tied)?;
    let (table, scale) = table::read_table_exactly(&args.csv, &args.column, args.limit, Some(args.scale), args.bound)?;
    let scaled_bound = args.bound.saturating_mul(scale.get());
    let study = super::study(home)?;
    let store = store_of_tables(home)?;
    let mut running = Vec::new();
    let mut agents = Vec::new();
    for (name, record) in table.rows {
        let dir = home.party_dir(&name);
        running.push(Running::claim(&dir, tied)?);
        if home.state_path(&name).exists() {
            usage!("`{name}` has been run by hand in this home and is a row of the table too: use another --home");
        }
        std::fs::write(dir.join(TABLE), "")?;
        let profile = written_or_flags(&dir, &study, args.min_cohort, None, None)?;
        let schema = Schema { columns: table.columns.clone(), scale, scaled_bound };
        let profile = Profile { schema, ..profile };
        agents.push((
            Agent::new(home, way, home.credentials_as(&name, Role::Patient)?, &profile, store.clone())?,
            record,
        ));
    }
    let snapshot = &args.snapshot;
    let offered = agents.into_iter().map(async |(mut agent, record): (Agent, Record)| {
        agent.offer(snapshot.clone(), record).await?;
        anyhow::Ok(agent)
    });
    let agents = try_join_all(offered).await?;
    note!("{} patients are here", agents.len());
    let mut tasks = Vec::new();
    for agent in agents {
        let mut stop = Stop::listen(false)?;
        tasks.push(tokio::spawn(async move { agent.serve(&mut stop, false, None).await }));
    }
    tokio::select! {
        ended = until_one_fails(tasks) => ended,
        () = stop.asked() => Ok(()),
    }
}

/// The store that all rows share. What another process began of it that was killed goes: under the home's lock, as none of the
/// rows' own is held yet.
fn store_of_tables(home: &Home) -> anyhow::Result<Store> {
    let _alone = home.lock()?;
    drafts::clear(home.path(), OF_RUNNING)?;
    Store::open(&home.path().join("patients.redb"))
}

/// Returns when one of the rows ends for another reason than that the broker cut it off, which is its own affair alone; or
/// when all were.
async fn until_one_fails(mut tasks: Vec<JoinHandle<anyhow::Result<()>>>) -> anyhow::Result<()> {
    loop {
        let (ended, _, others) = select_all(tasks).await;
        match ended? {
            Err(error) if is_cut_off(&error) && !others.is_empty() => tracing::warn!("{error:#}"),
            ended => return ended,
        }
        tasks = others;
    }
}

/// One patient at work.
struct Agent {
    home: Home,
    way: Way,
    credentials: Credentials,
    patient: Patient,
    store: Store,
}

impl Agent {
    fn new(home: &Home, way: &Way, credentials: Credentials, profile: &Profile, store: Store) -> anyhow::Result<Self> {
        let records = store.load(&credentials.identity().name)?;
        let (policy, schema) = (profile.policy.clone(), profile.schema.clone());
        let patient = Patient::restore(credentials.me(), policy, schema, &records)?;
        Ok(Self { home: home.clone(), way: way.clone(), credentials, patient, store })
    }

    fn name(&self) -> &Name {
        &self.credentials.identity().name
    }

    fn has(&self, snapshot: &Snapshot) -> bool {
        self.patient.snapshots().any(|known| known == snapshot)
    }

    /// Takes data before the board is followed.
    async fn offer(&mut self, snapshot: Snapshot, record: Record) -> anyhow::Result<()> {
        let effects = self.patient.offer(snapshot, record, &moment()?)?;
        self.store.commit(&self.credentials.identity().name, effects.store).await
    }

    /// Answers every session until it is stopped; with `once` until its first result. `offers` is the folder where
    /// other processes leave data for it.
    async fn serve(self, stop: &mut Stop, once: bool, offers: Option<&std::path::Path>) -> anyhow::Result<()> {
        let name = self.name().clone();
        let board = tokio::select! {
            board = connect(&self.home, &self.way, &self.credentials) => board?,
            () = stop.asked() => return Ok(()),
        };
        let Self { home, patient, store, .. } = self;
        let mut driver = Driver::new(name.clone(), patient, board, store).await?;
        note!("{name} is ready");
        let mut look = tokio::time::interval(offers::LOOK);
        let mut shared = BTreeSet::new();
        loop {
            let ready = tokio::select! {
                ready = driver.ready() => ready?,
                _ = look.tick(), if offers.is_some() => {
                    if let Some(dir) = offers {
                        take_offers(&home, dir, &mut driver).await?;
                    }
                    continue;
                }
                () = stop.asked() => {
                    driver.finish().await;
                    return Ok(());
                }
            };
            let events = driver.take(ready).await?;
            for event in &events {
                tell(&name, event);
                match event {
                    Event::Shared { session, .. } => _ = shared.insert(*session),
                    // The result of a session that it was never in may be on the board too.
                    Event::Receipt { session, included, .. } if once && (*included || shared.contains(session)) => {
                        return driver.flush().await;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Takes the data that other processes left in the patient's folder.
async fn take_offers(home: &Home, dir: &std::path::Path, driver: &mut Driver<Patient>) -> anyhow::Result<()> {
    for (file, Offer { snapshot, record }) in offers::waiting(dir)? {
        labels::note(home, &snapshot)?;
        let taken = driver.apply(|patient, moment| patient.offer(snapshot.clone(), record, moment)).await;
        match taken {
            Ok(_) => offers::answer(&file, None)?,
            Err(refusal) if refusal.is::<protocol::OfferError>() => offers::answer(&file, Some(&refusal.to_string()))?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn tell(name: &Name, event: &Event) {
    match event {
        Event::NotJoined { session, why } => note!("{name} takes no part in session {}: {why}", session.short()),
        Event::StoreLost { session } => tracing::warn!(
            "a message to {name} is for members of session {}, and the store of {name} has no seat there: if it sat down in \
             it, it is out of that session, as if it had dropped, and can join the next one. If the store was moved away, stop \
             {name} and put it back as it was, no older copy; if it is gone, what was shared before must not be given under \
             its label again",
            session.short()
        ),
        Event::Shared { session, round, snapshot } => {
            note!("{name} shared snapshot `{snapshot}`, masked, in session {}, round {round}", session.short());
        }
        Event::Declined { session, round, why, .. } => {
            note!("{name} declined session {}, round {round}: {why}", session.short());
        }
        Event::Receipt { session, round, count, included, .. } => {
            let part = if *included { "with" } else { "without" };
            note!("session {}, round {round}: opened over {count} patients, {part} {name}", session.short());
        }
        Event::Aborted { session, round, reason, .. } => {
            note!("session {}, round {round}: aborted: {reason}", session.short());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixtures::{name, new_home};

    #[test]
    fn a_new_patient_has_its_profile_before_it_is_enrolled_and_keeps_it() {
        let (_dir, home) = new_home();
        let (alice, bob) = (name("alice"), name("bob"));
        let study = home.study().unwrap();
        let careful = |least| with_flags(Profile::standard(&study), Some(least), None, None).unwrap();
        for least in [7, 3] {
            write_if_new(&home, &alice, &careful(least)).unwrap();
            let written = Profile::load_or_default(&home.party_dir(&alice), &study).unwrap();
            assert_eq!(written.policy.min_cohort, 7);
            enrol(&home, &alice, None).unwrap();
        }
        enrol(&home, &bob, None).unwrap();
        write_if_new(&home, &bob, &careful(7)).unwrap();
        assert!(!Profile::is_written(&home.party_dir(&bob)));
    }
}
